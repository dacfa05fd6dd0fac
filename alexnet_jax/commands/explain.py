"""Shows where a trained network looks: how much each pixel of a photograph counts for a class.

    alexnet explain IMAGE... --workdir=runs/NAME --figure=FILE.png         each one's most probable class
    alexnet explain IMAGE... --weights=FILE --method=all --class=NAME      all methods; by name, synset or number
    alexnet explain IMAGE... --workdir=runs/NAME --output=FILE.npz --json  maps as arrays, the summary as JSON
    alexnet explain IMAGE... --workdir=runs/NAME --method=all --randomised do maps change when layers are drawn anew?

Methods: occlusion, gradient, integrated_gradients, guided, deconvnet, grad_cam; several with commas. docs/explain.md
says what each is. Of the centre crop, without dropout, as in testing. IMAGE is a file, a folder (all images in it) or -
(one on standard input). Exit code 1 where a file is no image, with a line for each; the others are done nevertheless.
"""

import json
import sys

from absl import flags, logging

from alexnet_jax.commands import network_flags
from alexnet_jax.commands.command_line import parse_arguments
from alexnet_jax.errors import InputError
from alexnet_jax.sharding.backend import tune_allocator

_NETWORK = network_flags.define()
_METHOD = flags.DEFINE_list('method', ['grad_cam'], 'Methods, or all.')
_CLASS = flags.DEFINE_string('class', None, 'The class to explain. Default: the most probable of each image.')
_OPTIONS = (
    flags.DEFINE_bool('randomised', False, 'Compare with maps of the network with layers drawn anew, from the top.'),
    flags.DEFINE_string('figure', None, 'A PNG to draw.'),
    flags.DEFINE_string('output', None, 'An .npz to write: crops, and of each method what it gives and a map.'),
)
_SETTINGS = (
    flags.DEFINE_integer(
        'window', None, "occlusion: side of the square, pixels. Default: a seventh of the crop's.", lower_bound=1
    ),
    flags.DEFINE_integer('stride', None, 'occlusion: from square to square. Default: half a square.', lower_bound=1),
    flags.DEFINE_integer('steps', 50, 'integrated_gradients: gradients on the way.', lower_bound=1),
)
_MESH = flags.DEFINE_list('mesh', ['1', '1'], 'Devices, data,tower: 1,2 has a tower on each of two.')
_JSON = flags.DEFINE_bool('json', False, 'Print JSON and nothing else.')
parse = parse_arguments


def main(argv: list[str]) -> None:
    """Explains and prints."""
    logging.set_verbosity(logging.ERROR)
    tune_allocator()  # before anything imports jax
    from alexnet_jax.evaluation.explain_photos import explain_photos
    from alexnet_jax.evaluation.explainer import Settings
    from alexnet_jax.sharding.mesh import parse_mesh

    found, text, unusable = explain_photos(
        argv[1:],
        _NETWORK(),
        methods=_METHOD.value,
        class_name=_CLASS.value,
        mesh=parse_mesh(_MESH.value),
        settings=Settings(**{flag.name: flag.value for flag in _SETTINGS}),
        **{flag.name: flag.value for flag in _OPTIONS},
    )
    if _JSON.value:
        print(json.dumps(found))
    elif text:
        print(text)
    for line in unusable:
        print(f'error: {InputError(line)}', file=sys.stderr)
    sys.exit(1 if unusable else 0)
