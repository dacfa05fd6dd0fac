"""The communication schedule of the real step, by two readings; each must catch a network that talks once more."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from talkative import Talkative

from alexnet_jax.communication import messages
from alexnet_jax.communication.audit import abstract_batch, exchange_bytes
from alexnet_jax.communication.messages import compiled_schedule, expected_schedule, traced_schedule
from alexnet_jax.model.alexnet import get_parameter_shapes
from alexnet_jax.model.zoo import PAPER
from alexnet_jax.sharding.mesh import MODEL, TOWER, batch_spec, make_mesh, shardings
from alexnet_jax.training import step as step_module
from alexnet_jax.training.optimizer import lars, make_norms, paper_sgd
from alexnet_jax.training.schedule import fixed_drops
from alexnet_jax.training.state import abstract_state

NARROW, ROWS, CLASSES = PAPER.scaled(0.0625), 8, 10
# Widths 6, 16, 24, 24, 16 and 256, 256; half of the channels that each exchange finds, times 4 bytes.
PER_IMAGE = {'conv3': 13 * 13 * 8 * 4, 'fc6': 6 * 6 * 8 * 4, 'fc7': 128 * 4, 'fc8': 128 * 4}


def readings(mesh, *, optimizer=None, **options):
    """(traced, compiled) messages of the whole training step."""
    optimizer = optimizer or paper_sgd(momentum=0.9, weight_decay=5e-4, bias_rate=1.0)
    step = step_module.make_train_step(
        NARROW, optimizer, fixed_drops(0.01, factor=0.1, at_steps=()), mesh, num_classes=CLASSES, seed=0, **options
    )
    traced = step.trace(abstract_state(NARROW, optimizer, mesh, num_classes=CLASSES), abstract_batch(mesh, ROWS))
    return traced_schedule(traced.jaxpr, mesh), compiled_schedule(traced.lower().compile().as_text(), mesh)


def count_parameters():
    shapes = get_parameter_shapes(NARROW, num_classes=CLASSES)
    return {layer: sum(leaf.size for leaf in leaves.values()) for layer, leaves in shapes.items()}


def over(axis, messages):
    return [(m.layer, m.direction, m.op, m.bytes) for m in messages if axis in m.axis]


def over_tower(messages):
    return over(TOWER, messages)


def design(rows):
    return expected_schedule({layer: rows * size for layer, size in PER_IMAGE.items()}, make_mesh(1, 2))


# The audit command's test has the same words on 2x2.
@pytest.mark.parametrize('shape', [(1, 2), pytest.param((2, 2), marks=pytest.mark.repeats)], ids=['1x2', '2x2'])
def test_schedules_have_the_four_exchanges_between_towers_and_no_more(shape):
    mesh = make_mesh(*shape)
    traced, compiled = readings(mesh)
    expected = design(ROWS // shape[0])
    assert [entry[:3] for entry in expected] == [
        ('conv3', 'forward', 'all-gather'),
        ('fc6', 'forward', 'all-gather'),
        ('fc7', 'forward', 'all-gather'),
        ('fc8', 'forward', 'all-gather'),
        ('fc7', 'backward', 'reduce-scatter'),
        ('fc6', 'backward', 'reduce-scatter'),
        ('conv3', 'backward', 'reduce-scatter'),
    ]
    assert over_tower(traced) == expected  # in this order
    assert sorted(over_tower(compiled)) == sorted(expected)
    others = [m for m in compiled if TOWER not in m.axis]
    assert {(m.axis, m.op) for m in others} == ({('data', 'all-reduce')} if shape[0] > 1 else set())


@pytest.mark.parametrize(
    'shape',
    [(2, 4), *(pytest.param(shape, marks=pytest.mark.repeats) for shape in [(1, 2), (2, 2), (1, 4)])],
    ids=lambda shape: f'{shape[0]}x{shape[1]}',
)
def test_schedules_of_one_weird_trick_have_the_fully_connected_layers_and_gradients(shape):
    """By hand: what a device of r x m receives of the others' images, of their units, of their products."""
    replicas, model = shape
    own = ROWS // (replicas * model)
    fc6, fc7, fc8 = (own * units * 4 * (model - 1) for units in (6 * 6 * 16, 256, CLASSES))
    expected = [
        ('fc6', 'forward', 'all-gather', fc6),
        ('fc7', 'forward', 'all-gather', fc7),
        ('fc8', 'forward', 'reduce-scatter', fc8),
        ('fc8', 'backward', 'all-gather', fc8),
        ('fc7', 'backward', 'reduce-scatter', fc7),
        ('fc6', 'backward', 'reduce-scatter', fc6),
    ]
    mesh = make_mesh(*shape, one_weird_trick=True)
    assert expected_schedule({'fc6': fc6, 'fc7': fc7, 'fc8': fc8}, mesh) == expected
    traced, compiled = readings(mesh)
    for found in (traced, compiled):
        exchanges = [m for m in found if m.axis == MODEL and m.op != 'all-reduce']
        assert sorted(over(MODEL, exchanges)) == sorted(expected)
    # All else averages gradients: of the convolutions and fc8's bias over all devices, of the rest over 'data'.
    sizes = count_parameters()
    everywhere = sum(n for layer, n in sizes.items() if layer.startswith('conv')) + CLASSES
    split = (sum(sizes.values()) - everywhere) // model
    reduced = [m for m in compiled if m.op == 'all-reduce']
    assert len(reduced) + len(expected) == len(compiled)
    received = {axis: sum(m.bytes for m in reduced if m.axis == axis) for axis in {m.axis for m in reduced}}
    devices = replicas * model
    across = 'data,model' if replicas > 1 else 'model'
    assert received[across] == pytest.approx(2 * 4 * everywhere * (devices - 1) / devices, abs=32)
    assert received.get('data', 0) == pytest.approx(2 * 4 * split * (replicas - 1) / replicas, abs=32)


