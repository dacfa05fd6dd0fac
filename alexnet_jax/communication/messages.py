"""Reads who talks to whom in a step: the communication schedule, from the program and not from what it is meant to be.

Two readings, because either alone could be wrong: the traced program (what this code asks for, in order) and the
compiled one (what the compiler made of it, merged and moved as it saw fit).
"""

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.communication.hlo import ArrayType, ProgramText, parse_result
from alexnet_jax.sharding.collectives import EXCHANGES, NORMS, SCOPE
from alexnet_jax.sharding.mesh import TOWER


@dataclasses.dataclass(frozen=True)
class Message:
    """One collective operation of a training step.

    Attributes:
      layer: the exchange it belongs to, one of EXCHANGES, or what its norms are for, one of NORMS; otherwise the layer
        named in its scope, or whose gradients it averages, 'fc6+fc7' of two; '' for none, and for a message that the
        compiler merged of all layers' arrays.
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
    """Reads the collectives of a traced program, `jax.jit(f).trace(...).jaxpr`, over axes larger than 1, in order.

    Raises:
      ValueError: an unknown primitive over a mesh axis: the schedule would not be whole.
    """
    messages: list[Message] = []
    for equation, scope in _iter_equations(getattr(jaxpr, 'jaxpr', jaxpr), ''):
        axes = equation.params.get('axis_name', equation.params.get('axes', ()))
        axes = axes if isinstance(axes, tuple | list) else (axes,)
        moving = tuple(axis for axis in mesh.axis_names if axis in axes and mesh.shape[axis] > 1)
        name = equation.primitive.name
        if not moving or name in _SILENT:
            continue
        if name not in _PRIMITIVES:
            raise ValueError(f'primitive {name!r} over {moving} is not known to the schedule')
        op = _PRIMITIVES[name]
        devices = math.prod(mesh.shape[axis] for axis in moving)
        for value in equation.outvars if op == 'all-gather' else equation.invars:
            array = ArrayType(value.aval.dtype.name, value.aval.shape)
            messages.append(_make_message(_find_layer(scope), scope, op, moving, [array], devices))
    return messages


def _iter_equations(jaxpr: Any, scope: str) -> Iterator[tuple[Any, str]]:
    """Iterates over every equation without inner programs of its own, at any depth, with its scope."""
    for equation in jaxpr.eqns:
        inner_scope = '/'.join(filter(None, (scope, str(equation.source_info.name_stack))))
        values = [getattr(value, 'jaxpr', value) for value in jax.tree.leaves(list(equation.params.values()))]
        inner = [value for value in values if hasattr(value, 'eqns')]
        for program in inner:
            yield from _iter_equations(program, inner_scope)
        if not inner:
            yield equation, inner_scope


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


def compiled_schedule(text: str | None, mesh: Mesh) -> list[Message]:
    """Reads the collectives of a compiled program, `.compile().as_text()`, that join at least two devices.

    Raises:
      ValueError: a line that joins devices in a way that is not known here: the schedule would not be whole.
    """
    return [message for _, message in iter_messages(ProgramText(text), mesh)]


def iter_messages(program: ProgramText, mesh: Mesh) -> Iterator[tuple[str, Message]]:
    """Iterates over the lines that are collectives, as `compiled_schedule`, and what they say."""
    for line, computation in program.lines:
        found = _COLLECTIVE.search(line)
        if not found:
            if 'replica_groups=' in line or 'source_target_pairs=' in line:
                raise ValueError(f'no collective that this program can read in: {line.strip()[:300]}')
            continue
        op = found['op']
        groups = _parse_groups(line, op, mesh.devices.size)
        axes = _find_joined_axes(groups, mesh)
        if not axes:
            continue
        arrays = parse_result(op + (found['start'] or ''), found['shape'])
        if not arrays:
            raise ValueError(f'no array that this program can read in: {line.strip()[:300]}')
        devices = max(len(group) for group in groups)
        if op == 'reduce-scatter':
            arrays = [array._replace(shape=_unscatter(array.shape, devices, line)) for array in arrays]
        if op == 'all-reduce' and computation.startswith('all-reduce-scatter'):
            op = 'reduce-scatter'  # as TPUs do it: one kernel, written as the sum of all and a slice of it
        scope = program.scope(line, computation, _LAYER)
        layer = _find_layer(scope) if len(arrays) == 1 else ''
        if op == 'all-reduce' and TOWER not in axes and layer not in NORMS:
            layer, arrays = _find_averaged(program, line, layer, arrays)
        yield line, _make_message(layer, scope, op, axes, arrays, devices)


def _find_averaged(program: ProgramText, line: str, layer: str, arrays: list[ArrayType]) -> tuple[str, list[ArrayType]]:
    """Finds the layers and the arrays of a sum over replicas.

    Compilers join arrays to sum them at once, and name what they make so after nothing, or after what comes first.
    """
    parts = program.joined_arrays(line)
    joined = len(parts) > len(arrays) == 1 and sum(part.bytes for part in parts) == arrays[0].bytes
    arrays = parts if joined else arrays
    layers = program.names_updated(line, _LAYER)
    if not layers:
        return ('' if joined else layer), arrays
    return '' if layers == program.names(_LAYER) else _join_layers(sorted(layers)), arrays


def _join_layers(names: list[str]) -> str:
    """Joins 'conv1', 'conv2', 'conv3', 'fc8' to 'conv1-3+fc8'."""
    runs: list[list[str]] = []
    for name in names:
        if runs and (runs[-1][-1][:-1], int(runs[-1][-1][-1]) + 1) == (name[:-1], int(name[-1])):
            runs[-1].append(name)
        else:
            runs.append([name])
    return '+'.join(f'{run[0]}-{run[-1][-1]}' if len(run) > 2 else '+'.join(run) for run in runs)


def _unscatter(shape: tuple[int, ...], devices: int, line: str) -> tuple[int, ...]:
    scattered = re.search(r'dimensions=\{(\d+)\}', line)
    assert scattered, line
    axis = int(scattered[1])
    return tuple(n * devices if i == axis else n for i, n in enumerate(shape))


def _parse_groups(line: str, op: str, devices: int) -> list[list[int]]:
    """Parses the groups of device positions that talk to each other, in any of the four notations of XLA's text."""
    listed = re.search(r'(?:replica_groups|source_target_pairs)=\{(\{[\d,{} ]*\})\}', line)
    if listed:
        return [_parse_numbers(group) for group in re.findall(r'\{([\d, ]+)\}', listed[1])]
    if op in ('collective-permute', 'send', 'recv'):
        return []
    iota = re.search(r'replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?', line)
    if iota:
        return _arrange_positions(iota[2], iota[3]).reshape(_parse_numbers(iota[1])).tolist()
    named = _MESH_GROUPS.search(line)
    if named:
        sizes = {name: int(n) for name, n in re.findall(r"'(\w+)'=(\d+)", named['axes'])}
        joined = [list(sizes).index(name) for name in re.findall(r"'(\w+)'", named['joined'])]
        source = named['source'] or str(math.prod(sizes.values()))
        grid = _arrange_positions(source, named['order']).reshape(list(sizes.values()))
        last = np.moveaxis(grid, joined, range(-len(joined), 0))
        return last.reshape(-1, math.prod(grid.shape[axis] for axis in joined)).tolist()
    if 'replica_groups={}' in line:
        return [list(range(devices))]
    raise ValueError(f'no replica groups that this program can read in: {line.strip()[:300]}')


