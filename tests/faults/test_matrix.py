"""The fault matrix: real faults against real processes, each compared with the run that nothing disturbed.

`make faults` runs all and writes the table of docs/reliability.md; `make test` runs those marked fast.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable

import pytest
from faults.laboratory import ALL, free_port, outcome

HEARTBEAT, GRACE = 10, 5  # seconds: of main's default, and what a process may take besides


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    inflict: Callable  # (lab) -> (what the user sees, seconds to exit, what became of the state)
    fast: bool = False
    group: str | None = None


ROWS = []


def row(name, *, fast=False, group=None, **arguments):
    """The decorated function as a row of the matrix; with `arguments`, called with them."""

    def add(function):
        ROWS.append(Row(name.format(**arguments), lambda lab: function(lab, **arguments), fast, group))
        return function

    return add


def pytest_generate_tests(metafunc):
    rows = [row for row in ROWS if ALL or row.fast]
    # Rows that compare with each other stay in one process: --dist loadgroup.
    marks = [[pytest.mark.xdist_group(row.group)] if row.group else [] for row in rows]
    metafunc.parametrize(
        'row_',
        [pytest.param(row, marks=mark, id=row.name.replace(' ', '_')) for row, mark in zip(rows, marks, strict=True)],
    )


def test_fault(row_, lab, record_property):
    sees, seconds, state = row_.inflict(lab)
    assert state.startswith(('equal', 'refused')), state
    record_property('row', (ROWS.index(row_), row_.name, sees, seconds, state))


# Two processes, one of which is lost


@row('two processes, kill -9 of the worker at the start', victim=1, moment='start')
@row('two processes, kill -9 of the coordinator at the start', victim=0, moment='start')
@row('two processes, kill -9 of the worker in the first compile', victim=1, moment='compile')
@row('two processes, kill -9 of the coordinator in the first compile', victim=0, moment='compile')
@row('two processes, kill -9 of the worker in step 10', victim=1, moment='step', at=10, fast=True)
@row('two processes, kill -9 of the coordinator in step 10', victim=0, moment='step', at=10)
@row('two processes, kill -9 of the worker while checkpoint 12 is written', victim=1, moment='save', at=12)
@row('two processes, kill -9 of the coordinator while checkpoint 12 is written', victim=0, moment='save', at=12)
@row('two processes, kill -9 of the worker in the test after step 12', victim=1, moment='evaluation', at=12)
@row('two processes, kill -9 of the coordinator in the test after step 12', victim=0, moment='evaluation', at=12)
@row('two processes, SIGSTOP of the worker in step 10', victim=1, moment='step', at=10, do='SIGSTOP')
@row('two processes, SIGSTOP of the coordinator in step 10', victim=0, moment='step', at=10, do='SIGSTOP')
def lost(lab, *, victim, moment, at=0, do='SIGKILL'):
    if moment == 'compile':
        lab.cache = lab.folder / 'cache'  # nothing is compiled yet
    faults = [None, None]
    faults[victim] = {'moment': moment, 'at': at, 'do': do}
    processes = lab.pair(faults=faults)
    lab.wait_for_fault()
    ended = lab.end(processes[1 - victim])
    assert ended.code == 75, (ended.code, lab.everything())
    assert ended.seconds <= HEARTBEAT + GRACE, ended.seconds
    line = ended.line('error: lost process', str(victim))
    assert [text for text in ended.err.splitlines() if text.startswith('error')] == [line]
    processes[victim].kill()
    assert processes[victim].wait() == -signal.SIGKILL
    lab.resume()
    return line, ended.seconds, 'equal'


@row('two processes, the worker has no memory left in step 10')
def out_of_memory(lab):
    processes = lab.pair(faults=(None, {'moment': 'step', 'at': 10, 'do': 'MemoryError'}))
    lab.wait_for_fault()
    worker, coordinator = lab.end(processes[1]), lab.end(processes[0])
    assert worker.code == 1
    assert worker.err.rstrip().splitlines()[-1] == 'MemoryError: Unable to allocate 64.0 GiB for an array'
    assert coordinator.code == 1
    assert coordinator.seconds <= HEARTBEAT + GRACE
    line = coordinator.line('error: process 1', 'has failed', 'Unable to allocate')
    lab.resume()
    return line, coordinator.seconds, 'equal'


@row('two processes, the run folder holds another run, which only the coordinator sees', fast=True)
def foreign_folder(lab):
    shutil.copytree(lab.undisturbed, lab.workdir)
    both = [lab.end(process) for process in lab.pair('--config.seed=9')]
    assert [ended.code for ended in both] == [1, 1], lab.everything()
    both[0].line('error: ', 'holds another run')
    return both[1].line('error: process 0', 'has failed', 'holds another run'), None, 'refused'


@row('two processes, kill -9 of the worker, started again as one by the launcher', counts='2,1')
@row('two processes, kill -9 of the coordinator, started again as two by the launcher', counts='2', victim=0)
def restarted(lab, *, counts, victim=1):
    fault = {'moment': 'step', 'at': 10, 'do': 'SIGKILL'}
    ended = lab.end(lab.launch(f'--processes={counts}', '--restarts=1', fault=fault, victim=victim), timeout=150)
    assert ended.code == 0, ended.err
    line = ended.line('alexnet launch: a process was lost; starting')
    lab.compare()
    return line, None, 'equal'


@row('two processes, kill -9 of the {who}, a new one at once, as Kubernetes makes it', who='worker', victim=1)
@row('two processes, kill -9 of the {who}, a new one at once, as Kubernetes makes it', who='coordinator', victim=0)
def replaced(lab, *, who, victim):
    del who
    port, fault = free_port(), {'moment': 'step', 'at': 10, 'do': 'SIGKILL'}
    first = [lab.start(index=index, port=port, fault=fault if index == victim else None) for index in range(2)]
    lab.wait_for_fault()
    assert first[victim].wait() == -signal.SIGKILL
    new = lab.start(index=victim, port=port)  # before the other has noticed, or left
    ended = lab.end(first[1 - victim])
    assert ended.code == 75, lab.everything()
    line = ended.line('error: lost process', str(victim))
    other = lab.start(index=1 - victim, port=port)
    assert [lab.end(process).code for process in (new, other)] == [0, 0], lab.everything()
    lab.compare()
    return line, ended.seconds, 'equal'


# Told to stop


@row('SIGTERM in step 10', moment='step', do='SIGTERM', fast=True)
@row('SIGINT in step 10', moment='step', do='SIGINT')
@row('SIGTERM in the test after step 12', moment='evaluation', at=12, do='SIGTERM')
@row('SIGTERM in the test after the last step', moment='evaluation', at=24, do='SIGTERM')
@row('SIGTERM while checkpoint 12 is written', moment='save', at=12, do='SIGTERM')
def told_to_stop(lab, *, moment, do, at=10):
    process = lab.start(fault={'moment': moment, 'at': at, 'do': do})
    lab.wait_for_fault()
    ended = lab.end(process)
    assert ended.code == 76, lab.everything()
    assert ended.seconds <= GRACE
    line = ended.line('interrupted: ', 'the same command goes on')
    lab.resume()
    return line, ended.seconds, 'equal'


@row('SIGTERM while the first step is compiled')
def told_to_stop_compiling(lab):
    lab.cache = lab.folder / 'cache'
    process = lab.start(fault={'moment': 'compile', 'do': 'SIGTERM'})
    lab.wait_for_fault()
    ended = lab.end(process)
    assert ended.code == 76
    assert ended.seconds <= GRACE
    line = ended.line('interrupted by SIGTERM', 'nothing new to save')
    lab.resume()
    return line, ended.seconds, 'equal'


@row('SIGTERM of the coordinator while it waits for the worker', fast=True)
def told_to_stop_waiting(lab):
    port = free_port()
    process = lab.start(index=0, port=port)
    while process.poll() is None:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(('127.0.0.1', port)):
            break
        time.sleep(0.1)
    told = time.time()
    process.terminate()
    ended = lab.end(process)
    assert ended.code == 76, lab.everything()
    assert time.time() - told <= GRACE
    return ended.line('interrupted by SIGTERM', 'nothing new to save'), time.time() - told, 'equal'


@row('SIGTERM twice in step 10')
def told_twice(lab):
    process = lab.start(fault={'moment': 'step', 'at': 10, 'do': 'SIGTERM+SIGTERM'})
    lab.wait_for_fault()
    ended = lab.end(process)
    assert ended.code == 128 + signal.SIGTERM
    assert ended.seconds <= GRACE
    line = ended.line('SIGTERM again: left at once')
    lab.resume()
    return line, ended.seconds, 'equal'


@row('two processes, SIGTERM of the worker in step 10', victim=1, do='SIGTERM')
@row('two processes, SIGINT of the coordinator in the test after step 12', victim=0, moment='evaluation', at=12)
def pair_told_to_stop(lab, *, victim, moment='step', at=10, do='SIGINT'):
    faults = [None, None]
    faults[victim] = {'moment': moment, 'at': at, 'do': do}
    processes = lab.pair(faults=faults)
    lab.wait_for_fault()
    both = [lab.end(process) for process in processes]
    assert [ended.code for ended in both] == [76, 76], lab.everything()
    lines = {ended.line('interrupted: saved step') for ended in both}
    assert len(lines) == 1, lines  # the same step
    seconds = max(ended.seconds for ended in both)
    assert seconds <= HEARTBEAT
    lab.resume()
    return lines.pop(), seconds, 'equal'


@row('two processes under the launcher, SIGTERM of the launcher in step 10')
def launcher_told_to_stop(lab):
    fault = {'moment': 'step', 'at': 10, 'do': 'sleep3'}
    launcher = lab.launch('--processes=2', '--restarts=1', fault=fault, victim=1)
    lab.wait_for_fault()
    launcher.send_signal(signal.SIGTERM)
    ended = lab.end(launcher)
    assert ended.code == 76, ended.err
    lines = {line for line in ended.err.splitlines() if line.startswith('interrupted: saved step')}
    assert len(lines) == 1, ended.err
    lab.resume()
    return lines.pop(), ended.seconds, 'equal'


# Time


@row('kill -9 in step 10', moment='step', at=10)
@row('kill -9 while checkpoint 12 is written', moment='save', at=12)
@row('kill -9 in the test after step 16, where the rate drops', moment='evaluation', at=16)
def killed(lab, *, moment, at):
    process = lab.start(fault={'moment': moment, 'at': at, 'do': 'SIGKILL'})
    lab.wait_for_fault()
    assert lab.end(process).code == -signal.SIGKILL
    again = lab.resume()
    return again.line('resuming from step'), None, 'equal'


@row('the clock jumps back by a day in step 10')
def clock(lab):
    ended = lab.run(fault={'moment': 'step', 'at': 10, 'do': 'clock'})
    assert ended.code == 0, ended.err
    lab.compare()
    return ended.line('step 24/24', 'ten-view'), None, 'equal'


@row('a step takes 15 s')
def slow(lab):
    ended = lab.run(fault={'moment': 'step', 'at': 11, 'do': 'sleep15'})
    assert ended.code == 0, ended.err
    lab.compare()
    return ended.line('warning: step', 'has taken'), None, 'equal'


# Checkpoints


@row('one bit of the arrays of checkpoint 24 flips', fast=True, pattern='state/d/*')
@row('one bit of the arrays of checkpoint 24, as one process wrote them, flips', pattern='state/ocdbt.process_0/d/*')
@row('one bit of the index of checkpoint 24 flips', pattern='state/manifest.ocdbt')
@row('one bit of the description of checkpoint 24 flips', pattern='state/_METADATA')
@row('one bit of the sharding file of checkpoint 24 flips', pattern='state/_sharding')
@row('one bit of the types file of checkpoint 24 flips', pattern='state/array_metadatas/*')
@row('one bit of the seal of checkpoint 24 flips', pattern='hashes/metadata')
@row('one bit of the step metadata of checkpoint 24 flips', pattern='_CHECKPOINT_METADATA')
def flipped(lab, *, pattern):
    path = damage(lab, pattern)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    return gone_on(lab)


@row('the arrays of checkpoint 24 are cut to half', pattern='state/d/*', fast=True)
@row('the seal of checkpoint 24 is cut to half', pattern='hashes/metadata')
def truncated(lab, *, pattern):
    path = damage(lab, pattern)
    os.truncate(path, path.stat().st_size // 2)
    return gone_on(lab)


@row('the arrays of checkpoint 24 are deleted', pattern='state/d/*')
@row('the seal of checkpoint 24 is deleted', pattern='hashes/metadata')
def deleted(lab, *, pattern):
    damage(lab, pattern).unlink()
    return gone_on(lab)


@row('the folder of checkpoint 24 is empty')
def emptied(lab):
    step = damage(lab, 'state').parent
    shutil.rmtree(step)
    step.mkdir()
    return gone_on(lab)


def damage(lab, pattern):
    """The largest file of that name in the last checkpoint of a copy of the undisturbed run, which is not finished."""
    shutil.copytree(lab.undisturbed, lab.workdir)
    (lab.workdir / 'result.json').unlink()
    (lab.workdir / 'checkpoints/24').exists()
    return max((lab.workdir / 'checkpoints/24').glob(pattern), key=lambda path: path.stat().st_size)


def gone_on(lab):
    """Resumes; what a flip did not change, the arrays and the seal being whole, may be used."""
    ended = lab.resume()
    if not (lab.workdir / 'damaged_checkpoints').exists():
        return 'nothing: no array is read from it', None, 'equal'
    return ended.line('warning: checkpoint 24 is damaged', 'goes on from step'), None, 'equal'


# The disk


@row('the disk is full before checkpoint 12')
def disk_full(lab):
    with lab.small_disk(megabytes=80) as disk:
        process = lab.start(fault={'moment': 'step', 'at': 10, 'do': 'sleep5'})
        lab.wait_for_fault()
        lab.wait_for_checkpoint(9)
        fill_up(disk / 'filler')
        ended = lab.end(process)
        assert ended.code == 1, ended.err
        line = ended.line('error: ')
        kept = sorted(int(path.name) for path in (lab.workdir / 'checkpoints').iterdir() if path.name.isdigit())
        assert kept == [3, 4, 6, 8, 9]
        (disk / 'filler').unlink()
        lab.resume()
    return line, None, 'equal'


@row('the disk is full before checkpoint 12 and has room again later, on_failed_save=continue')
def disk_full_for_a_while(lab):
    with lab.small_disk(megabytes=80) as disk:
        fault = {'moment': 'step', 'at': [10, 14], 'do': 'sleep8'}
        process = lab.start('--config.on_failed_save=continue', fault=fault)
        lab.wait_for_fault()
        lab.wait_for_checkpoint(9)
        fill_up(disk / 'filler')
        deadline = time.monotonic() + 60
        while 'WARNING: checkpoint' not in lab.everything() and time.monotonic() < deadline:
            time.sleep(0.05)
        (disk / 'filler').unlink()
        ended = lab.end(process)
        assert ended.code == 0, ended.err
        lab.compare()
        line = ended.line('WARNING: checkpoint not written', 'what is safe is step 9')
    return line, None, 'equal'


LOG_SOON = ('--config.checkpoint_every=8', '--config.log_every=1')  # its next page is wanted before checkpoint 16


@row('the disk is full for the log after step 10')
def disk_full_for_the_log(lab):
    with lab.small_disk(megabytes=80) as disk:
        process = lab.start(*LOG_SOON, fault={'moment': 'step', 'at': 10, 'do': 'sleep5'})
        lab.wait_for_fault()
        lab.wait_for_checkpoint(8)
        fill_up(disk / 'filler')
        ended = lab.end(process)
        assert ended.code == 1, ended.err
        line = ended.line('error: ')
        (disk / 'filler').unlink()
        assert sorted(path.name for path in (lab.workdir / 'checkpoints').iterdir()) == ['4', '8']
        lab.resume(*LOG_SOON)
    return line, None, 'equal'


@row('the disk is full for the log after step 10 and has room again later, on_failed_save=continue')
def disk_full_for_the_log_for_a_while(lab):
    with lab.small_disk(megabytes=80) as disk:
        options = (*LOG_SOON, '--config.on_failed_save=continue')
        process = lab.start(*options, fault={'moment': 'step', 'at': [10, 15], 'do': 'sleep5'})
        lab.wait_for_fault()
        lab.wait_for_checkpoint(8)
        fill_up(disk / 'filler')
        deadline = time.monotonic() + 60
        while 'WARNING: ' not in lab.everything() and time.monotonic() < deadline:
            time.sleep(0.05)
        (disk / 'filler').unlink()
        ended = lab.end(process)
        assert ended.code == 0, ended.err
        lab.compare()
        steps = [json.loads(line)['step'] for line in (lab.workdir / 'metrics.jsonl').read_text().splitlines()]
        assert set(steps) == set(range(1, 25))  # what the disk did not take at first is there too
        line = ended.line('WARNING: ')
    return line, None, 'equal'


@row('the disk of the run folder is read-only')
def read_only(lab):
    with lab.small_disk(megabytes=80) as disk:
        subprocess.run(['mount', '-o', 'remount,ro', str(disk)], check=True)
        ended = lab.run()
        assert ended.code == 1
        line = ended.line('error: cannot write to', 'choose another --workdir')
        subprocess.run(['mount', '-o', 'remount,rw', str(disk)], check=True)
        lab.resume()
    return line, None, 'refused'


def fill_up(path):
    with path.open('wb', buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(2**12))


# The data


@row('a shard is deleted in step 10')
def shard_deleted(lab):
    lab.own_data()
    process = lab.start(fault={'moment': 'step', 'at': 10, 'do': 'sleep5'})
    lab.wait_for_fault()
    shard = lab.shard()
    aside = shard.rename(lab.folder / 'shard')
    ended = lab.end(process)
    if ended.code == 0:  # the system keeps an open file
        lab.compare()
        return 'nothing: the open file stays readable', None, 'equal'
    aside.rename(shard)
    lab.resume()
    return ended.line('error: '), ended.seconds, 'equal'


@row('one bit of a shard flips in step 10')
def shard_flipped_in_training(lab):
    lab.own_data()
    process = lab.start(fault={'moment': 'step', 'at': 10, 'do': 'sleep5'})
    lab.wait_for_fault()
    shard = lab.shard()
    whole = shard.read_bytes()
    with shard.open('r+b') as file:  # in place: the run has this file open
        file.seek(len(whole) // 2)
        file.write(bytes([whole[len(whole) // 2] ^ 4]))
    ended = lab.end(process)
    assert ended.code == 1, lab.everything()
    line = ended.line('error: dataset tiny', 'cannot be read')
    shard.write_bytes(whole)
    lab.resume()
    return line, ended.seconds, 'equal'


@row('one bit of a shard flips before the start', fast=True)
def shard_flipped(lab):
    lab.own_data()
    shard = lab.shard()
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 4
    shard.write_bytes(data)
    ended = lab.run()
    assert ended.code == 1, ended.err
    return ended.line('error: '), None, 'refused'


@row('a shard is missing at the start')
def shard_missing(lab):
    lab.own_data()
    lab.shard().unlink()
    ended = lab.run()
    assert ended.code == 1
    return ended.line('error: ', 'prepare it again'), None, 'refused'


@row('a JPEG of the training split is no JPEG')
def corrupt_jpeg(lab):
    lab.own_data()
    lab.spoil_jpeg()
    ended = lab.run()
    assert ended.code == 1, ended.err
    return ended.line('error: record ', 'is no image that can be decoded'), None, 'refused'


@row('kill -9 while a dataset is prepared')
def killed_preparing(lab):
    images = lab.folder_of_images()
    expected = lab.prepare(images, into='straight')
    process = lab.start_preparing(images, into='killed')
    partial = lab.folder / 'killed/.photos.partial'
    while not list(partial.glob('**/*array_record*')) and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (lab.folder / 'killed/photos').exists()
    assert lab.prepare(images, into='killed') == expected
    return 'nothing: the same command goes on', None, 'equal'


@row('the disk is full while a dataset is prepared')
def disk_full_preparing(lab):
    images = lab.folder_of_images()
    expected = lab.prepare(images, into='straight')
    with lab.small_disk(megabytes=3) as disk:
        ended = lab.end(lab.start_preparing(images, into=disk))
        assert ended.code == 1, ended.err
        line = ended.line('error: ')
        assert not (disk / 'photos').exists()
        subprocess.run(['mount', '-o', 'remount,size=80m', str(disk)], check=True)
        assert lab.prepare(images, into=disk) == expected
    return line, ended.seconds or None, 'equal'


# Several hosts that are not alike


@row('two processes, the worker has another setting', option='--config.learning_rate=0.02', fast=True)
@row('two processes, the worker has another seed', option='--config.seed=1')
def unlike(lab, *, option):
    port = free_port()
    slow = {'moment': 'agree', 'do': 'sleep2'}  # process 0 knows first, and must not be gone before the other does
    processes = [lab.start(index=0, port=port), lab.start(option, index=1, port=port, fault=slow)]
    both = [lab.end(process) for process in processes]
    assert [ended.code for ended in both] == [1, 1]
    line = both[1].line('error: process 1 has another', option.split('.')[1].split('=')[0])
    lab.resume()
    return line, None, 'refused'


@row('two processes, the worker has another dataset of the same name')
def other_dataset(lab):
    port = free_port()
    other = lab.other_data()
    processes = [lab.start(index=0, port=port), lab.start(f'--config.data_dir={other}', index=1, port=port)]
    both = [lab.end(process) for process in processes]
    assert [ended.code for ended in both] == [1, 1] or both[1].code == 1
    line = both[1].line('error: process 1 has another dataset')
    return line, None, 'refused'


@row('two processes, the worker has another version of the code')
def other_code(lab):
    port = free_port()
    processes = [lab.start(index=0, port=port), lab.start(index=1, port=port, root=lab.other_code())]
    both = [lab.end(process) for process in processes]
    assert both[1].code == 1
    line = both[1].line('error: process 1 has another code')
    return line, None, 'refused'


@row('two processes, the worker has another run folder')
def other_folder(lab):
    port = free_port()
    processes = [lab.start(index=0, port=port), lab.start(f'--workdir={lab.folder}/other', index=1, port=port)]
    both = [lab.end(process) for process in processes]
    assert both[1].code == 1
    line = both[1].line('error: process 1 does not see the run folder of process 0')
    return line, None, 'refused'


@row('the coordinator cannot be reached')
def unreachable(lab):
    began = time.time()
    ended = lab.run('--join_timeout=3', index=1, port=free_port())
    assert ended.code == 1
    return ended.line('error: process 1 could not reach process 0'), time.time() - began, 'refused'


@row('the port is taken', fast=True)
def port_taken(lab):
    with socket.socket() as taken:
        taken.bind(('', 0))
        taken.listen()
        began = time.time()
        ended = lab.run(index=0, port=taken.getsockname()[1])
    assert ended.code == 1
    return ended.line('error: process 0 cannot listen on port'), time.time() - began, 'refused'


@row('the worker never comes')
def never_comes(lab):
    began = time.time()
    ended = lab.run('--join_timeout=5', index=0, port=free_port())
    assert ended.code == 1
    return ended.line('error: not all 2 processes met'), time.time() - began, 'refused'


# Other meshes

BITS = {}  # sha256 of the parameters by mesh: one for each, whatever the number of processes


@row('killed in step 10 on 1x2, resumed on {mesh}', mesh='1,1', group='meshes')
@row('killed in step 10 on 1x2, resumed on {mesh}', mesh='2,1', group='meshes')
@row('killed in step 10 on 1x2, resumed on {mesh}', mesh='2,2', group='meshes')
@row('killed in step 10 on 1x2, resumed by two processes on {mesh}', mesh='1,2', processes=2, group='meshes')
@row('killed in step 10 on 1x2, resumed by two processes on {mesh}', mesh='2,2', processes=2, group='meshes')
@row('killed in step 10 on 1x2, resumed by four processes on {mesh}', mesh='2,2', processes=4, group='meshes')
def other_mesh(lab, *, mesh, processes=1):
    process = lab.start(fault={'moment': 'step', 'at': 10, 'do': 'SIGKILL'})
    lab.wait_for_fault()
    lab.end(process)
    port = free_port()
    indices = range(processes) if processes > 1 else [None]
    again = [lab.start(f'--config.mesh={mesh}', index=index, port=port, processes=processes) for index in indices]
    every = [lab.end(process) for process in again]
    assert [ended.code for ended in every] == [0] * processes, lab.everything()
    line = every[0].line('resuming from step')
    if mesh == '1,2':
        lab.compare()
        return line, None, 'equal'
    lab.compare_nearly()
    params = outcome(lab.workdir)['params']
    assert BITS.setdefault(mesh, params) == params
    return line, None, 'equal to 1e-3 (the sums are of other order)'
