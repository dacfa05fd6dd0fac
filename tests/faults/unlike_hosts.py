"""Rows of the fault matrix: processes that are not alike, that do not find each other, and other meshes."""

import socket
import time

from faults.laboratory import free_port, outcome
from faults.rows import row


@row('two processes, the worker has another setting', option='--config.learning_rate=0.02', tier='repeats')
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


@row('the port is taken', tier='repeats')
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
