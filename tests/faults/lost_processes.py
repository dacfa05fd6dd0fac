"""Rows of the fault matrix: one of two processes is killed, stopped, fails or is replaced."""

import shutil
import signal

from faults.laboratory import free_port
from faults.rows import GRACE, HEARTBEAT, row


@row('two processes, kill -9 of the worker at the start', victim=1, moment='start')
@row('two processes, kill -9 of the coordinator at the start', victim=0, moment='start')
@row('two processes, kill -9 of the worker in the first compile', victim=1, moment='compile')
@row('two processes, kill -9 of the coordinator in the first compile', victim=0, moment='compile')
@row('two processes, kill -9 of the worker in step 10', victim=1, moment='step', at=10, tier='test')
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


@row('two processes, alive, the worker is stuck in step 10', victim=1, do='sleep3600', tier='repeats')
@row('two processes, alive, the coordinator is stuck in step 10', victim=0, do='sleep3600')
@row('two processes, alive, the worker is stuck where it calls step 10', victim=1, do='sleep3600', moment='dispatch')
def stuck(lab, *, victim, do, moment='step'):
    faults = [None, None]
    faults[victim] = {'moment': moment, 'at': 10, 'do': do}
    processes = lab.pair('--stuck_after=15', faults=faults)
    lab.wait_for_fault()
    both = [lab.end(process) for process in processes]
    assert [ended.code for ended in both] == [75, 75], lab.everything()
    lines = {ended.line('error: lost process', f'process {victim} (', 'is alive', 'for its step 10;') for ended in both}
    (line,) = lines  # all name the same
    seconds = max(ended.seconds for ended in both)
    assert seconds <= 30 + GRACE  # or three times the longest step, of a first one that was slow
    lab.resume()
    return line, seconds, 'equal'


@row('two processes, the worker waits 25 s for a batch, and no step may take 15 s', moment='batch')
@row('two processes, the worker takes 45 s more to compile', moment='compilation', do='sleep45')
@row('two processes, the worker stays 25 s in the test after step 12, and no step may take 15 s', moment='evaluation')
@row('two processes, checkpoint 12 takes the worker 25 s, and no step may take 15 s', moment='save')
@row('two processes, the log takes the coordinator 25 s, and no step may take 15 s', moment='log', victim=0)
def slow(lab, *, moment, victim=1, do='sleep25'):
    faults = [None, None]
    faults[victim] = {'moment': moment, 'at': 12 if moment in ('evaluation', 'save') else 10, 'do': do}
    both = [lab.end(process) for process in lab.pair('--stuck_after=15', faults=faults)]
    assert [ended.code for ended in both] == [0, 0], lab.everything()
    lab.compare()
    return 'nothing: the others wait', None, 'equal'


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


@row('two processes, the run folder holds another run, which only the coordinator sees', tier='test')
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
