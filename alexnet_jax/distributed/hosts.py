"""Several processes that are one run: who they are, how they find one another, and how they exchange strings.

Strings are exchanged before and between steps, through the key-value store that `jax.distributed` keeps in process 0;
what devices exchange within a step is in sharding/collectives.py.
"""

import collections
import dataclasses
import json
import os
import re
import socket
import textwrap
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax._src.distributed import global_state  # no public name leads to it; Orbax takes it from here as well
from jax.experimental import multihost_utils

from alexnet_jax.console import align_columns
from alexnet_jax.distributed.phases import PROGRESS
from alexnet_jax.errors import InputError, get_first_line

CLUSTERS = ('auto', 'slurm', 'kubernetes', 'tpu', 'none')
_FOREVER = 7 * 24 * 3600 * 1000  # milliseconds: distributed.watchdog finds that a peer is gone, not a timeout
_rounds: collections.Counter[str] = collections.Counter()  # of `allgather_str`, by topic


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessGroup:
    """The processes of one run, and which of them this is.

    Attributes:
      index: of this process, from 0.
      coordinator: HOST:PORT, where process 0 listens; None: JAX asks the TPU's metadata.
      found: where the group was read, for people.
      local_devices: the host's GPUs that are this process's; None: all.
    """

    index: int = 0
    count: int = 1
    coordinator: str | None = None
    found: str = 'alone'
    local_devices: tuple[int, ...] | None = None


def find_process_group(
    cluster: str = 'auto',
    *,
    coordinator: str | None = None,
    processes: int | None = None,
    process_id: int | None = None,
    environment: Mapping[str, str] = os.environ,
) -> ProcessGroup:
    """Finds the group of this process, from flags where they are given and else from a scheduler's variables.

    Args:
      cluster: one of CLUSTERS; 'auto' takes the first that left its variables, 'none' only the flags.
      coordinator, processes, process_id: the flags; each overrides the environment.
      environment: the variables. JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID are read like the flags;
        of SLURM those of a job step; of Kubernetes an indexed Job's JOB_COMPLETION_INDEX, beside the first two.

    Raises:
      InputError: the flags and variables are not enough, or contradict each other.
    """
    if cluster not in CLUSTERS:
        raise InputError(f'--cluster={cluster} is unknown: it must be one of {", ".join(CLUSTERS)}')
    given, hosts = ProcessGroup(), environment.get('TPU_WORKER_HOSTNAMES', '').split(',')
    in_step = cluster == 'auto' and 'SLURM_STEP_ID' in environment  # which an interactive allocation does not set
    if cluster == 'slurm' or (in_step and _get_int(environment, 'SLURM_STEP_NUM_TASKS', 1) > 1):
        given = _read_slurm(environment)
    elif cluster == 'tpu' or (cluster == 'auto' and len(hosts) > 1):
        given = ProcessGroup(index=_get_int(environment, 'TPU_WORKER_ID', 0), count=max(2, len(hosts)), found='TPU')
    elif cluster != 'none':
        name = 'JAX_PROCESS_ID' if 'JAX_PROCESS_ID' in environment else 'JOB_COMPLETION_INDEX'
        if cluster == 'kubernetes' and 'JOB_COMPLETION_INDEX' not in environment:
            raise InputError('--cluster=kubernetes, but JOB_COMPLETION_INDEX is not set: it must be an indexed Job')
        if 'JAX_NUM_PROCESSES' in environment and name in environment:
            given = ProcessGroup(
                index=_get_int(environment, name),
                count=_get_int(environment, 'JAX_NUM_PROCESSES'),
                coordinator=environment.get('JAX_COORDINATOR_ADDRESS'),
                found='Kubernetes' if name == 'JOB_COMPLETION_INDEX' else 'environment',
            )
    group = dataclasses.replace(
        given,
        index=given.index if process_id is None else process_id,
        count=given.count if processes is None else processes,
        coordinator=coordinator or given.coordinator,
        found='flags' if given.count == 1 and processes else given.found,
    )
    if processes is None and given.count == 1 and (coordinator or process_id is not None):
        raise InputError(
            '--coordinator or --process_id is given, but not how many processes there are: give --processes'
        )
    if not 0 <= group.index < group.count:
        raise InputError(f'process {group.index} of {group.count} ({group.found}): --process_id counts from 0')
    if group.count > 1 and group.found != 'TPU':
        if not re.fullmatch(r'.+:\d+', group.coordinator or ''):
            raise InputError(
                f'{group.count} processes, but where they meet is {group.coordinator!r}: give --coordinator=HOST:PORT '
                f'of process 0, and --process_id'
            )
        if process_id is None and given.count == 1:
            raise InputError(f'{group.count} processes, but not which of them this is: give --process_id')
    return group


def _get_int(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, str(default))
    if not text.isdecimal():
        raise InputError(f'the environment variable {name} is {text!r}: it must be a whole number')
    return int(text)


def _read_slurm(environment: Mapping[str, str]) -> ProcessGroup:
    needed = ('SLURM_JOB_ID', 'SLURM_PROCID', 'SLURM_STEP_NUM_TASKS', 'SLURM_STEP_NODELIST')
    if missing := [name for name in needed if name not in environment]:
        raise InputError(f'--cluster=slurm, but {", ".join(missing)} not set: start it with srun')
    # The first of 'node1', 'node1,node2', 'node[001-004,7],other'.
    name, bracket, rest = re.match(r'([^,\[]+)(\[?)(\w*)', environment['SLURM_STEP_NODELIST']).groups()  # type: ignore[union-attr]
    # High ports, another one for every job: several jobs may share a node.
    port = 61440 + _get_int(environment, 'SLURM_JOB_ID') % 4096
    tasks = environment.get('SLURM_STEP_TASKS_PER_NODE', '1')
    shared = int(re.match(r'\d+', tasks)[0]) > 1  # type: ignore[index]
    return ProcessGroup(
        index=_get_int(environment, 'SLURM_PROCID'),
        count=_get_int(environment, 'SLURM_STEP_NUM_TASKS'),
        coordinator=f'{name}{rest if bracket else ""}:{port}',
        found='SLURM',
        local_devices=(_get_int(environment, 'SLURM_LOCALID', 0),) if shared else None,
    )


