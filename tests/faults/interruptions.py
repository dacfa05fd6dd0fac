"""Rows of the fault matrix: a run is told to stop, or killed; clocks and steps that are odd."""

import contextlib
import signal
import socket
import time

from faults.laboratory import free_port
from faults.rows import GRACE, HEARTBEAT, row


@row('SIGTERM in step 10', moment='step', do='SIGTERM', tier='test')
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


@row('SIGTERM of the coordinator while it waits for the worker', tier='test')
def told_to_stop_waiting(lab):
    port = free_port()
    process = lab.start(index=0, port=port)
    while process.poll() is None:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(('127.0.0.1', port)):
            break
        time.sleep(0.1)
    began = time.time()
    process.terminate()
    ended = lab.end(process)
    assert ended.code == 76, lab.everything()
    assert time.time() - began <= GRACE
    return ended.line('interrupted by SIGTERM', 'nothing new to save'), time.time() - began, 'equal'


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
