"""Writes what a layer of a trained network makes of images: a dataset's, or files'.

    python -m alexnet_jax.features --workdir=runs/NAME --layer=help                              the layers' names
    python -m alexnet_jax.features --workdir=runs/NAME --layer=fc7 --dataset=demo --output=F.npz
    python -m alexnet_jax.features --weights=FILE --layer=conv5/pool IMAGE... --output=F.parquet

Of the centre crop, without dropout, as in testing. A layer's name is what the next one reads; conv1/linear, conv1/norm
and so on are the stages on the way. docs/evaluation.md says what is in the files. One process.
"""

import sys

from absl import app, flags, logging

from alexnet_jax import InputError
from alexnet_jax.parallel.allocator import tune_allocator
from alexnet_jax.training.command_line import parse_arguments, paths_of

_WORKDIR = flags.DEFINE_multi_string('workdir', [], 'Run folder.')
_WEIGHTS = flags.DEFINE_multi_string('weights', [], 'File of weights.')
_STEP = flags.DEFINE_integer('step', None, 'Which checkpoint of the run. Default: the newest.', lower_bound=0)
_SETTINGS = (
    flags.DEFINE_string('layer', None, 'A layer or a stage of one, or help.', required=True),
    flags.DEFINE_string('output', None, 'FILE.npz or FILE.parquet.'),
    flags.DEFINE_string('dataset', None, 'A prepared dataset, in place of image files.'),
    flags.DEFINE_string('data_dir', None, 'Prepared datasets. Default: that of the run, or data.'),
    flags.DEFINE_string('split', 'validation', 'Which images of the dataset.'),
    flags.DEFINE_integer('batch_size', None, "Images at once. Default: the run's, or 128.", lower_bound=1),
)
_MESH = flags.DEFINE_list('mesh', ['1', '1'], 'Devices, data,tower: 1,2 has a tower on each of two.')


def main(argv: list[str]) -> None:
    """Writes the file and says what is in it."""
    logging.set_verbosity(logging.ERROR)
    tune_allocator()  # before anything imports jax
    from alexnet_jax.parallel.mesh import sizes_of
    from alexnet_jax.running.features import Settings, write
    from alexnet_jax.running.networks import Source

    source = Source(workdir=paths_of(_WORKDIR.value), weights=paths_of(_WEIGHTS.value), step=_STEP.value)
    try:
        settings = Settings(mesh=sizes_of(_MESH.value), **{flag.name: flag.value for flag in _SETTINGS})
        text, unusable = write(argv[1:], source, settings)
    except InputError as error:
        sys.exit(f'error: {error}')
    if text:
        print(text)
    for line in unusable:
        print(f'error: {InputError(line)}', file=sys.stderr)
    sys.exit(1 if unusable else 0)


if __name__ == '__main__':
    app.run(main, flags_parser=parse_arguments)
