"""A process that is measured: python -m alexnet_jax.benchmark.worker SUBJECT SETTING, see protocol."""

from __future__ import annotations

import sys

from alexnet_jax.benchmark import protocol

SUBJECTS = ('one_device', 'two_device', 'layers', 'ceilings', 'input')


def main(subject: str, argument: str) -> None:
    """Builds `subject`, one of SUBJECTS, and answers requests until standard input ends."""
    setting, answers = protocol.begin(argument)
    import jax  # after `begin`, which sets the allocator
    import numpy as np

    from alexnet_jax.benchmark import ceilings, layers, network

    match subject:
        case 'one_device':
            programs = network.programs(setting, towers=1)
        case 'two_device':
            programs = network.programs(setting, towers=2)
        case 'layers':  # and the whole step, of which they are parts
            programs = {'train': network.programs(setting, towers=1)['train'], **layers.programs(setting)}
        case 'ceilings':
            programs = ceilings.programs()
        case 'input':
            from alexnet_jax.benchmark import input_stages  # here: it opens datasets, and imports what that takes

            programs = input_stages.programs(setting)
        case _:
            raise ValueError(f'unknown subject {subject!r}')
    protocol.serve(answers, programs, versions={'jax': jax.__version__, 'numpy': np.__version__})


if __name__ == '__main__':
    main(*sys.argv[1:])
