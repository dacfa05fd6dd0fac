"""Runs all that one GPU can tell in some eight minutes, and writes the tables of docs/gpu.md.

    make gpu                                 where no GPU is, it says so, and leaves the page alone
    JAX_PLATFORMS=cpu make gpu REHEARSE=1    all of it in tiny sizes on the CPU, printed, the page left alone

Each stage is a process with a time limit. One that fails or takes too long is reported as such, and costs no other's
results. Logs are in runs/gpu/.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
PAGE, LOGS = ROOT / 'docs/gpu.md', ROOT / 'runs/gpu'
BEGIN, END = '<!-- gpu tables: begin -->', '<!-- gpu tables: end -->'
LOSS_BOUNDS = {'float32': 1e-4, 'bfloat16': 0.02}  # relative, of each step's loss against the CPU's in float32
MODULE = [sys.executable, '-m']


@dataclasses.dataclass(frozen=True)
class Stage:
    """A process: its command, the most seconds that it may take, what it adds to the environment.

    `workdir` is the run folder that it leaves, of a stage that trains to an error.
    """

    name: str
    command: list[str]
    limit: float
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    workdir: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a stage gave: its JSON object, possibly a part of it, how long it took, and '' or what went wrong."""

    result: dict[str, Any] | None
    seconds: float
    problem: str = ''


def make_stages(*, rehearse: bool, folder: pathlib.Path, cifar10: bool) -> list[Stage]:
    """Lists the stages in order. Limits are for what hangs: they add up to more than the stages are meant to take."""
    stages, own = [], [*MODULE, 'experiments.gpu_stages']
    forms = {'FORMS': 'gpu'} if rehearse else {}
    cpu = {'JAX_PLATFORMS': 'cpu', 'MODES': 'one_device'}
    stages.append(Stage('steps cpu', [*own, 'steps', 'float32', 'yes'], 120, cpu))
    for dtype in ('float32', 'bfloat16'):
        for deterministic in ('no', 'yes'):
            few = {}
            if rehearse:
                few['MODES'] = (
                    'two_device,one_weird_trick' if (dtype, deterministic) == ('float32', 'no') else 'one_device'
                )
            command = [*own, 'steps', dtype, deterministic]
            stages.append(Stage(f'steps {dtype} {deterministic}', command, 60, forms | few))
    stages.append(Stage('audit', [*own, 'audit'], 120))
    sizes = ('4', 'float32,bfloat16') if rehearse else ('128,1024,4096', 'bfloat16,tf32,float32')
    stages.append(Stage('bench', [*own, 'bench', *sizes], 210))
    small = {'demo': ['--config.steps=2', '--config.width=0.03125'], 'cifar10': ['--config.epochs=1']}
    few = ['--config.batch_size=16', f'--config.data_dir={folder / "data"}']
    for name, config in {'demo': 'configs/one_device.py', 'cifar10': 'configs/cifar10.py'}.items():
        if name == 'demo' or cifar10:
            workdir, options = folder / name, small[name] + few if rehearse else []
            command = [*MODULE, 'alexnet_jax.main', f'--config={config}', f'--workdir={workdir}', *options]
            stages.append(Stage(name, command, 120, workdir=workdir))
    options = ['--appetite=20000']
    if rehearse:
        options = ['--batch=8', '--rounds=2', '--seconds=0.05', '--appetite=1000', f'--data_dir={folder / "data"}']
    stages.append(Stage('loader', [*MODULE, 'alexnet_jax', 'bench', 'input', '--json', *options], 120))
    if not rehearse:
        return stages
    # A CPU that rehearses compiles slowly, and may have other work.
    quick = {'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'}
    return [dataclasses.replace(s, limit=10 * s.limit, environment=quick | s.environment) for s in stages]


