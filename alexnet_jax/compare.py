"""Says whether a training on ImageNet is on its course, against what was published of the same network.

    python -m alexnet_jax.compare --workdir=runs/imagenet

At any time of the run: landmarks that it has not come to say "not yet". Exit code 0 on course, 1 off course or where
it cannot be said. docs/imagenet.md has the recipe, the landmarks and their sources.
"""

import pathlib
import sys

from absl import app, flags, logging

from alexnet_jax import InputError
from alexnet_jax.training.command_line import parse_options

_WORKDIR = flags.DEFINE_string('workdir', None, 'The run folder.')
flags.mark_flag_as_required('workdir')


def main(argv: list[str]) -> None:
    """Prints the landmarks."""
    del argv
    logging.set_verbosity(logging.ERROR)
    from alexnet_jax.running.compare import compare

    try:
        text, good = compare(pathlib.Path(_WORKDIR.value))
    except InputError as error:
        sys.exit(f'error: {error}')
    print(text)
    sys.exit(0 if good else 1)


if __name__ == '__main__':
    app.run(main, flags_parser=parse_options)
