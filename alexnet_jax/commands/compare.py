"""Says whether a training on ImageNet is on its course, against what was published of the same network.

    alexnet compare --workdir=runs/imagenet

At any time of the run: landmarks that it has not come to say "not yet". Exit code 0 on course, 1 off course or where
it cannot be said. docs/imagenet.md has the recipe, the landmarks and their sources.
"""

import pathlib
import sys

from absl import flags, logging

from alexnet_jax.commands.command_line import parse_options

_WORKDIR = flags.DEFINE_string('workdir', None, 'The run folder.')
flags.mark_flag_as_required('workdir')
parse = parse_options


def main(argv: list[str]) -> None:
    """Prints the landmarks."""
    del argv
    logging.set_verbosity(logging.ERROR)
    from alexnet_jax.evaluation.landmarks import compare_run

    text, good = compare_run(pathlib.Path(_WORKDIR.value))
    print(text)
    sys.exit(0 if good else 1)
