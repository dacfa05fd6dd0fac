"""A batch in parts: what they are, what their gradients cost, and whom they tell. The numbers: test_step.py."""

import jax
import numpy as np
import pytest
from builders import run_with

from alexnet_jax.communication.audit import trace_step
from alexnet_jax.communication.messages import traced_schedule
from alexnet_jax.training.accumulation import join_kernels, split_batch, split_kernels

MESHES = [((1, 2), 'two_device'), ((2, 2), 'hybrid'), ((2, 2), 'one_weird_trick')]


def list_equations(jaxpr):
    """All equations of a traced program and of those inside it."""
    for equation in getattr(jaxpr, 'jaxpr', jaxpr).eqns:
        yield equation
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, 'eqns') or hasattr(x, 'jaxpr')):
            if hasattr(inner, 'eqns') or hasattr(inner, 'jaxpr'):
                yield from list_equations(inner)


def test_split_batch_gives_neighbours_in_order():
    batch = {'images': np.arange(24).reshape(12, 2), 'labels': np.arange(12), 'places': None}
    parts = list(split_batch(batch, 3))
    assert [part['labels'].tolist() for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert parts[1]['images'].tolist() == [[8, 9], [10, 11], [12, 13], [14, 15]] and parts[2]['places'] is None
    assert next(split_batch(batch, 1)) is batch


def test_join_kernels_undoes_split_kernels():
    layers = {layer: {'kernel': f'{layer} kernel', 'bias': f'{layer} bias'} for layer in ('conv1', 'fc6', 'fc8')}
    kernels, others = split_kernels(layers, ('fc6', 'fc8'))
    assert kernels == {'fc6': {'kernel': 'fc6 kernel'}, 'fc8': {'kernel': 'fc8 kernel'}}
    assert others['fc6'] == {'bias': 'fc6 bias'} and others['conv1'] == layers['conv1']
    assert join_kernels(kernels, others) == layers


@pytest.mark.parametrize('frozen', [(), ('conv1', 'fc7')], ids=['all learn', 'two frozen'])
def test_step_in_parts_computes_a_dense_kernels_gradient_once_and_a_convolutions_for_each_part(frozen):
    run = run_with(variant='released', width=0.5, accumulate=4, frozen=frozen)  # 24 maps of conv1 a tower: one kernel
    shapes = {layer: leaves['kernel'].shape for layer, leaves in run.abstract_state().params.items()}
    halves = {layer: (*shape[:-1], shape[-1] // 2) if layer != 'fc8' else shape for layer, shape in shapes.items()}
    found = [
        equation.outvars[0].aval.shape
        for equation in list_equations(trace_step(run).jaxpr)
        if equation.primitive.name in ('dot_general', 'conv_general_dilated')
    ]
    for layer in ('fc6', 'fc7', 'fc8'):
        assert found.count(halves[layer]) == (layer not in frozen), layer
    # Convolutions write a kernel's gradient in another order of axes.
    of_conv1 = [shape for shape in found if sorted(shape) == sorted(halves['conv1'])]
    assert len(of_conv1) == (0 if frozen else 4)


@pytest.mark.parametrize(('mesh', 'parallelism'), MESHES, ids=[name for _, name in MESHES])
def test_step_in_parts_says_what_the_whole_one_does_in_as_many_messages_each_and_averages_once(mesh, parallelism):
    """So an exchange's bytes are the same in all, and gradients are summed over the replicas once."""
    options = {'variant': 'released', 'width': 0.0625, 'mesh': mesh, 'parallelism': parallelism}
    whole, parts = (
        traced_schedule(trace_step(run).jaxpr, run.mesh)
        for run in (run_with(**options), run_with(**options, accumulate=2))
    )

    def count(messages):
        """{(layer, direction, op, axis): (messages, bytes)} of all that concerns more than a loss's two numbers."""
        found = {}
        for m in messages:
            if m.shape != (2,):
                number, size = found.get((m.layer, m.direction, m.op, m.axis), (0, 0))
                found[m.layer, m.direction, m.op, m.axis] = number + 1, size + m.bytes
        return found

    once, twice = count(whole), count(parts)
    assert once and set(once) == set(twice)
    for where, (number, size) in once.items():
        exchange = where[2] != 'all-reduce'
        assert twice[where] == (number * (2 if exchange else 1), size), where
