"""Who talks to whom: the communication schedule, read from the program and not from what it is meant to be.

Two readings, because either alone could be wrong: the traced program (what this code asks for, in order) and the
compiled one (what the compiler made of it, merged and moved as it saw fit).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.communication.hlo import ProgramText, dtype_name
from alexnet_jax.sharding.collectives import EXCHANGES, SCOPE
from alexnet_jax.sharding.mesh import TOWER


@dataclasses.dataclass(frozen=True)
class Message:
    """One collective operation of a training step.

    Attributes:
      layer: the exchange it belongs to, one of EXCHANGES; otherwise the layer named in its scope; '' for none, and for
        a message that the compiler merged of several layers' arrays.
      op: XLA's name, 'all-gather', 'reduce-scatter', 'all-reduce', ...
      axis: the mesh axis whose devices it joins, 'data', 'tower' or 'model'; 'data,tower' if it joins both.
      direction: 'forward', or 'backward' where differentiation put it.
      shape: of the larger side: what an all-gather returns, what a reduce-scatter takes; several for a merged one.
      dtype: NumPy's name of the element type.
      bytes: received by each device: all but its own part of a gather or scatter, twice that of an all-reduce, all of
        a permutation.
    """

    layer: str
    op: str
    axis: str
    direction: Literal['forward', 'backward']
    shape: tuple[int, ...] | tuple[tuple[int, ...], ...]
    dtype: str
    bytes: int


_PRIMITIVES = {
    'all_gather': 'all-gather',
    'all_gather_invariant': 'all-gather',
    'reduce_scatter': 'reduce-scatter',
    'psum': 'all-reduce',
    'psum_invariant': 'all-reduce',
    'pmax': 'all-reduce',
    'pmin': 'all-reduce',
    'all_to_all': 'all-to-all',
    'ppermute': 'collective-permute',
}
# Primitives that carry an axis name and move nothing.
_SILENT = {'pvary', 'pcast', 'axis_index', 'reshard'}


def traced_schedule(jaxpr: Any, mesh: Mesh) -> list[Message]:
    """The collectives of a traced program (`jax.jit(f).trace(...).jaxpr`) over axes larger than 1, in order.

    Raises:
      ValueError: an unknown primitive over a mesh axis: the schedule would not be whole.
    """
    messages: list[Message] = []
    for equation, scope in _equations(getattr(jaxpr, 'jaxpr', jaxpr), ''):
        axes = _named_axes(equation.params)
        moving = tuple(axis for axis in mesh.axis_names if axis in axes and mesh.shape[axis] > 1)
        name = equation.primitive.name
        if not moving or name in _SILENT:
            continue
        if name not in _PRIMITIVES:
            raise ValueError(f'primitive {name!r} over {moving} is not known to the schedule')
        op = _PRIMITIVES[name]
        values = [v.aval for v in (equation.outvars if op == 'all-gather' else equation.invars)]
        devices = math.prod(mesh.shape[axis] for axis in moving)
        messages.extend(_message(scope, op, moving, [(value.dtype.name, value.shape)], devices) for value in values)
    return messages


def _equations(jaxpr: Any, scope: str) -> Iterator[tuple[Any, str]]:
    """Every equation without inner programs of its own, at any depth, with its scope."""
    for equation in jaxpr.eqns:
        inner_scope = '/'.join(filter(None, (scope, str(equation.source_info.name_stack))))
        inner = [
            getattr(value, 'jaxpr', value)
            for parameter in equation.params.values()
            for value in (parameter if isinstance(parameter, tuple | list) else (parameter,))
            if hasattr(getattr(value, 'jaxpr', value), 'eqns')
        ]
        for program in inner:
            yield from _equations(program, inner_scope)
        if not inner:
            yield equation, inner_scope


def _named_axes(params: dict[str, Any]) -> tuple[str, ...]:
    axes = params.get('axis_name', params.get('axes', ()))
    axes = axes if isinstance(axes, tuple | list) else (axes,)
    return tuple(axis for axis in axes if isinstance(axis, str))


_COLLECTIVE = re.compile(
    r'= (?P<shape>\(.*?\)|\S+) (?P<op>all-gather|all-reduce|reduce-scatter|all-to-all|ragged-all-to-all'
    r'|collective-permute|collective-broadcast|send|recv)(?P<start>-start)?\('
)
# replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}
_MESH_GROUPS = re.compile(
    r'replica_groups=mesh\[(?P<axes>[^\]]*)\](?:, device_ids=\(\[(?P<source>[\d,]+)\](?:T\((?P<order>[\d,]+)\))?\))?'
    r' \{(?P<joined>[^}]*)\}'
)
_LAYER = re.compile(r'(?:\b|_)((?:conv|fc)\d)\b')
_ARRAY = re.compile(r'(\w+)\[([\d,]*)\]')


def compiled_schedule(text: str, mesh: Mesh) -> list[Message]:
    """The collectives of a compiled program (`.compile().as_text()`) that join at least two devices.

    Raises:
      ValueError: a line that joins devices in a way that is not known here: the schedule would not be whole.
    """
    messages: list[Message] = []
    program = ProgramText(text)
    for line, computation in program:
        found = _COLLECTIVE.search(line)
        if not found:
            if 'replica_groups=' in line or 'source_target_pairs=' in line:
                raise ValueError(f'no collective that this program can read in: {line.strip()[:300]}')
            continue
        op = found['op']
        groups = _groups(line, op, mesh.devices.size)
        axes = _joined_axes(groups, mesh)
        if not axes:
            continue
        arrays = [
            (dtype_name(dtype), tuple(int(n) for n in shape.split(',') if n))
            for dtype, shape in _ARRAY.findall(found['shape'])
        ]
        devices = max(len(group) for group in groups)
        if found['start'] and op == 'all-gather':
            arrays = arrays[len(arrays) // 2 :]  # an asynchronous gather returns its operands, then its results
        if found['start'] and op == 'collective-permute':
            arrays = arrays[1:2]  # operand, result, and what the hardware keeps count with
        if op == 'reduce-scatter':
            arrays = [(dtype, _unscatter(shape, devices, line)) for dtype, shape in arrays]
        if op == 'all-reduce' and computation.startswith('all-reduce-scatter'):
            op = 'reduce-scatter'  # as TPUs do it: one kernel, written as the sum of all and a slice of it
        scope = program.scope(line, computation, _LAYER)
        messages.append(_message(scope, op, axes, arrays, devices))
    return messages


def _unscatter(shape: tuple[int, ...], devices: int, line: str) -> tuple[int, ...]:
    scattered = re.search(r'dimensions=\{(\d+)\}', line)
    assert scattered, line
    axis = int(scattered[1])
    return tuple(n * devices if i == axis else n for i, n in enumerate(shape))


def _groups(line: str, op: str, devices: int) -> list[tuple[int, ...]]:
    """The groups of device positions that talk to each other, in any of the four notations of XLA's text."""
    if op in ('collective-permute', 'send', 'recv'):
        pairs = re.search(r'source_target_pairs=\{(.*?)\}\}', line)
        return [tuple(map(int, p.split(','))) for p in re.findall(r'\{(\d+,\d+)', pairs[0] + '}' if pairs else '')]
    listed = re.search(r'replica_groups=\{(\{[\d,{}]*\})\}', line)
    if listed:
        return [tuple(map(int, group.split(','))) for group in re.findall(r'\{([\d,]+)\}', listed[1])]
    iota = re.search(r'replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?', line)
    if iota:
        shape, source = ([int(n) for n in part.split(',')] for part in iota.groups()[:2])
        order = [int(n) for n in iota[3].split(',')] if iota[3] else None
        positions = np.arange(math.prod(source)).reshape(source)
        return [tuple(group) for group in positions.transpose(order).reshape(shape).tolist()]
    named = _MESH_GROUPS.search(line)
    if named:
        sizes = {name: int(n) for name, n in re.findall(r"'(\w+)'=(\d+)", named['axes'])}
        joined = re.findall(r"'(\w+)'", named['joined'])
        positions = np.arange(math.prod(sizes.values()))
        if named['source']:
            order = [int(n) for n in named['order'].split(',')] if named['order'] else None
            positions = positions.reshape([int(n) for n in named['source'].split(',')]).transpose(order)
        axes = [i for i, name in enumerate(sizes) if name not in joined] + [list(sizes).index(n) for n in joined]
        members = math.prod(sizes[name] for name in joined)
        grouped = positions.reshape(tuple(sizes.values())).transpose(axes).reshape(-1, members)
        return [tuple(group) for group in grouped.tolist()]
    if 'replica_groups={}' in line:
        return [tuple(range(devices))]
    raise ValueError(f'no replica groups that this program can read in: {line.strip()[:300]}')


