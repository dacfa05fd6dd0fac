"""Reports what a training step sends between devices, and the size of its network."""

import dataclasses
import itertools
import math
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from alexnet_jax.communication.messages import Message, compiled_schedule, expected_schedule, traced_schedule
from alexnet_jax.data.augment import CROP
from alexnet_jax.model.alexnet import AlexNet
from alexnet_jax.model.ops import DropoutStream
from alexnet_jax.model.spec import LayerSize, Variant, get_layer_sizes
from alexnet_jax.sharding.backend import compiler_options
from alexnet_jax.sharding.collectives import NORMS
from alexnet_jax.sharding.mesh import DATA, MODEL, REPLICATED, TOWER, batch_axes, batch_spec, parameter_specs, shardings
from alexnet_jax.training.build import Run, make_variant
from alexnet_jax.training.config import Config
from alexnet_jax.training.schedule import fixed_drops
from alexnet_jax.training.state import select_learning
from alexnet_jax.training.step import Batch, cross_entropy, make_input

ISSUE = 'https://github.com/openxla/xla/issues/47945'


def size_report(config: Config, *, num_classes: int) -> tuple[dict[str, int], str]:
    """Counts parameters and arithmetic of the config's network, as {name: value} for JSON and as text."""
    rows = get_layer_sizes(make_variant(config), num_classes=num_classes)
    parameters, macs = sum(row.weights + row.biases for row in rows), sum(row.macs for row in rows)
    return {'devices': math.prod(config.mesh), 'parameters': parameters, 'macs': macs}, size_table(rows)


def schedule_report(run: Run) -> tuple[dict[str, Any], str]:
    """Reads what the run's training step sends, as {reading: its messages} for JSON and as text; computes nothing.

    Traces and compiles it, on the devices that are here. 'automatic' is the plain network left to the compiler's
    partitioner, with the same sharding of parameters.
    """
    traced = trace_step(run)
    readings = {
        'traced': traced_schedule(traced.jaxpr, run.mesh),
        'compiled': compiled_schedule(traced.lower().compile().as_text(), run.mesh),
        'automatic': _compile_automatic(run),
    }
    figures = {name: [dataclasses.asdict(message) for message in messages] for name, messages in readings.items()}
    return figures, schedule_table(run, **readings)


def trace_step(run: Run) -> jax.stages.Traced:
    """Traces the run's training step: .jaxpr is its program, .lower().compile() what devices run.

    At a constant rate, so that the program is the same whatever the dataset's size.
    """
    rate = fixed_drops(run.config.initial_learning_rate, factor=run.config.drop_factor, at_steps=())
    step = dataclasses.replace(run, schedule=rate, lr_multipliers=()).make_train_step()
    return step.trace(run.abstract_state(), _abstract_run_batch(run))


def _abstract_run_batch(run: Run) -> Batch:
    return abstract_batch(run.mesh, run.config.batch_size, crop_size=run.variant.input_size)


def abstract_batch(mesh: Mesh, batch_size: int, *, crop_size: int = CROP) -> Batch:
    """Returns the shapes of a global batch, placed on `mesh`."""
    sharding = shardings(mesh, batch_spec(mesh))

    def struct(*shape: int, dtype: Any) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    images = struct(batch_size, crop_size, crop_size, 3, dtype=jnp.uint8)
    lighting, places = (struct(batch_size, 3, dtype=dtype) for dtype in (jnp.float32, jnp.int32))
    return Batch(images, struct(batch_size, dtype=jnp.int32), lighting, places)