def run_stage(stage: Stage, folder: pathlib.Path) -> Outcome:
    """Runs a stage, and ends it and its children where it takes too long; what it had printed by then counts."""
    began = time.monotonic()
    output, log = (folder / f'{stage.name.replace(" ", "-")}.{end}' for end in ('out', 'log'))
    with output.open('w') as out, log.open('w') as err:
        options: dict[str, Any] = {'cwd': ROOT, 'env': {**os.environ, **stage.environment}, 'start_new_session': True}
        process = subprocess.Popen(stage.command, stdout=out, stderr=err, **options)
        try:
            code = process.wait(stage.limit)
            problem = f'ended with code {code}: {find_last_line(log.read_text())}' if code else ''
        except subprocess.TimeoutExpired:
            problem = f'took more than {stage.limit:.0f} s'
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    result = read_errors(stage.workdir) if stage.workdir else parse_result(output.read_text())
    if result is None and not problem:
        problem = 'gave no result'
    return Outcome(result, time.monotonic() - began, problem)


def find_last_line(text: str) -> str:
    """Returns the last line of a log that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), 'it said nothing')


def parse_result(text: str) -> dict[str, Any] | None:
    """Returns the last whole JSON object that stands on a line of its own."""
    for line in reversed(text.splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return None


def read_errors(workdir: pathlib.Path) -> dict[str, Any] | None:
    """Returns the last line of a run's metrics about its validation images."""
    path = workdir / 'metrics.jsonl'
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return next((line for line in reversed(lines) if line['split'] == 'validation'), None)


def compare_losses(losses: list[float], expected: list[float]) -> float:
    """Returns the largest relative distance of a step's loss from the CPU's."""
    return max(abs(a - b) / abs(b) for a, b in zip(losses, expected, strict=True))


def format_tables(outcomes: dict[str, Outcome]) -> str:
    """Formats every stage's results in Markdown, and what went wrong where something did."""
    return '\n\n'.join(
        '\n'.join(lines)
        for lines in (_format_steps(outcomes), _format_bench(outcomes), _format_rest(outcomes))
        if lines
    )


def _format_steps(outcomes: dict[str, Outcome]) -> list[str]:
    reference = outcomes.get('steps cpu')
    expected = reference.result['modes']['one_device']['losses'] if reference and reference.result else None
    lines = ['| precision, deterministic | mode | loss, apart from the CPU | within the bound | resumed bit for bit |']
    lines.append('|---|---|---|---|---|')
    for name, outcome in outcomes.items():
        if not name.startswith('steps ') or name == 'steps cpu' or not outcome.result:
            continue
        _, dtype, deterministic = name.split()
        for mode, found in outcome.result['modes'].items():
            apart = compare_losses(found['losses'], expected) if expected else None
            within = '-' if apart is None else 'yes' if apart <= LOSS_BOUNDS[dtype] else '**no**'
            shown = '-' if apart is None else f'{apart:.1e}'
            resumed = 'yes' if found['resumed'] else '**no**' if deterministic == 'yes' else 'no'
            lines.append(f'| {dtype}, {deterministic} | {mode} | {shown} | {within} | {resumed} |')
        if outcome.result['left_out']:
            lines.append(
                f'| {dtype}, {deterministic} | {", ".join(outcome.result["left_out"])} | too few devices | | |'
            )
    return lines


def _format_bench(outcomes: dict[str, Outcome]) -> list[str]:
    found = outcomes.get('bench')
    if not found or not found.result:
        return []
    peer = '' if found.result['torch'] else '; PyTorch is not installed, so there is nothing to compare with'
    lines = [f'On {found.result["device"]}{peer}:', '']
    lines.append('| precision | batch | form | training, images/s | inference | peak GB | of product | of peak |')
    lines.append('|---|---|---|---|---|---|---|---|')
    for row in found.result['rows']:
        for form, speeds in row['forms'].items():
            cells = [row['precision'], str(row['batch']), form]
            cells += [f'{speeds[do]:,.0f}' if do in speeds else '-' for do in ('train', 'inference')]
            peak = row['peak_bytes'].get(form)
            cells.append('-' if peak is None else f'{peak / 1e9:.2f}')
            shares = [row['train'][f'fraction_of_{what}'] for what in ('gemm', 'peak')]
            cells += ['-' if share is None or form != 'one_device' else f'{share:.0%}' for share in shares]
            lines.append(f'| {" | ".join(cells)} |')
    return lines