def test_schedules_have_one_more_word_of_four_bytes_with_clipping_by_norm():
    mesh = make_mesh(1, 2)
    traced, compiled = readings(mesh, clip_norm=1.0)
    for found in (over_tower(traced), over_tower(compiled)):
        (more,) = [message for message in found if message not in design(ROWS)]
        assert more[2] == 'all-reduce'
        assert more[3] in (4, 8)  # received, of two devices
        assert len(found) == len(design(ROWS)) + 1


@pytest.mark.parametrize(('shape', 'trick'), [((1, 2), False), pytest.param((2, 2), True, marks=pytest.mark.repeats)])
def test_schedules_have_one_more_message_with_lars_of_two_numbers_for_each_array_that_is_shared(shape, trick):
    """Two towers share all arrays but fc8's two; one weird trick shares those of fc6 and fc7, and fc8's kernel."""
    mesh = make_mesh(*shape, one_weird_trick=trick)
    rule = lars(trust_coefficient=0.001, momentum=0.9, weight_decay=5e-4, norms=make_norms(mesh))
    expected = [('lars', 'forward', 'all-reduce', 2 * 4 * (5 if trick else 14))]  # received, of two devices: all
    plain = readings(mesh)
    for found, without in zip(readings(mesh, optimizer=rule), plain, strict=True):
        rest = [message for message in found if message.layer != 'lars']
        assert over(mesh.axis_names[1], [m for m in found if m.layer == 'lars']) == expected
        assert sorted(map(repr, rest)) == sorted(map(repr, without))


def test_schedules_of_one_device_are_empty():
    assert readings(make_mesh(1, 1)) == ([], [])


@pytest.mark.repeats  # the audit command's test has a mean over replicas, too
def test_compiled_schedule_of_replicas_averages_every_gradient_once():
    _, compiled = readings(make_mesh(2, 1))
    assert {(m.axis, m.op) for m in compiled} == {('data', 'all-reduce')}
    averaged = sum(m.bytes for m in compiled) // 2 * 2  # an all-reduce of two devices receives half, twice
    assert 0 <= averaged - 4 * sum(count_parameters().values()) <= 8  # and the loss and the error


