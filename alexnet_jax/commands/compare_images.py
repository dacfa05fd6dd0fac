"""Tells how different images look to a network's convolutions, as LPIPS does: of the first and each other.

    alexnet compare-images REFERENCE IMAGE... --weights=imagenet_trunk                 any network; channels count alike
    alexnet compare-images REFERENCE IMAGE... --weights=imagenet_trunk --linear=lpips  weighed as LPIPS learned it
    alexnet compare-images REFERENCE DIR --workdir=runs/NAME --json                    with all images of a folder

Of the centre crops, 0 for equal ones. IMAGE is a file, a folder (all images in it) or - (one on standard input).
docs/library.md says what the distance is. Exit code 1 where a file is no image, with a line for each; the others are
compared nevertheless, unless it is the first.
"""

import json
import sys

from absl import flags, logging

from alexnet_jax.commands import network_flags
from alexnet_jax.commands.command_line import parse_arguments
from alexnet_jax.errors import InputError
from alexnet_jax.sharding.backend import tune_allocator

_NETWORK = network_flags.define(with_classes=False)
_LINEAR = flags.DEFINE_string(
    'linear', None, "What LPIPS learned for torchvision's network: its weights/v0.1/alex.pth, or lpips."
)
_JSON = flags.DEFINE_bool('json', False, 'Print JSON and nothing else.')
parse = parse_arguments


def main(argv: list[str]) -> None:
    """Compares and prints."""
    logging.set_verbosity(logging.ERROR)
    tune_allocator()  # before anything imports jax
    from alexnet_jax.evaluation.compare_photos import compare_photos

    found, text, unusable = compare_photos(argv[1:], _NETWORK(), linear=_LINEAR.value)
    print(json.dumps(found) if _JSON.value else text)
    for line in unusable:
        print(f'error: {InputError(line)}', file=sys.stderr)
    sys.exit(1 if unusable else 0)
