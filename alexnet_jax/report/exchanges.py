"""Gathers the section on what devices send one another in a training step, read from the traced program."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax
from jax.sharding import Mesh

from alexnet_jax.communication.audit import trace_step
from alexnet_jax.communication.messages import Message, traced_schedule
from alexnet_jax.report.charts import draw_towers
from alexnet_jax.report.figure_collection import FigureCollection
from alexnet_jax.report.page import Section, format_megabytes
from alexnet_jax.report.run_folder import RunFolder
from alexnet_jax.sharding.mesh import MODEL, make_mesh
from alexnet_jax.training.build import build_run
from alexnet_jax.training.config import ONE_WEIRD_TRICK


def read_run_schedule(run: RunFolder) -> tuple[Mesh, list[Message]]:
    """Reads a run's mesh and what its step sends there, from the program traced for CPUs: it sends the same."""
    config, classes = run.config, len(run.network.classes)
    devices = jax.devices('cpu')[: math.prod(config.mesh)]
    mesh = make_mesh(*config.mesh, one_weird_trick=config.parallelism == ONE_WEIRD_TRICK, devices=devices)
    built = build_run(config, num_classes=classes, examples=1, mesh=mesh)  # no data is read
    return mesh, traced_schedule(trace_step(built).jaxpr, mesh)


def make_exchanges_section(run: RunFolder, figures: FigureCollection) -> Section:
    """Gathers the diagram of the towers with the bytes between them, and every message."""
    mesh, messages = read_run_schedule(run)
    forward = [m for m in messages if m.axis == mesh.axis_names[1] and m.direction == 'forward']
    towers = None
    if run.has_towers and MODEL not in mesh.axis_names:
        labels = {message.layer: format_megabytes(message.bytes) for message in forward}
        chart = draw_towers([(size.name, size.output[-1]) for size in run.layer_sizes], labels)
        towers = figures.add(f'{run.name}_towers', chart)
    lines = [
        [m.layer or 'all layers', m.direction, m.op, m.axis, _format_shape(m), f'{m.bytes:,}']
        for m in _merge_gradients(messages)
    ]
    axes = ' x '.join(f'{size} {axis}' for axis, size in mesh.shape.items())
    data = {'towers': towers, 'crossing': bool(forward), 'messages': messages, 'lines': lines, 'mesh': axes}
    return Section('exchanges', data, run)


def _merge_gradients(messages: Sequence[Message]) -> list[Message]:
    """Merges the messages that average gradients over one axis into one, after all others."""
    sums = [m for m in messages if m.op == 'all-reduce' and m.direction == 'backward']
    merged = [m for m in messages if m not in sums]
    for axis in dict.fromkeys(m.axis for m in sums):
        own = [m for m in sums if m.axis == axis]
        shapes = tuple(m.shape for m in own)
        total = sum(m.bytes for m in own)
        merged.append(dataclasses.replace(own[0], layer='', shape=shapes, bytes=total))  # type: ignore[arg-type]
    return merged


def _format_shape(message: Message) -> str:
    if message.shape and isinstance(message.shape[0], tuple):
        return f'{message.dtype}, {len(message.shape)} arrays'
    return f'{message.dtype} [{", ".join(map(str, message.shape))}]'