def _parse_numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(',')]


def _arrange_positions(shape: str, order: str | None) -> np.ndarray:
    """Arranges device positions as XLA writes it: [shape]T(order), counted up in `shape` and then transposed."""
    sizes = _parse_numbers(shape)
    return np.arange(math.prod(sizes)).reshape(sizes).transpose(_parse_numbers(order) if order else None)


def _find_joined_axes(groups: list[list[int]], mesh: Mesh) -> tuple[str, ...]:
    """Finds the mesh axes along which a group's members differ; a program numbers devices by place in the mesh."""
    places = zip(mesh.axis_names, np.unravel_index(np.arange(mesh.devices.size), mesh.devices.shape), strict=True)
    return tuple(axis for axis, place in places if any(len(set(place[group])) > 1 for group in groups))


def _find_layer(scope: str) -> str:
    layer = re.search(rf'{SCOPE}({"|".join((*EXCHANGES, *NORMS))})\b', scope) or _LAYER.search(scope)
    return layer[1] if layer else ''


def _make_message(
    layer: str, scope: str, op: str, axes: tuple[str, ...], arrays: list[ArrayType], devices: int
) -> Message:
    size = sum(array.bytes for array in arrays)
    received = size if op == 'collective-permute' else round(size * (devices - 1) / devices)
    return Message(
        layer=layer,
        op=op,
        axis=','.join(axes),
        direction='backward' if 'transpose(' in scope else 'forward',
        shape=arrays[0].shape if len(arrays) == 1 else tuple(array.shape for array in arrays),
        dtype=arrays[0].dtype,
        bytes=received * (2 if op == 'all-reduce' else 1),
    )


def expected_schedule(exchanged: dict[str, int], mesh: Mesh) -> list[tuple[str, str, str, int]]:
    """Returns the design, as (layer, direction, op, bytes a device receives), of what is said over 'tower' or 'model'.

    `exchanged` is {layer: bytes that a device receives in that exchange's forward pass}, in the network's order, on a
    `mesh` of more than one device along that axis.
    """
    towers = TOWER in mesh.axis_names
    inverse = {'all-gather': 'reduce-scatter', 'reduce-scatter': 'all-gather'}
    ops = {layer: 'reduce-scatter' if layer == 'fc8' and not towers else 'all-gather' for layer in exchanged}
    forward = [(layer, 'forward', op, exchanged[layer]) for layer, op in ops.items()]
    # Nothing comes back through the towers' gather: both devices compute fc8 and the loss whole, and so its gradient.
    back = [layer for layer in reversed(ops) if not (towers and layer == 'fc8')]
    return forward + [(layer, 'backward', inverse[ops[layer]], exchanged[layer]) for layer in back]
