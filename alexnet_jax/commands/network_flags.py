"""The flags that name trained networks: --workdir, --weights, --step and --classes of every command that opens one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from absl import flags

from alexnet_jax.commands.command_line import split_paths

if TYPE_CHECKING:
    from alexnet_jax.evaluation.open_networks import NetworkArgs

flags.disclaim_key_flags()  # --help shows them as the command's own


def define(*, several: bool = False, with_classes: bool = True) -> Callable[[], NetworkArgs]:
    """Defines them; once they are parsed, what is returned gives the networks that they name.

    `several`: whether the command takes more than one. `with_classes`: whether names of outputs mean anything to it.
    """
    workdir = flags.DEFINE_multi_string(
        'workdir', [], 'Run folders, A,B or a flag for each.' if several else 'Run folder.'
    )
    weights = flags.DEFINE_multi_string(
        'weights', [], 'Files of weights, the same way.' if several else 'File of weights.'
    )
    step = flags.DEFINE_integer('step', None, 'Which checkpoint of the run. Default: the newest.', lower_bound=0)
    classes = None
    if with_classes:
        classes = flags.DEFINE_string(
            'classes', None, 'Names of the outputs: a file (synset_words.txt, a name a line, JSON), or imagenet2012.'
        )

    def make_args() -> NetworkArgs:
        from alexnet_jax.evaluation.open_networks import NetworkArgs  # imports jax: not before the command is ready

        return NetworkArgs(
            workdir=split_paths(workdir.value),
            weights=split_paths(weights.value),
            step=step.value,
            classes=None if classes is None else classes.value,
        )

    return make_args
