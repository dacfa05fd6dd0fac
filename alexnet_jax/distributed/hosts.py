"""Several processes that are one run: who they are, how they find one another, and what they tell each other by name.

None of this happens inside a training step, where devices talk and only `exchange.py` speaks. Here hosts exchange a
few words before and between steps, through the key-value store that `jax.distributed` keeps in process 0.
"""

from __future__ import annotations

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
from jax.experimental import multihost_utils

from alexnet_jax.console import align_columns
from alexnet_jax.errors import InputError

HEARTBEAT = range(10, 31)  # seconds without a sign of life after which a process counts as lost
CLUSTERS = ('auto', 'slurm', 'kubernetes', 'tpu', 'none')
_FOREVER = 7 * 24 * 3600 * 1000  # milliseconds: that a peer is gone is found by distributed.watchdog, not by a timeout


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessGroup:
    """The processes of one run, and which of them this is.

    Attributes:
      index, count: this process and how many there are.
      coordinator: HOST:PORT, where process 0 listens; None to let JAX ask the TPU's metadata.
      found: where this was read, for people.
      local_devices: which of the host's GPUs are this process's; None: all.
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
    """The group of this process, from flags where they are given and else from what a scheduler left behind.

    Args:
      cluster: one of CLUSTERS; 'auto' takes the first that left its variables, 'none' only the flags.
      coordinator, processes, process_id: the flags; each overrides what the environment says.
      environment: the variables. JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID are read like the flags;
        of SLURM those of a job step; of Kubernetes an indexed Job's JOB_COMPLETION_INDEX, beside the first two.

    Raises:
      InputError: what is given is not enough, or contradicts itself.
    """
    if cluster not in CLUSTERS:
        raise InputError(f'--cluster={cluster} is unknown: it must be one of {", ".join(CLUSTERS)}')
    given = ProcessGroup()
    if cluster == 'slurm' or (cluster == 'auto' and _in_slurm(environment)):
        given = _read_slurm(environment)
    elif cluster == 'tpu' or (cluster == 'auto' and ',' in environment.get('TPU_WORKER_HOSTNAMES', '')):
        hosts = environment.get('TPU_WORKER_HOSTNAMES', '').split(',')
        given = ProcessGroup(index=_number(environment, 'TPU_WORKER_ID', 0), count=max(2, len(hosts)), found='TPU')
    elif cluster != 'none':
        name = 'JAX_PROCESS_ID' if 'JAX_PROCESS_ID' in environment else 'JOB_COMPLETION_INDEX'
        if cluster == 'kubernetes' and 'JOB_COMPLETION_INDEX' not in environment:
            raise InputError('--cluster=kubernetes, but JOB_COMPLETION_INDEX is not set: it must be an indexed Job')
        if 'JAX_NUM_PROCESSES' in environment and name in environment:
            given = ProcessGroup(
                index=_number(environment, name),
                count=_number(environment, 'JAX_NUM_PROCESSES'),
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


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, str(default))
    if not text.isdecimal():
        raise InputError(f'the environment variable {name} is {text!r}: it must be a whole number')
    return int(text)


def _in_slurm(environment: Mapping[str, str]) -> bool:
    """Whether this is one of several tasks of a job step: in an interactive allocation there is no SLURM_STEP_ID."""
    return 'SLURM_STEP_ID' in environment and _number(environment, 'SLURM_STEP_NUM_TASKS', 1) > 1


def _read_slurm(environment: Mapping[str, str]) -> ProcessGroup:
    missing = [
        name
        for name in ('SLURM_JOB_ID', 'SLURM_PROCID', 'SLURM_STEP_NUM_TASKS', 'SLURM_STEP_NODELIST')
        if name not in environment
    ]
    if missing:
        raise InputError(f'--cluster=slurm, but {", ".join(missing)} not set: start it with srun')
    # The first of 'node1', 'node1,node2', 'node[001-004,7],other'.
    name, bracket, rest = re.match(r'([^,\[]+)(\[?)(\w*)', environment['SLURM_STEP_NODELIST']).groups()  # type: ignore[union-attr]
    # High ports, another one for every job: several jobs may share a node.
    port = 61440 + _number(environment, 'SLURM_JOB_ID') % 4096
    tasks = environment.get('SLURM_STEP_TASKS_PER_NODE', '1')
    shared = int(re.match(r'\d+', tasks)[0]) > 1  # type: ignore[index]
    return ProcessGroup(
        index=_number(environment, 'SLURM_PROCID'),
        count=_number(environment, 'SLURM_STEP_NUM_TASKS'),
        coordinator=f'{name}{rest if bracket else ""}:{port}',
        found='SLURM',
        local_devices=(_number(environment, 'SLURM_LOCALID', 0),) if shared else None,
    )


def initialize(group: ProcessGroup, *, heartbeat: int, timeout: float) -> ProcessGroup:
    """Meets the other processes; before the backend's first use. Does nothing alone.

    Args:
      group: from `find_process_group`.
      heartbeat: seconds, in HEARTBEAT. JAX's own watch is set slower: it ends a process with pages of C++.
      timeout: seconds to wait for the others.

    Returns:
      The group as it is: on TPU hosts only JAX, which asks the machine's metadata, knows who is who.

    Raises:
      InputError: the port is taken, the coordinator cannot be reached, or not all have come in time.
    """
    if group.count == 1:
        return group
    if group.coordinator:
        _try_socket(group, timeout=timeout)
    try:
        jax.distributed.initialize(
            group.coordinator,
            num_processes=group.count if group.coordinator else None,
            process_id=group.index if group.coordinator else None,
            local_device_ids=group.local_devices,
            cluster_detection_method='deactivate' if group.coordinator else None,
            heartbeat_timeout_seconds=2 * heartbeat,
            shutdown_timeout_seconds=heartbeat,
            initialization_timeout=int(timeout),
        )
    except (jax.errors.JaxRuntimeError, RuntimeError, ValueError) as error:
        raise InputError(
            f'not all {group.count} processes met at {group.coordinator} in {timeout:.0f} s: are all of them started, '
            f'each with its own --process_id? ({_first_line(error)})'
        ) from error
    state = _state()
    return dataclasses.replace(group, index=state.process_id, count=state.num_processes)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [repr(error)])[0][:200]


def _try_socket(group: ProcessGroup, *, timeout: float) -> None:
    """Fails with a clear line where JAX would abort the process: on a port that is taken, or that nobody opens."""
    host, _, port = group.coordinator.rpartition(':')  # type: ignore[union-attr]
    if group.index == 0:
        both = socket.has_dualstack_ipv6()
        try:
            socket.create_server(
                ('', int(port)), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both
            ).close()
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
                    f'process {group.index} could not reach process 0 at {group.coordinator} in {timeout:.0f} s '
                    f'({error.strerror or error}): is it started, and is the port open between the hosts?'
                ) from error
            time.sleep(0.2)


def get_store() -> Any:
    """The client of the key-value store; None where this process is alone."""
    return _state().client


def _state() -> Any:
    from jax._src import distributed  # no public name leads to it; Orbax takes it from here as well

    return distributed.global_state


_rounds: collections.Counter[str] = collections.Counter()


def allgather_str(topic: str, word: str) -> list[str]:
    """What each process says on `topic`, in their order; all must call it, equally often for a topic.

    No device takes part, so that any thread may call it while the devices compute.
    """
    if jax.process_count() == 1:
        return [word]
    store, own = get_store(), jax.process_index()
    turn = _rounds[topic]
    _rounds[topic] += 1
    store.key_value_set(f'alexnet/{topic}/{turn}/{own}', word)
    words = [
        store.blocking_key_value_get(f'alexnet/{topic}/{turn}/{index}', _FOREVER)
        for index in range(jax.process_count())
    ]
    if turn:  # all have spoken now, so nobody reads the round before any more
        store.key_value_delete(f'alexnet/{topic}/{turn - 1}/{own}')
    return words


def sync_hosts(topic: str) -> None:
    """Waits until all processes have come to this call; no device takes part."""
    allgather_str(topic, '')


def check_same_on_hosts(what: Mapping[str, str], *, remedy: str) -> None:
    """Proves to every process that all have the same: `what` is {name: value or its hash}.

    Raises:
      InputError: on every process, naming the first that differs from process 0, and in what.
    """
    words = [json.loads(word) for word in allgather_str('agree', json.dumps(dict(what)))]
    for index, word in enumerate(words):
        other = [
            f'{name} {word.get(name)!r}, not {words[0].get(name)!r}'
            for name in words[0] | word
            if word.get(name) != words[0].get(name)
        ]
        if other:
            raise InputError(f'process {index} has another {"; ".join(other)} of process 0: {remedy}')


def fetch(tree: Any) -> Any:
    """Whole arrays on the host, whoever holds their parts; all processes must call it, outside of training steps."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return jax.tree.map(np.asarray, multihost_utils.process_allgather(tree, tiled=True))


def format_hosts(mesh: jax.sharding.Mesh, group: ProcessGroup, *, heartbeat: int) -> str:
    """Hosts, processes, devices and which part of the mesh each has; all processes must call it."""
    places = {device: index for index, device in np.ndenumerate(mesh.devices)}
    mine = [f'({data},{second})' for device, (data, second) in places.items() if device.process_index == group.index]
    kind = mesh.devices.flat[0].device_kind
    own = [socket.gethostname(), str(os.getpid()), f'{len(mine)} x {kind}', ' '.join(mine)]
    rows = [[str(index), *json.loads(word)] for index, word in enumerate(allgather_str('table', json.dumps(own)))]
    rows.insert(0, ['process', 'host', 'pid', 'devices', f'({", ".join(mesh.axis_names)})'])
    shape = 'x'.join(map(str, mesh.devices.shape))
    title = f'{group.count} processes ({group.found}), mesh {shape}, heartbeat {heartbeat} s'
    return title + '\n' + textwrap.indent(align_columns(rows), '  ')
