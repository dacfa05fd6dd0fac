"""A small program in place of training: it does what a file says, and leaves what a run leaves."""

import json
import pathlib
import sys
import time

# In the folder above the sweep's, script.json has {run name: [what its first start does, its second, ...]}; the last
# one stays. 'done': ends well; a number: ends with this code; 'kill': kills itself; 'wait': until the file `go` is
# there, then ends well, and at SIGTERM with 76; 'deaf': as that, but only says that it got SIGTERM.
PROGRAM = """
import json, os, pathlib, signal, sys, time
options = dict(argument[2:].split('=', 1) for argument in sys.argv[1:])
folder = pathlib.Path(options['workdir'])
above = folder.parent.parent
script = json.loads((above / 'script.json').read_text()).get(folder.name, ['done'])
folder.mkdir(exist_ok=True)
start = len(list(folder.glob('start*')))
word = script[min(start, len(script) - 1)]
if word == 'wait':
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(76))
elif word == 'deaf':
    signal.signal(signal.SIGTERM, lambda *_: print('told', file=sys.stderr, flush=True))
said = {'pid': os.getpid(), 'threads': os.environ.get('PJRT_NPROC'), 'options': options}
said['cores'] = sorted(os.sched_getaffinity(0))
(folder / f'.start{start}').write_text(json.dumps(said))
(folder / f'.start{start}').replace(folder / f'start{start}')
print(f'start {start}: {word}', file=sys.stderr, flush=True)
with (folder / 'metrics.jsonl').open('a') as file:
    file.write(json.dumps({'step': 5, 'split': 'train', 'loss': 1.5, 'images_per_second': 32.0}) + chr(10))
    file.write(json.dumps({'step': 5, 'split': 'validation', 'protocol': 'centre', 'top1_error': 0.25}) + chr(10))
while word in ('wait', 'deaf') and not (above / 'go').exists():
    time.sleep(0.02)
if word == 'kill':
    os.kill(os.getpid(), signal.SIGKILL)
if word not in ('done', 'wait', 'deaf'):
    sys.exit(int(word))
test = {'loss': 0.5, 'top1_error': 0.25, 'top5_error': 0.0, 'examples': 4}
(folder / 'result.json').write_text(json.dumps({'steps': 10, 'centre': test, 'ten_view': test}))
"""


def install(folder, script=None):
    """Puts the program into `folder`, which is above the sweep's, and what it is to do; returns what starts it."""
    path = pathlib.Path(folder) / 'program.py'
    path.write_text(PROGRAM)
    rewrite(folder, script or {})
    return [sys.executable, '-S', str(path)]


def rewrite(folder, script):
    """What the program does from now on."""
    (pathlib.Path(folder) / 'script.json').write_text(json.dumps(script))


def starts(folder):
    """What each start of a run said, in order."""
    return [json.loads(path.read_text()) for path in sorted(pathlib.Path(folder).glob('start*'))]


def wait_for(*paths, seconds=60):
    """Until all are there."""
    deadline = time.monotonic() + seconds
    while not all(map(pathlib.Path.exists, paths)):
        assert time.monotonic() < deadline, [path for path in paths if not path.exists()]
        time.sleep(0.02)
