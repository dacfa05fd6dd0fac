"""Who a process is: from flags, and from what SLURM, Kubernetes and TPU pods leave in the environment."""

import json
import re
import socket

import jax
import numpy as np
import pytest

from alexnet_jax.distributed import hosts
from alexnet_jax.distributed.exit import ExitHandler
from alexnet_jax.distributed.hosts import (
    ProcessGroup,
    allgather_str,
    check_same_on_hosts,
    count_host_processes,
    fetch,
    find_process_group,
    initialize,
)
from alexnet_jax.errors import InputError
from alexnet_jax.sharding.mesh import local_rows, make_mesh, place_batch, replicate

# As srun sets them for the second of two tasks on two nodes (SLURM 22.05).
SLURM = {
    'SLURM_JOB_ID': '4097',
    'SLURM_STEP_ID': '0',
    'SLURM_PROCID': '1',
    'SLURM_LOCALID': '0',
    'SLURM_STEP_NUM_TASKS': '2',
    'SLURM_STEP_TASKS_PER_NODE': '1(x2)',
    'SLURM_STEP_NODELIST': 'node[007-008]',
}
INDEXED_JOB = {
    'JOB_COMPLETION_INDEX': '2',
    'JAX_NUM_PROCESSES': '4',
    'JAX_COORDINATOR_ADDRESS': 'alexnet-0.alexnet:8476',
}
TPU = {'TPU_WORKER_HOSTNAMES': 'a,b,c,d', 'TPU_WORKER_ID': '3'}


def test_find_process_group_is_alone_where_nothing_says_otherwise():
    assert find_process_group(environment={}) == ProcessGroup()
    assert (
        find_process_group(environment={'SLURM_JOB_ID': '7', 'SLURM_NTASKS': '2'}) == ProcessGroup()
    )  # salloc, no job step
    assert find_process_group(environment={'TPU_WORKER_HOSTNAMES': 'localhost', 'TPU_WORKER_ID': '0'}) == ProcessGroup()


def test_find_process_group_takes_flags():
    found = find_process_group(coordinator='host:1', processes=3, process_id=2, environment={})
    assert found == ProcessGroup(index=2, count=3, coordinator='host:1', found='flags')


def test_find_process_group_takes_slurm_s_variables():
    assert find_process_group(environment=SLURM) == ProcessGroup(
        index=1, count=2, coordinator='node007:61441', found='SLURM'
    )


@pytest.mark.parametrize(
    ('nodes', 'first'),
    [
        ('node1', 'node1'),
        ('node1,node2', 'node1'),
        ('node[001-004,7],other', 'node001'),
        ('gpu[12,15]', 'gpu12'),
        ('a-b-c3', 'a-b-c3'),
    ],
)
def test_find_process_group_takes_slurm_s_first_node_as_coordinator(nodes, first):
    assert find_process_group(environment=SLURM | {'SLURM_STEP_NODELIST': nodes}).coordinator == f'{first}:61441'


def test_find_process_group_gives_tasks_that_share_a_node_a_device_each():
    shared = SLURM | {'SLURM_STEP_TASKS_PER_NODE': '2', 'SLURM_LOCALID': '1', 'SLURM_STEP_NODELIST': 'node1'}
    assert find_process_group(environment=shared).local_devices == (1,)


def test_find_process_group_takes_an_indexed_job_of_kubernetes():
    expected = ProcessGroup(index=2, count=4, coordinator='alexnet-0.alexnet:8476', found='Kubernetes')
    assert find_process_group(environment=INDEXED_JOB) == expected
    assert find_process_group('kubernetes', environment=INDEXED_JOB) == expected


def test_find_process_group_takes_a_tpu_pod_s_workers():
    assert find_process_group(environment=TPU) == ProcessGroup(index=3, count=4, found='TPU')