def initialize(group: ProcessGroup, *, heartbeat: int, timeout: float) -> ProcessGroup:
    """Connects to the other processes within `timeout` seconds, before the backend's first use.

    After `heartbeat` seconds, 10 to 30, without a sign of life a process is lost; JAX's own watch is set slower.

    Returns:
      The group as it is: on TPU hosts only JAX, which asks the machine's metadata, knows which process this is.

    Raises:
      InputError: the port is taken, the coordinator cannot be reached, or not all have come in time.
    """
    known: dict[str, Any] = {}
    if group.coordinator:
        _try_socket(group, group.coordinator, timeout=timeout)
        known = {'num_processes': group.count, 'process_id': group.index, 'cluster_detection_method': 'deactivate'}
    try:
        jax.distributed.initialize(
            group.coordinator,
            **known,
            local_device_ids=group.local_devices,
            heartbeat_timeout_seconds=2 * heartbeat,
            shutdown_timeout_seconds=heartbeat,
            initialization_timeout=int(timeout),
        )
    except (jax.errors.JaxRuntimeError, RuntimeError, ValueError) as error:
        raise InputError(
            f'not all {group.count} processes met at {group.coordinator} in {timeout:.0f} s: are all of them started, '
            f'each with its own --process_id? ({get_first_line(error)})'
        ) from error
    return dataclasses.replace(group, index=global_state.process_id, count=global_state.num_processes)


def _try_socket(group: ProcessGroup, coordinator: str, *, timeout: float) -> None:
    """Raises `InputError` where JAX would abort the process: on a port that is taken, or that nobody opens."""
    host, _, port = coordinator.rpartition(':')
    if group.index == 0:
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        try:
            socket.create_server(('', int(port)), family=family, dualstack_ipv6=both).close()
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise InputError(f'process 0 cannot listen on port {port}: {reason}; choose another') from error
        return
    deadline = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise InputError(
                    f'process {group.index} could not reach process 0 at {coordinator} in {timeout:.0f} s '
                    f'({error.strerror or error}): is it started, and is the port open between the hosts?'
                ) from error
            time.sleep(0.2)


def get_store() -> Any:
    """Returns the client of the key-value store; None where this process is alone."""
    return global_state.client


def allgather_str(topic: str, text: str) -> list[str]:
    """Returns the `text` of each process, in their order; all must call it, equally often for a topic.

    No device takes part, so that any thread may call it while the devices compute.
    """
    if jax.process_count() == 1:
        return [text]
    store, own, turn = get_store(), jax.process_index(), _rounds[topic]
    _rounds[topic] += 1
    store.key_value_set(f'alexnet/{topic}/{turn}/{own}', text)
    PROGRESS.advance()
    keys = [f'alexnet/{topic}/{turn}/{index}' for index in range(jax.process_count())]
    texts = [store.blocking_key_value_get(key, _FOREVER) for key in keys]
    if turn:  # all have written this round, so nobody reads the one before any more
        store.key_value_delete(f'alexnet/{topic}/{turn - 1}/{own}')
    return texts


def sync_hosts(topic: str) -> None:
    """Waits until all processes have come to this call; no device takes part."""
    allgather_str(topic, '')


def count_host_processes() -> int:
    """Counts the run's processes on this host, this one included, by the host's name; all must call it."""
    own = socket.gethostname()
    return allgather_str('hostname', own).count(own)


def check_same_on_hosts(what: Mapping[str, str], *, remedy: str) -> None:
    """Checks on every process that all have the same `what`, {name: value or its hash}.

    Raises:
      InputError: on every process, naming the first that differs from process 0, and in what.
    """
    first, *others = map(json.loads, allgather_str('agree', json.dumps(dict(what))))
    for index, other in enumerate(others, start=1):
        names = [name for name in first | other if other.get(name) != first.get(name)]
        if names:
            differing = '; '.join(f'{name} {other.get(name)!r}, not {first.get(name)!r}' for name in names)
            raise InputError(f'process {index} has another {differing} of process 0: {remedy}')


def fetch(tree: Any) -> Any:
    """Returns whole arrays on the host, whoever holds their parts; all processes must call it, between steps."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return jax.tree.map(np.asarray, multihost_utils.process_allgather(tree, tiled=True))


def format_hosts(mesh: jax.sharding.Mesh, group: ProcessGroup, *, heartbeat: int) -> str:
    """Formats a table of hosts, processes, devices and their places in the mesh; all processes must call it."""
    places = {device: index for index, device in np.ndenumerate(mesh.devices)}
    mine = [f'({data},{second})' for device, (data, second) in places.items() if device.process_index == group.index]
    kind = mesh.devices.flat[0].device_kind
    own = [socket.gethostname(), str(os.getpid()), f'{len(mine)} x {kind}', ' '.join(mine)]
    rows = [[str(index), *json.loads(row)] for index, row in enumerate(allgather_str('table', json.dumps(own)))]
    rows.insert(0, ['process', 'host', 'pid', 'devices', f'({", ".join(mesh.axis_names)})'])
    shape = 'x'.join(map(str, mesh.devices.shape))
    title = f'{group.count} processes ({group.found}), mesh {shape}, heartbeat {heartbeat} s'
    return title + '\n' + textwrap.indent(align_columns(rows), '  ')
