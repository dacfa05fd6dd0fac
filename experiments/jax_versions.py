"""Speed of the training step and of inference under several installations of JAX, in processes that take turns.

    python -m experiments.jax_versions PYTHON PYTHON... [--batch=128,32] [--rounds=5]

Each PYTHON is the interpreter of an environment with this project's dependencies; the first is what others are compared
with. One device, the `paper` network at full size, the batch on the device. Ratios above 1: faster than the first; that
of CPU time moves least with what others do on the machine.
"""

import contextlib
import os
import pathlib
import statistics
import sys

from alexnet_jax.benchmark.protocol import Setting, Worker

ROOT = pathlib.Path(__file__).parents[1]


def measure(pythons: list[str], batch: int, *, rounds: int) -> None:
    setting = Setting(batch, 1.0, 1000, 'tuned')
    variables = {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)}
    command = ['-m', 'alexnet_jax.benchmark.worker', 'one_device']
    with contextlib.ExitStack() as stack:
        workers = []
        for python in pythons:  # compiled one after the other
            worker = Worker(python, command, setting, environment=variables, python=python)
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
                    f'batch {batch}, {do:10} jax {worker.versions["jax"]:9} {spread(speeds, 1)} images/s, '
                    f'ratio {spread([a.seconds / b.seconds for a, b in pairs], 3)}, of CPU time '
                    f'{spread([a.cpu_seconds / b.cpu_seconds for a, b in pairs], 3)}, others used {foreign:.0%}',
                    flush=True,
                )


def spread(values: list[float], digits: int) -> str:
    low, middle, high = statistics.quantiles(values, n=4, method='inclusive')
    return f'{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})'


def main(arguments: list[str]) -> None:
    options = dict(word[2:].split('=') for word in arguments if word.startswith('--'))
    pythons = [os.path.abspath(word) for word in arguments if not word.startswith('--')]
    for batch in options.get('batch', '128,32').split(','):
        measure(pythons, int(batch), rounds=int(options.get('rounds', '5')))


if __name__ == '__main__':
    main(sys.argv[1:])
