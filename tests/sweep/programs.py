"""A small program in place of training: it follows a script, and writes the files of a run."""

import json
import pathlib
import sys
import time

import cli

# In the folder above the sweep's, script.json has {run name: [action of its first start, of its second, ...]}; the last
# action is repeated. 'done': finishes; a number: exits with this code; 'kill': kills itself; 'wait': finishes once the
# file `go` exists, and exits with 76 at SIGTERM; 'ignore': as 'wait', but only prints that it got SIGTERM.
# Further runs that a sweep hands over are made by the same process, as by training.
PROGRAM = f"""
import json, os, pathlib, signal, sys, time
sys.path.insert(0, {str(cli.ROOT)!r})

def parse(arguments):
    return dict(argument[2:].split('=', 1) for argument in arguments)

def make_run(options):
    folder = pathlib.Path(options['workdir'])
    above = folder.parent.parent
    script = json.loads((above / 'script.json').read_text()).get(folder.name, ['done'])
    folder.mkdir(exist_ok=True)
    start = len(list(folder.glob('start*')))
    action = script[min(start, len(script) - 1)]
    if action == 'wait':
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(76))
    elif action == 'ignore':
        signal.signal(signal.SIGTERM, lambda *_: print('SIGTERM', file=sys.stderr, flush=True))
    record = {{'pid': os.getpid(), 'threads': os.environ.get('PJRT_NPROC'), 'options': options}}
    record['cores'] = sorted(os.sched_getaffinity(0))
    (folder / f'.start{{start}}').write_text(json.dumps(record))
    (folder / f'.start{{start}}').replace(folder / f'start{{start}}')
    print(f'start {{start}}: {{action}}', file=sys.stderr, flush=True)
    with (folder / 'metrics.jsonl').open('a') as file:
        file.write(json.dumps({{'step': 5, 'split': 'train', 'loss': 1.5, 'images_per_second': 32.0}}) + chr(10))
        file.write(json.dumps({{'step': 5, 'split': 'validation', 'protocol': 'centre', 'top1_error': 0.25}}) + chr(10))
    while action in ('wait', 'ignore') and not (above / 'go').exists():
        time.sleep(0.02)
    if action == 'kill':
        os.kill(os.getpid(), signal.SIGKILL)
    if action not in ('done', 'wait', 'ignore'):
        sys.exit(int(action))
    test = {{'loss': 0.5, 'top1_error': 0.25, 'top5_error': 0.0, 'examples': 4}}
    (folder / 'result.json').write_text(json.dumps({{'steps': 10, 'centre': test, 'ten_view': test}}))

options = parse(sys.argv[1:])
make_run(options)
if 'more_runs' in options:
    from alexnet_jax.sweep.handover import iter_runs
    for arguments in iter_runs(int(options['more_runs'])):
        make_run(parse(arguments))
"""


def write_program(folder, script=None):
    """Writes the program and its script into `folder`, which is above the sweep's; returns the program's command."""
    path = pathlib.Path(folder) / 'program.py'
    path.write_text(PROGRAM)
    write_script(folder, script or {})
    return [sys.executable, '-S', str(path)]


def write_script(folder, script):
    """Replaces the script."""
    (pathlib.Path(folder) / 'script.json').write_text(json.dumps(script))


def load_starts(folder):
    """Returns what each start of a run recorded, in order."""
    return [json.loads(path.read_text()) for path in sorted(pathlib.Path(folder).glob('start*'))]


def wait_for(*paths, seconds=60):
    """Waits until all paths exist."""
    deadline = time.monotonic() + seconds
    while not all(map(pathlib.Path.exists, paths)):
        assert time.monotonic() < deadline, [path for path in paths if not path.exists()]
        time.sleep(0.02)
