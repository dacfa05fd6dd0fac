"""The part of a report that says who talks to whom in a training step, read from the traced program."""

from __future__ import annotations

import math

import jax

from alexnet_jax.figures.album import Album
from alexnet_jax.figures.charts import tower_diagram
from alexnet_jax.figures.page import Html, element, figure, paragraph, table
from alexnet_jax.figures.runs import Run
from alexnet_jax.model.variants import layer_sizes
from alexnet_jax.parallel.mesh import MODEL, make_mesh
from alexnet_jax.parallel.schedule import Message, traced_schedule
from alexnet_jax.training.audit import Schedules, readings, trace_step
from alexnet_jax.training.config import MESHES, ONE_WEIRD_TRICK


def megabytes(count: int) -> str:
    """Bytes as '0.28 MB', with two digits that mean something."""
    return f'{count / 1e6:,.2f} MB' if count < 10e6 else f'{count / 1e6:,.1f} MB'


def schedule_of(run: Run) -> Schedules:
    """What the training step of a run sends on its own mesh, from the traced program: for CPUs, which say the same."""
    config = run.config
    shape = tuple(config.mesh or MESHES[config.parallelism])
    devices = jax.devices('cpu')[: math.prod(shape)]
    mesh = make_mesh(*shape, one_weird_trick=config.parallelism == ONE_WEIRD_TRICK, devices=devices)
    classes = len(run.network.classes)
    traced = trace_step(config, mesh, num_classes=classes)
    messages = traced_schedule(traced.jaxpr, mesh)
    return readings(config, mesh, num_classes=classes, traced=messages, compiled=[])


def exchanges(run: Run, album: Album) -> list[Html]:
    """The picture of the towers with what passes between them, and every message."""
    found = schedule_of(run)
    mesh, messages = found.mesh, found.traced
    axes = ' x '.join(f'{size} {axis}' for axis, size in mesh.shape.items())
    inside: list[Html] = []
    second = mesh.axis_names[1]
    crossing = [m for m in messages if m.axis == second and m.direction == 'forward']
    if run.has_towers and MODEL not in mesh.axis_names:
        sizes = layer_sizes(run.network.variant, num_classes=len(run.network.classes))
        labels = {message.layer: megabytes(message.bytes) for message in crossing}
        layers = [(size.name, size.output[-1]) for size in sizes]
        if crossing:
            caption = (
                'Red: what a device receives from the other tower’s device in one forward pass of '
                f'{run.config.batch_size} images. All other layers read their own tower alone.'
            )
        else:
            caption = 'Both towers are on one device here, which has all channels at hand.'
        picture = album.add(f'{run.name}_towers', tower_diagram(layers, labels))
        inside.append(figure(picture, caption, wide=True))
    if not messages:
        inside.append(paragraph('On one device nothing is sent.'))
        return inside
    total = sum(message.bytes for message in messages)
    inside.append(
        paragraph(
            f'On a mesh of {axes} a device receives {megabytes(total)} in a step, in {len(messages)} messages, and '
            'nothing else passes between devices. They are read from the program that JAX traced, not from what it is '
            'meant to be; ',
            element('code', 'python -m alexnet_jax.audit'),
            ' reads the compiled one too.',
        )
    )
    rows = [[m.layer or 'all layers', m.direction, m.op, m.axis, _shape(m), f'{m.bytes:,}'] for m in _merged(messages)]
    inside.append(table(['before', 'pass', 'operation', 'over', 'array', 'bytes received'], rows))
    return inside


def _merged(messages: list[Message]) -> list[Message]:
    """The messages, those of averaged gradients over one axis as one line."""
    sums = [m for m in messages if m.op == 'all-reduce' and m.direction == 'backward']
    kept = [m for m in messages if m not in sums]
    for axis in dict.fromkeys(m.axis for m in sums):
        own = [m for m in sums if m.axis == axis]
        shapes = tuple(m.shape for m in own)
        kept.append(Message('', own[0].op, axis, 'backward', shapes, own[0].dtype, sum(m.bytes for m in own)))  # type: ignore[arg-type]
    return kept


def _shape(message: Message) -> str:
    if message.shape and isinstance(message.shape[0], tuple):
        return f'{message.dtype}, {len(message.shape)} arrays'
    return f'{message.dtype} [{", ".join(map(str, message.shape))}]'
