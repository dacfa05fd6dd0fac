"""Says what a trained network takes photographs for: the five most probable classes of each.

    alexnet predict IMAGE... --workdir=runs/NAME                       a table
    alexnet predict IMAGE... --weights=FILE --json                     JSON and nothing else
    alexnet predict IMAGE... --workdir=runs/NAME --figure=FILE.png     the paper's figure 4, left half
        --neighbours=DATASET       and its right half: the nearest training images of a prepared dataset

IMAGE is a file, a folder (all images in it, at any depth) or - (one on standard input). An image whose folder is called
like a class is taken to be of that class: its bar is pink. Exit code 1 where a file is no image, with a line for each;
the others are done nevertheless. --neighbours computes features of all training images.
"""

import json
import sys

from absl import flags, logging

from alexnet_jax.commands import network_flags
from alexnet_jax.commands.command_line import parse_arguments
from alexnet_jax.errors import InputError
from alexnet_jax.sharding.backend import tune_allocator

_NETWORK = network_flags.define()
_OPTIONS = (
    flags.DEFINE_enum('protocol', 'ten_view', ['centre', 'ten_view'], 'What is averaged: one view, or ten.'),
    flags.DEFINE_string('figure', None, 'A PNG to draw.'),
    flags.DEFINE_string('neighbours', None, 'A prepared dataset: its nearest training images are shown.'),
    flags.DEFINE_string('data_dir', None, 'Prepared datasets. Default: that of the run, or data.'),
)
_JSON = flags.DEFINE_bool('json', False, 'Print JSON and nothing else.')
parse = parse_arguments


def main(argv: list[str]) -> None:
    """Predicts and prints."""
    logging.set_verbosity(logging.ERROR)
    tune_allocator()  # before anything imports jax
    from alexnet_jax.evaluation.predict_photos import predict_photos

    found, text, unusable = predict_photos(argv[1:], _NETWORK(), **{flag.name: flag.value for flag in _OPTIONS})
    if _JSON.value:
        print(json.dumps(found))
    elif text:
        print(text)
    for line in unusable:
        print(f'error: {InputError(line)}', file=sys.stderr)
    sys.exit(1 if unusable else 0)
