"""Predicts one mode of parallelism on more and more chips or GPUs that are not here, and where it stops scaling.

Compiling for TPUs takes a minute for each number of chips, so what was compiled is kept in a file, by a hash of the
program.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from alexnet_jax.communication import audit, cost_model, gpu_compiler, gpu_report
from alexnet_jax.communication.chips import list_slices
from alexnet_jax.communication.gpus import get_gpu, is_gpu, list_gpu_topologies
from alexnet_jax.communication.messages import Message
from alexnet_jax.communication.topology import get_chip
from alexnet_jax.console import info
from alexnet_jax.errors import InputError
from alexnet_jax.files import check_writable, write_json
from alexnet_jax.training.config import Config
from alexnet_jax.training.validation import check_together

_MIN_GAIN = 1.5  # times the images/s that twice the chips must give for a mode still to scale
_TERMS = {'compute': 'arithmetic', 'memory': 'reading and writing memory', 'links': 'messages'}


def report_scaling(
    config: Config,
    kind: str | None,
    chips: Sequence[str],
    *,
    scaling: str,
    num_classes: int,
    output: str | None,
) -> tuple[dict[str, Any], str]:
    """Makes a row for each number of chips: its mesh, what was compiled, and what is predicted; for JSON and as text.

    Args:
      config: of the mode; the second number of its mesh stays, as far as there are chips, and the first grows.
      kind, chips: which, 'v5e', and how many, in digits.
      scaling: 'weak', config.batch_size images on each chip, or 'strong', on all together.
      output: a file of rows of earlier tables, which are not compiled again, and where new ones are kept.

    Raises:
      InputError: chips, mesh or batch do not go together, or `output` is no such file.
    """
    if not kind or ':' in kind or not all(count.isdecimal() for count in chips):
        raise InputError('--chips takes numbers and needs a kind of chips: --topology=v5e --chips=1,2,4')
    path = pathlib.Path(output) if output else None
    kept = _read_programs(path) if path else {}
    slices = list_gpu_topologies(get_gpu(kind)) if is_gpu(kind) else list_slices(get_chip(kind))
    rows = []
    # All are checked before the first is compiled.
    for point in [_scale(config, slices, count, scaling=scaling) for count in sorted(set(map(int, chips)))]:
        topology = slices[math.prod(point.mesh)]
        compile_point = _compile_for_gpus if is_gpu(kind) else _compile_for_chips
        program, entry = compile_point(point, topology, num_classes, kept)
        if program not in kept:
            kept[program] = entry
            if path:
                write_json(path, kept)
        row = {
            'parallelism': config.parallelism,
            'precision': config.precision,
            'scaling': scaling,
            'chips': math.prod(point.mesh),
            'topology': topology,
            'mesh': list(point.mesh),
            'batch_size': point.batch_size,
            'program': program,
            **kept[program],
        }
        if 'cost' in row:
            predicted = _predict(row, point, topology, num_classes)
            row['prediction'] = dataclasses.asdict(predicted)
            row['images_per_second'] = point.batch_size / predicted.step
        rows.append(row)
    return {'rows': rows}, format_scaling(rows)


def _scale(config: Config, slices: Mapping[int, str], chips: int, *, scaling: str) -> Config:
    """Scales the config to so many chips."""
    if chips not in slices:
        raise InputError(f'--chips={chips}: use some of {", ".join(map(str, slices))}')
    second = min(config.mesh[1], chips)
    batch_size = config.batch_size * (chips if scaling == 'weak' else 1)
    point = dataclasses.replace(config, mesh=(chips // second, second), batch_size=batch_size)
    check_together(point)
    return point


def _compile_for_chips(
    point: Config, topology: str, num_classes: int, kept: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Returns the name of the program, and what was compiled unless it is in `kept`."""
    run = cost_model.build_topology_run(point, topology, num_classes=num_classes)
    lowered = audit.trace_step(run).lower()
    version = importlib.metadata.version('libtpu')
    program = hashlib.sha256(f'{topology} {version} {lowered.as_text()}'.encode()).hexdigest()
    if program in kept:
        return program, {}
    _tell(point, topology)
    start = time.monotonic()
    try:
        messages, cost = cost_model.compile_for(lowered, run.mesh)
    except cost_model.TooLargeError as error:
        return program, {'too_large': str(error)}
    return program, {
        'compiled': [dataclasses.asdict(message) for message in messages],
        'cost': dataclasses.asdict(cost),
        'compile_seconds': round(time.monotonic() - start, 1),
    }