def _joined_axes(groups: list[tuple[int, ...]], mesh: Mesh) -> tuple[str, ...]:
    """The mesh axes along which some group's members differ; a program numbers devices by place in the mesh."""
    coordinates = np.stack(np.unravel_index(np.arange(mesh.devices.size), mesh.devices.shape), axis=1)
    return tuple(
        axis
        for index, axis in enumerate(mesh.axis_names)
        if any(len(set(coordinates[list(group), index])) > 1 for group in groups)
    )


def _message(
    scope: str, op: str, axes: tuple[str, ...], arrays: list[tuple[str, tuple[int, ...]]], devices: int
) -> Message:
    exchange = re.search(rf'{SCOPE}({"|".join(EXCHANGES)})\b', scope)
    layer = exchange or _LAYER.search(scope)
    size = sum(np.dtype(jax.numpy.dtype(dtype)).itemsize * math.prod(shape) for dtype, shape in arrays)
    received = size if op == 'collective-permute' else round(size * (devices - 1) / devices)
    return Message(
        layer=layer[1] if layer and len(arrays) == 1 else '',
        op=op,
        axis=','.join(axes),
        direction='backward' if 'transpose(' in scope else 'forward',
        shape=arrays[0][1] if len(arrays) == 1 else tuple(shape for _, shape in arrays),
        dtype=arrays[0][0],
        bytes=received * (2 if op == 'all-reduce' else 1),
    )


def expected_schedule(exchanged: dict[str, int], mesh: Mesh) -> list[tuple[str, str, str, int]]:
    """The design, as (layer, direction, op, bytes a device receives), of what is said over 'tower' or 'model'.

    Args:
      exchanged: {layer: bytes that a device receives in the forward pass of that exchange}, in the network's order.
      mesh: of more than one device along that axis.
    """
    if TOWER not in mesh.axis_names:
        ops = {'fc6': 'all-gather', 'fc7': 'all-gather', 'fc8': 'reduce-scatter'}
        inverse = {'all-gather': 'reduce-scatter', 'reduce-scatter': 'all-gather'}
        there = [(layer, 'forward', op, exchanged[layer]) for layer, op in ops.items()]
        return there + [(layer, 'backward', inverse[op], size) for layer, _, op, size in reversed(there)]
    forward = [(layer, 'forward', 'all-gather', exchanged[layer]) for layer in exchanged]
    # Nothing comes back through fc8's gather: both devices compute fc8 and the loss whole, and so its gradient.
    backward = [
        (layer, 'backward', 'reduce-scatter', exchanged[layer]) for layer in reversed(exchanged) if layer != 'fc8'
    ]
    return forward + backward