def exchange_bytes(
    variant: Variant, mesh: Mesh, *, batch_size: int, num_classes: int, itemsize: int = 4
) -> dict[str, int]:
    """Calculates what a device receives in the forward pass, {layer: bytes}, of `itemsize` bytes a number.

    Of two towers, the other's channels, where each exchange finds them, of this device's images. With one weird trick,
    from each of the other devices as much as it has of its own images: what fc6 and fc7 read, and fc8's products, which
    are summed in float32.
    """
    layers = get_layer_sizes(variant, num_classes=num_classes)
    before = {layer.name: math.prod(previous.output) for previous, layer in itertools.pairwise(layers)}
    rows = batch_size // math.prod(mesh.shape[axis] for axis in batch_axes(mesh))
    if TOWER in mesh.axis_names:
        return {layer: rows * before[layer] // 2 * itemsize for layer in variant.exchanges}
    sizes = {'fc6': before['fc6'] * itemsize, 'fc7': before['fc7'] * itemsize, 'fc8': num_classes * max(itemsize, 4)}
    return {layer: rows * size * (mesh.shape[MODEL] - 1) for layer, size in sizes.items()}


def gradient_bytes(mesh: Mesh, params: Any) -> dict[str, int]:
    """Calculates what averaging costs, {'data' or other axes: bytes received by a device}, in float32.

    Over the devices that have other images and a copy of the same parameters: twice all but one part of a ring's.
    """
    held: Counter[tuple[str, ...]] = Counter()
    for leaf in jax.tree.leaves(params):
        axes = tuple(a for a in batch_axes(mesh) if a not in leaf.sharding.spec and mesh.shape[a] > 1)
        held[axes] += 4 * math.prod(leaf.sharding.shard_shape(leaf.shape))
    counts = {axes: math.prod(mesh.shape[axis] for axis in axes) for axes in held}
    return {','.join(axes): round(2 * held[axes] * (n - 1) / n) for axes, n in counts.items() if n > 1}


def norm_bytes(mesh: Mesh, params: Any) -> dict[str, int]:
    """Calculates what sums of squares cost, {one of NORMS: bytes received by a device}, in float32.

    One for all gradients, or two for each array that devices along the second axis share, its own and its gradient's.
    """
    second = mesh.axis_names[1]
    shared = sum(second in leaf.sharding.spec for leaf in jax.tree.leaves(params))
    devices = mesh.shape[second]
    return {name: round(2 * 4 * n * (devices - 1) / devices) for name, n in zip(NORMS, (1, 2 * shared), strict=True)}


def _compile_automatic(run: Run) -> list[Message]:
    """Compiles loss and gradients of the one-device program as the partitioner shares it, by sharded parameters."""
    mesh, model = run.mesh, AlexNet(run.variant, run.num_classes, dtype=run.dtype)
    state = run.abstract_state()

    def loss(learning: Any, params: Any, batch: Batch, mean_image: jax.Array) -> jax.Array:
        stream = DropoutStream(jax.random.key(0), jnp.arange(batch.labels.shape[0]), jnp.arange(2))
        images = make_input(run.variant, batch, mean_image)
        return cross_entropy(model.apply({'params': params | learning}, images, stream), batch.labels).mean()

    learning = select_learning(state.params, run.config.frozen)
    placed = shardings(mesh, parameter_specs(mesh, learning))
    gradients = jax.jit(
        jax.value_and_grad(loss),
        out_shardings=(shardings(mesh, REPLICATED), placed),
        compiler_options=compiler_options(mesh),
    )
    compiled = gradients.lower(learning, state.params, _abstract_run_batch(run), state.mean_image).compile()
    return compiled_schedule(compiled.as_text(), mesh)


def size_table(rows: list[LayerSize]) -> str:
    """Formats the layers, their parameters and arithmetic."""
    lines = [f'{"layer":8}{"output":>14}{"weights":>14}{"biases":>9}{"MACs/image":>14}']
    lines += [
        f'{row.name:8}{"x".join(map(str, row.output)):>14}{row.weights:>14,}{row.biases:>9,}{row.macs:>14,}'
        for row in rows
    ]
    weights, biases = sum(row.weights for row in rows), sum(row.biases for row in rows)
    lines.append(f'{"total":8}{"":14}{weights:>14,}{biases:>9,}{sum(row.macs for row in rows):>14,}')
    return '\n'.join(lines) + f'\n{weights + biases:,} parameters'


def schedule_table(
    run: Run, *, traced: list[Message], compiled: list[Message], automatic: list[Message] | None = None
) -> str:
    """Formats the compiled step's messages beside the formulas, then a line for each other reading."""
    mesh, second = run.mesh, run.mesh.axis_names[1]
    itemsize = jnp.dtype(run.config.precision).itemsize
    part = run.config.batch_size // run.config.accumulate
    sizes = {'batch_size': part, 'num_classes': run.num_classes, 'itemsize': itemsize}
    exchanged = exchange_bytes(run.variant, mesh, **sizes)
    exchanges = expected_schedule(exchanged, mesh) if mesh.shape[second] > 1 else []
    formula = {(layer, direction, op): received for layer, direction, op, received in exchanges}
    learning = select_learning(run.abstract_state().params, run.config.frozen)
    averaged, norms = gradient_bytes(mesh, learning), norm_bytes(mesh, learning)
    width = max([8, *(len(message.layer) + 2 for message in compiled)])
    lines = [
        f'the training step on a {"x".join(map(str, mesh.devices.shape))} mesh (data x {second}), per device:',
        f'{"axis":12}{"at":{width}}{"direction":10}{"collective":16}{"received":>14}{"formula":>14}  shape',
    ]
    # One sum of all gradients stands beside its formula; of several none does, but all together.
    sums = Counter(m.axis for m in compiled if m.op == 'all-reduce' and m.layer not in NORMS)
    for message in compiled:
        layer = message.layer or 'all'
        expected = formula.get((message.layer, message.direction, message.op), norms.get(message.layer))
        if message.op == 'all-reduce' and message.direction == 'backward' and sums[message.axis] == 1:
            expected = averaged.get(message.axis)
        lines.append(
            f'{message.axis:12}{layer:{width}}{message.direction:10}{message.op:16}{message.bytes:>14,}'
            f'{"-" if expected is None else f"{expected:,}":>14}  {_describe_arrays(message)}'
        )
    for axes in dict.fromkeys([second, DATA, *(m.axis for m in compiled)]):
        own = [m for m in compiled if m.axis == axes]
        lines.append(f'total over {axes!r}: {len(own)} collectives, {sum(m.bytes for m in own):,} bytes received')
        if sums[axes] > 1 and axes in averaged:
            reduced = sum(m.bytes for m in own if m.op == 'all-reduce' and m.layer not in NORMS)
            lines[-1] += f'; all-reduces {reduced:,}, by the formula of all gradients {averaged[axes]:,}'
    lines += describe_reading('traced program', traced)
    if automatic is not None:
        lines += [*describe_reading('automatic partitioning', automatic), *compare(run.variant, compiled, automatic)]
    return '\n'.join(lines)


def describe_reading(name: str, messages: list[Message]) -> list[str]:
    """Formats how many messages a reading has and what a device receives: a line in all, and one for each axis."""
    lines = [f'{name}: {len(messages)} collectives, {sum(m.bytes for m in messages):,} bytes received']
    for axes in dict.fromkeys(m.axis for m in messages):
        own = [m for m in messages if m.axis == axes]
        where = Counter(f'{m.op} at {m.layer or "?"}' for m in own)
        text = ', '.join(f'{n} x {what}' for what, n in sorted(where.items()))
        lines.append(f'  over {axes!r}: {len(own)} collectives, {sum(m.bytes for m in own):,} bytes: {text}')
    return lines


def compare(variant: Variant, compiled: list[Message], automatic: list[Message]) -> list[str]:
    """Says how much more the automatic partitioning sends than the compiled step, and what is due to its groups.

    XLA's partitioner shares no convolution with groups: it gathers what such a convolution reads, all images too, and
    every device does the whole of it. None of that is a network's need, on any mesh.
    """
    ours, theirs = (sum(m.bytes for m in messages) for messages in (compiled, automatic))
    if not theirs:
        return []
    grouped = {conv.name for conv in variant.convs if conv.reads == 'tower' and variant.towers > 1}
    gathers = [m for m in automatic if m.op == 'all-gather' and m.layer in grouped]
    size = sum(m.bytes for m in gathers)
    lines = [f'shard_map receives {ours:,} bytes, automatic partitioning {theirs:,}: {theirs - ours:+,}']
    if gathers:
        layers = ', '.join(sorted({m.layer for m in gathers}))
        lines.append(
            f'  {size:,} bytes ({size / 1e6:.1f} MB) of the latter are {len(gathers)} all-gathers at the '
            f'grouped convolutions ({layers}), which XLA does not partition: {ISSUE}'
        )
    return lines


def _describe_arrays(message: Message) -> str:
    if message.shape and isinstance(message.shape[0], tuple):
        return f'{len(message.shape)} arrays of {message.dtype}'
    return f'{message.dtype}[{",".join(map(str, message.shape))}]'