def _compile_for_gpus(
    point: Config, topology: str, num_classes: int, kept: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """As `_compile_for_chips`; a process of its own lowers the step, and so it starts for a kept program too."""
    _tell(point, topology)
    found = gpu_compiler.compile_for_gpus(point, topology, num_classes=num_classes, kept=[*kept])
    if found['name'] in kept:
        return found['name'], {}
    compiled, gpu = gpu_compiler.parse_compiled(found), get_gpu(topology)
    if compiled.memory > gpu.memory:
        size = f'{compiled.memory / 1e9:.1f} GB of {gpu.memory / 1e9:.0f}'
        return compiled.name, {'too_large': f'the step needs {size}: use more GPUs or fewer images'}
    return compiled.name, {
        'compiled': [dataclasses.asdict(message) for message in compiled.program.messages],
        'cost': gpu_report.make_cost(compiled, point, num_classes=num_classes),
        'compile_seconds': compiled.seconds,
        'gpu': found,
    }


def _tell(point: Config, topology: str) -> None:
    info(f'compiling for {topology}, mesh {point.mesh[0]}x{point.mesh[1]}, {point.batch_size} images ...')


def _predict(row: Mapping[str, Any], point: Config, topology: str, num_classes: int) -> cost_model.Prediction:
    if 'gpu' in row:
        compiled = gpu_compiler.parse_compiled(row['gpu'])
        return gpu_report.predict_gpus(compiled, point, topology, num_classes=num_classes)
    messages = [Message(**message) for message in row['compiled']]
    run = cost_model.build_topology_run(point, topology, num_classes=num_classes)
    return cost_model.predict(cost_model.Cost(**row['cost']), messages, run.mesh, topology)


def _read_programs(output: pathlib.Path) -> dict[str, dict[str, Any]]:
    check_writable(output, option='--output')
    if not output.exists():
        return {}
    try:
        kept = json.loads(output.read_text())
        entries = list(kept.values())
    except (OSError, ValueError, AttributeError):  # the last: JSON, but no object
        entries = [None]
    if not all(
        isinstance(entry, dict) and ('too_large' in entry or {'compiled', 'cost'} <= {*entry}) for entry in entries
    ):
        raise InputError(f'--output={output} is there and holds no compiled programs: name another file')
    return kept


def format_scaling(rows: list[dict[str, Any]]) -> str:
    """Formats the table, in which efficiency is images/s a chip beside the first row's, and the verdict."""
    first = rows[0]
    fitting = [row for row in rows if 'prediction' in row]
    many, chips = ('on each chip', first['chips']) if first['scaling'] == 'weak' else ('on all chips together', 1)
    lines = [
        f'{first["parallelism"]}, {first["precision"]}, {first["batch_size"] // chips:,} images {many}; '
        'predicted, in ms a step:',
        f'{"chips":>5} {"topology":12}{"mesh":>7}{"images":>8}{"compute":>9}{"memory":>8}{"links":>8}{"step":>8}'
        f'{"images/s":>12}{"efficiency":>12} {"bound":8}{"GB":>6}',
    ]
    for row in rows:
        shape = 'x'.join(map(str, row['mesh']))
        start = f'{row["chips"]:>5} {row["topology"]:12}{shape:>7}{row["batch_size"]:>8} '
        if 'too_large' in row:
            lines.append(f'{start} does not fit into the memory of a chip')
            continue
        found, cost = row['prediction'], cost_model.Cost(**row['cost'])
        times = ''.join(f'{found[name] * 1e3:>8.2f}' for name in ('compute', 'memory', 'links', 'step'))
        lines.append(
            f'{start}{times}{row["images_per_second"]:>12,.0f}{_get_efficiency(row, fitting[0]):>12.0%} '
            f'{found["bound"]:8}{cost.memory / 1e9:>6.2f}'
        )
    return '\n'.join([*lines, format_verdict(rows)])


def _get_efficiency(row: dict[str, Any], first: dict[str, Any]) -> float:
    return row['images_per_second'] / row['chips'] / (first['images_per_second'] / first['chips'])


def format_verdict(rows: list[dict[str, Any]]) -> str:
    """Says where a mode stops scaling, and why: beyond, twice the chips never give 1.5 times the images/s again."""
    rows = [row for row in rows if 'prediction' in row]
    if not rows:
        return 'It fits nowhere.'
    last = max([0] + [i for i in range(1, len(rows)) if _get_gain(rows[i - 1], rows[i]) >= _MIN_GAIN])
    if last + 1 < len(rows):
        row = rows[last + 1]
        gain = row['images_per_second'] / rows[last]['images_per_second']
        what = f'It stops scaling at {rows[last]["chips"]}: with {row["chips"]} chips, {gain:.2f} times the images/s'
    else:
        row, first = rows[last], rows[0]
        least, fewest = min((_get_efficiency(row, first), row['chips']) for row in rows)
        share = f'{_get_efficiency(row, first):.0%} of the efficiency of {first["chips"]}'
        what = f'It scales up to {row["chips"]}, at {share}; the least is {least:.0%}, at {fewest}'
    found = row['prediction']
    text = f'{what}. There {found[found["bound"]] / found["step"]:.0%} of a step are {_TERMS[found["bound"]]}'
    if not found['link_bytes']:
        return f'{text}.'
    if found['bound'] != 'links':
        text += f', {found["links"] / found["step"]:.0%} {_TERMS["links"]}'
    if 'axis_seconds' in found:  # GPUs, which have links and a network
        axes, seconds = max(found['axis_seconds'].items(), key=lambda item: item[1])
        where = ' between hosts' if axes in found['network_bytes'] else ''
        return f'{text}; most of them, {seconds * 1e3:.2f} ms, go along {axes!r}{where}.'
    axes, size = max(found['link_bytes'].items(), key=lambda item: item[1])
    return f'{text}; most of what is said, {size / 1e6:,.0f} MB over each link, goes along {axes!r}.'


def _get_gain(before: dict[str, Any], row: dict[str, Any]) -> float:
    """Returns how many times the images/s twice the chips give, whatever the two rows' numbers of chips."""
    gain = row['images_per_second'] / before['images_per_second']
    return gain ** (math.log(2) / math.log(row['chips'] / before['chips']))
