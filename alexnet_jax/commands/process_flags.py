"""The flags by which several processes find one another: those of every command that may run in several."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from alexnet_jax.distributed.hosts import ProcessGroup

flags.disclaim_key_flags()  # --help shows them as the command's own


def define() -> tuple[Callable[[], ProcessGroup], Callable[[], dict[str, int]]]:
    """Defines them; once they are parsed, the first gives the group of this process, the second the times to wait.

    The times are in seconds: 'heartbeat' without a sign of life and 'stuck_after' in a step that others wait for
    (distributed.watchdog), and 'join_timeout' until all have come.
    """
    processes = flags.DEFINE_integer('processes', None, 'Processes, of all hosts together.', lower_bound=1)
    process_id = flags.DEFINE_integer('process_id', None, 'Which of them this is, from 0.', lower_bound=0)
    coordinator = flags.DEFINE_string('coordinator', None, 'HOST:PORT of process 0, where they meet.')
    cluster = flags.DEFINE_string('cluster', 'auto', 'Who tells the rest: slurm, kubernetes, tpu, none, or auto.')
    join = flags.DEFINE_integer('join_timeout', 300, 'Seconds to wait for the others to come.', lower_bound=1)
    heartbeat = flags.DEFINE_integer(
        'heartbeat', 10, 'Seconds without a sign of life after which a process is lost.', lower_bound=10, upper_bound=30
    )
    stuck = flags.DEFINE_integer(
        'stuck_after',
        60,
        'Seconds that others wait for a step of a process that is alive, until it is lost; ten times that elsewhere.',
        lower_bound=15,
    )

    def group() -> ProcessGroup:
        from alexnet_jax.distributed.hosts import find_process_group  # imports jax: not before the command is ready

        given = {'processes': processes.value, 'process_id': process_id.value}
        return find_process_group(cluster.value, coordinator=coordinator.value, **given)

    times = {'heartbeat': heartbeat, 'join_timeout': join, 'stuck_after': stuck}
    return group, lambda: {name: flag.value for name, flag in times.items()}
