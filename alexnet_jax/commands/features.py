"""Writes what a layer of a trained network makes of images: a dataset's, or files'.

    alexnet features --workdir=runs/NAME --layer=help                              the layers' names
    alexnet features --workdir=runs/NAME --layer=fc7 --dataset=demo --output=F.npz
    alexnet features --weights=FILE --layer=conv5/pool IMAGE... --output=F.parquet
    alexnet features --workdir=runs/NAME --layer=conv5 --dataset=demo --top=9 --output=F.npz --figure=F.png
    alexnet features --workdir=runs/NAME --layer=conv5 --maximise=16 --figure=F.png

Of the centre crop, without dropout, as in testing. A layer's name is what the next one reads; conv1/linear, conv1/norm
and so on are the stages on the way. IMAGE is a file, a folder (all images in it) or - (one on standard input).
docs/evaluation.md says what is in the output. One process.
"""

import sys

from absl import flags, logging

from alexnet_jax.commands import network_flags
from alexnet_jax.commands.command_line import parse_arguments
from alexnet_jax.errors import InputError
from alexnet_jax.sharding.backend import tune_allocator

_NETWORK = network_flags.define(with_classes=False)
_OPTIONS = (
    flags.DEFINE_string('layer', None, 'A layer or a stage of one, or help.', required=True),
    flags.DEFINE_string('output', None, 'FILE.npz or FILE.parquet.'),
    flags.DEFINE_string('dataset', None, 'A prepared dataset, in place of image files.'),
    flags.DEFINE_string('data_dir', None, 'Prepared datasets. Default: that of the run, or data.'),
    flags.DEFINE_string('split', 'validation', 'Which images of the dataset.'),
    flags.DEFINE_integer('batch_size', None, "Images at once. Default: the run's, or 128.", lower_bound=1),
    flags.DEFINE_integer('top', None, 'So many images that excite each channel most, in place of all.', lower_bound=1),
    flags.DEFINE_string('figure', None, 'PNG of the patches that do, or of --maximise.'),
)
_MAXIMISE = flags.DEFINE_integer(
    'maximise', None, 'Make images that excite so many channels, from noise.', lower_bound=1
)
_MESH = flags.DEFINE_list('mesh', ['1', '1'], 'Devices, data,tower: 1,2 has a tower on each of two.')
parse = parse_arguments


def main(argv: list[str]) -> None:
    """Writes the file and says what is in it."""
    logging.set_verbosity(logging.ERROR)
    tune_allocator()  # before anything imports jax
    from alexnet_jax.evaluation.extract_features import extract_features
    from alexnet_jax.evaluation.maximise import draw_maximised
    from alexnet_jax.sharding.mesh import parse_mesh

    options = {flag.name: flag.value for flag in _OPTIONS}
    if _MAXIMISE.value:
        others = [name for name in ('dataset', 'output', 'top') if options[name] is not None]
        if others or argv[1:]:
            raise InputError(f'--maximise reads no images: leave out {f"--{others[0]}" if others else argv[1]}')
        print(draw_maximised(_NETWORK(), layer=options['layer'], count=_MAXIMISE.value, figure=options['figure']))
        return
    text, unusable = extract_features(argv[1:], _NETWORK(), mesh=parse_mesh(_MESH.value), **options)
    if text:
        print(text)
    for line in unusable:
        print(f'error: {InputError(line)}', file=sys.stderr)
    sys.exit(1 if unusable else 0)
