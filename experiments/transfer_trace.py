"""When batches go to the devices, and when the devices compute, from the trace of a run; docs/data.md holds the result.

python -m alexnet_jax.main --config=configs/two_device.py --config.profile=8 --config.steps=12 --workdir=WORKDIR
python -m experiments.transfer_trace WORKDIR
"""

import itertools
import pathlib
import sys

from jax.profiler import ProfileData

# What JAX 0.10 calls them in traces of CPU devices. A device's step is waited for by the thread that started it. What
# the host has begun to move (PUT) is copied by another thread (COPY), unless the device can use the memory as it is.
STEP = 'ThunkExecutor::Execute (wait for completion)'
PUT, COPY = 'DevicePutWithSharding', 'H2D Dispatch'

Span = tuple[float, float]


def read_spans(folder: pathlib.Path) -> dict[str, list[Span]]:
    """Reads start and end, ms, of the events of each name, by their start."""
    (path,) = folder.rglob('*.xplane.pb')
    spans: dict[str, list[Span]] = {STEP: [], PUT: [], COPY: []}
    lines = itertools.chain.from_iterable(plane.lines for plane in ProfileData.from_file(str(path)).planes)
    for event in itertools.chain.from_iterable(line.events for line in lines):
        if event.name in spans:
            spans[event.name].append((event.start_ns / 1e6, event.end_ns / 1e6))
    return {name: sorted(found) for name, found in spans.items()}


def group(spans: list[Span], starts: list[float]) -> list[list[Span]]:
    """Groups spans by the last of `starts` before each."""
    return [[span for span in spans if a <= span[0] < b] for a, b in itertools.pairwise([*starts, float('inf')])]


def main(workdir: str) -> None:
    """Prints a row for each traced step but the first, whose batch was moved before the trace began."""
    spans = read_spans(pathlib.Path(workdir) / 'profile')
    steps: list[Span] = []  # from the first device's start to the last one's end
    for start, end in spans[STEP]:
        if steps and start < steps[-1][1]:
            steps[-1] = (steps[-1][0], max(end, steps[-1][1]))
        else:
            steps.append((start, end))
    arrays = len(spans[PUT]) / max(1, len(steps))  # of a batch
    if not arrays or arrays % 1:
        sys.exit(
            f'{len(steps)} steps and {len(spans[PUT])} arrays moved: not a trace of CPU devices, or by another JAX'
        )
    puts = spans[PUT][:: int(arrays)]
    moves = group(sorted(spans[PUT] + spans[COPY]), [start for start, _ in puts])
    print('step   starts, ms   takes, ms   its batch: begun, ms   moved in, ms   there before the step starts, ms')
    begin = steps[0][0]
    for number, ((start, end), moved) in enumerate(zip(steps[1:], moves, strict=False), start=2):
        busy = sum(b - a for a, b in moved)
        there = start - max(b for _, b in moved)
        times = f'{number:4} {start - begin:12.1f} {end - start:11.1f} {moved[0][0] - begin:22.1f}'
        print(f'{times} {busy:14.2f} {there:35.1f}')


if __name__ == '__main__':
    main(*sys.argv[1:])