def test_both_schedules_catch_a_network_that_talks_one_time_more(monkeypatch):
    monkeypatch.setattr(step_module, 'AlexNet', Talkative)
    traced, compiled = readings(make_mesh(1, 2))
    expected = design(ROWS)
    assert over_tower(traced) != expected
    assert sorted(over_tower(compiled)) != sorted(expected)
    extra = {(m.layer, m.op) for m in traced if TOWER in m.axis} - {(layer, op) for layer, _, op, _ in expected}
    assert extra == {('conv5', 'all-reduce')} or extra == {('', 'all-reduce')}


def test_compiled_schedule_alone_catches_what_only_the_compiler_adds():
    """Left to the partitioner the traced program is silent and the compiled one is not."""
    mesh = make_mesh(1, 2)
    kernel = jax.ShapeDtypeStruct((8, 8), jnp.float32, sharding=shardings(mesh, jax.P(None, TOWER)))
    traced = jax.jit(lambda x, kernel: jnp.tanh(x @ kernel) @ kernel).trace(jnp.zeros((4, 8)), kernel)
    assert traced_schedule(traced.jaxpr, mesh) == []
    assert compiled_schedule(traced.lower().compile().as_text(), mesh)


def test_exchange_bytes_at_full_size_are_those_of_the_notes():
    """Received per device at batch 128 in float32: 11.08, 2.36, 1.05 and 1.05 MB."""
    assert exchange_bytes(PAPER, make_mesh(1, 2), batch_size=128, num_classes=1000) == {
        'conv3': 128 * 13 * 13 * 128 * 4,
        'fc6': 128 * 6 * 6 * 128 * 4,
        'fc7': 128 * 2048 * 4,
        'fc8': 128 * 2048 * 4,
    }


HEADER = '%x = f32[8,4]{1,0} all-gather(%y), channel_id=1, '


@pytest.mark.parametrize(
    ('groups', 'axis'),
    [
        ('replica_groups={{0,1},{2,3}}, dimensions={1}', 'tower'),
        ('replica_groups={{0,2},{1,3}}, dimensions={1}', 'data'),
        ('replica_groups={{0,1,2,3}}, dimensions={1}', 'data,tower'),
        ('replica_groups=[2,2]<=[4], dimensions={1}', 'tower'),
        ('replica_groups=[2,2]<=[2,2]T(1,0), dimensions={1}', 'data'),
        ("replica_groups=mesh['a'=2,'b'=2] {'b'}, dimensions={1}", 'tower'),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}, dimensions={1}", 'data'),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}, dimensions={1}", 'data'),
        ('replica_groups={}, dimensions={1}', 'data,tower'),
    ],
)
def test_compiled_schedule_reads_every_notation_of_groups(groups, axis):
    (message,) = compiled_schedule(HEADER + groups, make_mesh(2, 2))
    assert message.axis == axis


def test_compiled_schedule_skips_groups_of_one_device_and_refuses_unknown_notations():
    mesh = make_mesh(2, 2)
    assert compiled_schedule(HEADER + 'replica_groups={{0},{1},{2},{3}}', mesh) == []
    with pytest.raises(ValueError, match='no replica groups'):
        compiled_schedule(HEADER + 'replica_groups=<new>', mesh)


def test_traced_schedule_refuses_an_unknown_primitive(monkeypatch):
    mesh = make_mesh(1, 2)
    gather = jax.shard_map(
        lambda x: lax.all_gather(x, TOWER, to='varying'),
        mesh=mesh,
        in_specs=batch_spec(mesh),
        out_specs=jax.P(('data', TOWER)),
    )
    jaxpr = jax.jit(gather).trace(jax.ShapeDtypeStruct((2,), jnp.float32)).jaxpr
    assert [m.op for m in traced_schedule(jaxpr, mesh)] == ['all-gather']
    monkeypatch.delitem(messages._PRIMITIVES, 'all_gather')
    with pytest.raises(ValueError, match='is not known to the schedule'):
        traced_schedule(jaxpr, mesh)
