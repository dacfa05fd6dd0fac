"""Copies of this checkout, as launchers find one on a cluster's shared storage."""

import shutil
import sys

import commands

PARTS = ('alexnet_jax', 'configs', 'launch', 'requirements.txt')
# A run of the small prepared dataset that takes seconds; each is appended to the command that a file of launch/ holds.
TINY = (
    *('--config.dataset=tiny', '--config.variant=released', '--config.width=0.01', '--config.batch_size=8'),
    *('--config.epochs=1', '--config.steps=2'),
)


def copy(folder):
    """The parts that a run needs, in `folder`, with this Python's environment as its .venv."""
    for part in PARTS:
        source = commands.ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copy(source, folder / part)
    (folder / '.venv').symlink_to(sys.prefix)
    return folder