def _format_rest(outcomes: dict[str, Outcome]) -> list[str]:
    lines = ['| stage | seconds | result |', '|---|---|---|']
    for name, outcome in outcomes.items():
        result = outcome.result or {}
        said = outcome.problem and f'**{outcome.problem}**'
        if 'top1_error' in result:
            said = f'top-1 error {result["top1_error"]:.2%}, {result["protocol"]}' + f'; {said}' * bool(said)
        if 'stages' in result and not said:
            speed = result['stages']['batch']['images_per_second']
            said = f'{speed:,.0f} images/s in batches, of {result["appetite"]:,.0f} wanted'
        if 'real' in result and not said:
            said = _format_audit(result)
        lines.append(f'| {name} | {outcome.seconds:.0f} | {said or "done"} |'.replace('\n', ' '))
    return lines


def _format_audit(result: dict[str, Any]) -> str:
    def describe(program: dict[str, Any]) -> str:
        kernels = ', '.join(f'{count} of {library}' for library, count in sorted(program['kernels'].items()))
        moved = f'; kernels: {kernels}; {program["traffic"] / 1e9:.2f} GB' if kernels else ''
        return f'{program["messages"]} messages, {program["bytes"]:,} bytes{moved}'

    mesh, real = 'x'.join(map(str, result['mesh'])), describe(result['real'])
    if 'absent' not in result:
        return f'on {mesh} {real}; not compared: {result["missing"]}'
    agree = 'the same' if result['agree'] else '**not the same**'
    return f'on {mesh} {real}; compiled without them {agree}: {describe(result["absent"])}'


def make_small_datasets(folder: pathlib.Path) -> None:
    """Prepares a few drawings as the embedded dataset, and a few images of noise as CIFAR-10, in `folder`/data."""
    import numpy as np
    from PIL import Image

    from alexnet_jax.data.preparing.demo import make_demo_spec
    from alexnet_jax.data.preparing.folder import make_folder_spec
    from alexnet_jax.data.preparing.writer import prepare

    random, pictures = np.random.default_rng(0), folder / 'pictures'
    for split, count in (('train', 32), ('validation', 4)):
        for name in ('first', 'second'):
            (pictures / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(256, size=(32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(pictures / split / name / f'{number}.png')
    for spec in (make_demo_spec(train=64, validation=10), make_folder_spec(pictures, name='cifar10', record_size=32)):
        prepare(spec, data_dir=folder / 'data', workers=1)


def write_tables(page: str, outcomes: dict[str, Outcome]) -> str:
    """Returns the page with its tables, and nothing else, made anew; ValueError where it has no place for them."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f'the page has no lines {BEGIN} and {END}')
    return f'{head}{BEGIN}\n{format_tables(outcomes)}\n{END}{tail}'


def main() -> None:
    """Runs the stages and writes the page, or prints what it would say."""
    rehearse = bool(os.environ.get('REHEARSE'))
    if not rehearse:
        from alexnet_jax.benchmark.measure import find_gpu

        device = find_gpu()
        if device is None:
            print('no GPU: JAX finds none here, so nothing was run and docs/gpu.md is as it was')
            print('to rehearse on the CPU: JAX_PLATFORMS=cpu make gpu REHEARSE=1')
            return
        print(f'{device}: some eight minutes')
    folder = LOGS / ('rehearsal' if rehearse else 'run')
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # by way of what ends a stage's processes
    if rehearse:
        make_small_datasets(folder)
    cifar10 = rehearse or (ROOT / 'data/cifar10').is_dir()
    outcomes = {}
    for stage in make_stages(rehearse=rehearse, folder=folder, cifar10=cifar10):
        outcomes[stage.name] = outcome = run_stage(stage, folder)
        print(f'{stage.name}: {outcome.seconds:.0f} s, {outcome.problem or "done"}', flush=True)
    if not cifar10:
        outcomes['cifar10'] = Outcome(None, 0.0, 'left out: data/cifar10 is not prepared, see docs/cifar10.md')
    if rehearse:
        print(format_tables(outcomes))
    else:
        PAGE.write_text(write_tables(PAGE.read_text(), outcomes))
        print(f'{PAGE.relative_to(ROOT)} is written')
    failed = [name for name, outcome in outcomes.items() if outcome.problem and name != 'cifar10']
    if failed:
        sys.exit(f'failed: {", ".join(failed)}')


if __name__ == '__main__':
    main()