def test_find_process_group_lets_flags_override_and_none_takes_only_them():
    assert find_process_group(process_id=0, environment=SLURM).index == 0
    assert find_process_group(coordinator='other:2', environment=SLURM).coordinator == 'other:2'
    assert find_process_group('none', environment=SLURM | TPU) == ProcessGroup()


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        ({'processes': 2, 'process_id': 0}, 'give --coordinator=HOST:PORT'),
        ({'processes': 2, 'process_id': 0, 'coordinator': 'host'}, "they meet is 'host'"),
        ({'processes': 2, 'coordinator': 'host:1'}, 'give --process_id'),
        ({'processes': 2, 'process_id': 2, 'coordinator': 'host:1'}, 'process 2 of 2 .flags.: --process_id counts'),
        ({'coordinator': 'host:1', 'process_id': 0}, 'not how many processes there are: give --processes'),
        ({'process_id': 1}, 'not how many processes there are: give --processes'),
        ({'cluster': 'slurm'}, 'SLURM_JOB_ID, SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_STEP_NODELIST not set'),
        ({'cluster': 'kubernetes'}, 'JOB_COMPLETION_INDEX is not set'),
        ({'environment': {'JAX_NUM_PROCESSES': 'two', 'JAX_PROCESS_ID': '0'}}, "JAX_NUM_PROCESSES is 'two': it must"),
        ({'cluster': 'mesos'}, '--cluster=mesos is unknown: it must be one of auto, slurm, kubernetes, tpu, none'),
    ],
)
def test_find_process_group_refuses_what_is_not_enough(arguments, says):
    with pytest.raises(InputError, match=says):
        find_process_group(**{'environment': {}, **arguments})


def test_hosts_alone_agree_and_connect_to_nobody():
    assert allgather_str('topic', 'word') == ['word']
    check_same_on_hosts({'seed': '1'}, remedy='')
    assert ExitHandler().connect(ProcessGroup(), heartbeat=10, timeout=1, stuck_after=60) == ProcessGroup()
    values = replicate(make_mesh(2, 2), {'a': np.arange(6).reshape(2, 3)})
    np.testing.assert_array_equal(fetch(values)['a'], np.arange(6).reshape(2, 3))


def test_check_same_on_hosts_names_the_first_that_differs_and_in_what(monkeypatch):
    other = {'seed': '2', 'mesh': '1,2', 'dtype': 'bfloat16'}
    monkeypatch.setattr(hosts, 'allgather_str', lambda topic, text: [text, text, json.dumps(other), '{}'])
    expected = "process 2 has another seed '2', not '1'; dtype 'bfloat16', not None of process 0: start all alike"
    with pytest.raises(InputError, match=f'^{re.escape(expected)}$'):
        check_same_on_hosts({'seed': '1', 'mesh': '1,2'}, remedy='start all alike')


def test_count_host_processes_counts_those_of_this_host_s_name(monkeypatch):
    assert count_host_processes() == 1
    monkeypatch.setattr(hosts, 'allgather_str', lambda topic, text: ['node1', text, f'{text}.example', text, 'node1'])
    assert count_host_processes() == 2


def test_initialize_says_that_the_port_is_taken():
    with socket.socket() as taken:
        taken.bind(('', 0))
        taken.listen()
        port = taken.getsockname()[1]
        group = ProcessGroup(index=0, count=2, coordinator=f'127.0.0.1:{port}')
        with pytest.raises(InputError, match=f'^process 0 cannot listen on port {port}: Address already in use'):
            initialize(group, heartbeat=10, timeout=5)


def test_initialize_says_that_nobody_listens_where_processes_meet():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{probe.getsockname()[1]}'
    with pytest.raises(InputError, match=f'^process 1 could not reach process 0 at {address} in 0 s'):
        initialize(ProcessGroup(index=1, count=2, coordinator=address), heartbeat=10, timeout=0)


def test_place_batch_of_one_process_puts_all_rows_where_they_belong():
    mesh = make_mesh(4, 2)
    assert local_rows(mesh, 8) == range(8)
    placed = place_batch(mesh, np.arange(8))
    assert {shard.index[0].start: shard.data.tolist() for shard in placed.addressable_shards} == {
        0: [0, 1], 2: [2, 3], 4: [4, 5], 6: [6, 7],
    }  # fmt: skip
    assert len(jax.devices()) == 8
