"""How fast runs came to a stated error: a row of docs/records.md, of one command and several seeds.

    python -m experiments.records ERROR WORKDIR...          ERROR in percent, top-1 of the centre test, such as 27

The time is that of training steps alone, as the runs logged it: starting, compiling, tests and saves are apart. It ends
with the step before the first test whose error is at most ERROR. Runs must differ in nothing but their seed. Prints a
Markdown row: what, commit, runs, error at the end, steps, seconds and images/s to ERROR, the mean over seeds and their
standard deviation; where a run did not come to ERROR, how many did, and no time. 7f3a1c2+ is a commit with changes.
"""

import dataclasses
import json
import pathlib
import statistics
import sys

SAME_BUT = ('seed', 'data_dir')


@dataclasses.dataclass(frozen=True)
class Attempt:
    """A run's way to the error; `steps`, `seconds` and `speed`, images a second, are None where it never came there."""

    final: float  # top-1 error of its last centre test, 0..1
    steps: int | None
    seconds: float | None
    speed: float | None


def read_attempt(lines, *, batch_size, error):
    """Reads it from the lines of metrics.jsonl; `error` is a fraction."""
    seconds, images, last, final, reached = 0.0, 0, 0, None, None
    for line in lines:
        if line['split'] == 'train':
            done = (line['step'] - last) * batch_size
            seconds, images, last = seconds + done / line['images_per_second'], images + done, line['step']
        elif line.get('protocol') == 'centre':
            final = line['top1_error']
            if reached is None and final <= error:
                if last != line['step']:
                    raise SystemExit(f'error: the steps before the test at step {line["step"]} were not all logged')
                reached = last, seconds, images / seconds
    if final is None:
        raise SystemExit('error: a run without a centre test')
    return Attempt(final, *(reached or (None, None, None)))


def spread(values, form):
    """'mean ± standard deviation', of one value alone itself."""
    values = list(values)
    shown = format(statistics.mean(values), form)
    return shown if len(values) == 1 else f'{shown} ± {format(statistics.stdev(values), form)}'


def format_row(name, commit, attempts):
    """Makes the row."""
    columns = [name, commit, str(len(attempts)), spread((100 * one.final for one in attempts), '.1f') + ' %']
    reached = [one for one in attempts if one.steps is not None]
    if len(reached) < len(attempts):
        return f'| {" | ".join([*columns, f"{len(reached)} of {len(attempts)} came there", "", ""])} |'
    columns += [spread((getattr(one, key) for one in reached), ',.0f') for key in ('steps', 'seconds', 'speed')]
    return f'| {" | ".join(columns)} |'


def main(error, *workdirs):
    """Prints the row."""
    runs = [pathlib.Path(workdir) for workdir in workdirs]
    configs = [json.loads((run / 'config.json').read_text()) for run in runs]
    facts = [json.loads((run / 'run.json').read_text()) for run in runs]
    alike = [{key: value for key, value in config.items() if key not in SAME_BUT} for config in configs]
    for run, other in zip(runs, alike, strict=True):
        if differing := [key for key in alike[0] | other if alike[0].get(key) != other.get(key)]:
            raise SystemExit(f'error: {run} and {runs[0]} differ in {", ".join(differing)}, not in the seed alone')
    if len({config['seed'] for config in configs}) < len(runs):
        raise SystemExit('error: two of the runs have the same seed')
    attempts = []
    for run, config in zip(runs, configs, strict=True):
        lines = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
        attempts.append(read_attempt(lines, batch_size=config['batch_size'], error=float(error) / 100))
    first = configs[0]
    commits = ', '.join(sorted({one['commit'][:7] + '+' * one['commit'].endswith('-dirty') for one in facts}))
    print(format_row(f'{first["dataset"]}, {first["variant"]}, to {float(error):g} %', commits, attempts))


if __name__ == '__main__':
    main(*sys.argv[1:])
