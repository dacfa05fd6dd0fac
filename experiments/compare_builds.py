"""Speed of the training step and of inference under several builds, in processes that take turns.

    python -m experiments.compare_builds PYTHON... [--batch=128,32] [--width=1] [--devices=1] [--rounds=5]
    python -m experiments.compare_builds CHECKOUT... [the same]

Each PYTHON is the interpreter of an environment with this project's dependencies, such as another version of JAX; each
CHECKOUT a folder with another commit of this project, run by this interpreter. The first is what others are compared
with. The `paper` network, 1,000 classes, the batch on the device. Ratios above 1: faster than the first; that of CPU
time moves least with what others do on the machine.
"""

import contextlib
import os
import pathlib
import statistics
import sys

from alexnet_jax.benchmark.protocol import Setting, Worker

ROOT = pathlib.Path(__file__).parents[1]


def measure(builds: list[pathlib.Path], batch: int, *, width: float, devices: int, rounds: int) -> None:
    setting = Setting(batch, width, 1000, 'tuned')
    # -P: Python would take the project from the folder that it is started in.
    command = ['-P', '-m', 'alexnet_jax.benchmark.worker', {1: 'one_device', 2: 'two_device'}[devices]]
    with contextlib.ExitStack() as stack:
        workers = []
        for build in builds:  # compiled one after the other
            python, root = (sys.executable, build) if build.is_dir() else (str(build), ROOT)
            variables = {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(root)}
            worker = Worker(str(build), command, setting, environment=variables, python=python)
            workers.append(stack.enter_context(contextlib.closing(worker)))
            worker.wait_until_ready()
        programs = list(workers[0].programs)
        samples = {(i, do): [] for i in range(len(workers)) for do in programs}
        for _ in range(rounds):
            for do in programs:
                for i, worker in enumerate(workers):
                    samples[i, do].append(worker.sample(do, seconds=1.0))
        for do in programs:
            for i, worker in enumerate(workers):
                speeds = [batch / sample.seconds for sample in samples[i, do]]
                pairs = list(zip(samples[0, do], samples[i, do], strict=True))
                foreign = statistics.median(sample.foreign or 0 for sample in samples[i, do])
                print(
                    f'{builds[i].name}, batch {batch}, {do:10} jax {worker.versions["jax"]:9} '
                    f'{spread(speeds, 1)} images/s, '
                    f'ratio {spread([a.seconds / b.seconds for a, b in pairs], 3)}, of CPU time '
                    f'{spread([a.cpu_seconds / b.cpu_seconds for a, b in pairs], 3)}, others used {foreign:.0%}',
                    flush=True,
                )


def spread(values: list[float], digits: int) -> str:
    low, middle, high = statistics.quantiles(values, n=4, method='inclusive')
    return f'{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})'


def main(arguments: list[str]) -> None:
    options = dict(word[2:].split('=') for word in arguments if word.startswith('--'))
    builds = [pathlib.Path(os.path.abspath(word)) for word in arguments if not word.startswith('--')]
    shape = {'width': float(options.get('width', '1')), 'devices': int(options.get('devices', '1'))}
    for batch in options.get('batch', '128,32').split(','):
        measure(builds, int(batch), **shape, rounds=int(options.get('rounds', '5')))


if __name__ == '__main__':
    main(sys.argv[1:])
