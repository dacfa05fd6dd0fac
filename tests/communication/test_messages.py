"""The communication schedule of the real step, by two readings; each must catch a network that talks once more."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from alexnet_jax.communication import messages as schedule
from alexnet_jax.communication.audit import abstract_batch, exchange_bytes
from alexnet_jax.communication.messages import compiled_schedule, expected_schedule, traced_schedule
from alexnet_jax.model.alexnet import AlexNet
from alexnet_jax.model.zoo import PAPER
from alexnet_jax.sharding.mesh import MODEL, TOWER, batch_spec, make_mesh
from alexnet_jax.training import step as step_module
from alexnet_jax.training.optimizer import paper_sgd
from alexnet_jax.training.schedule import fixed_drops
from alexnet_jax.training.state import abstract_state

NARROW, ROWS, CLASSES = PAPER.scaled(0.0625), 8, 10
# Widths 6, 16, 24, 24, 16 and 256, 256; half of the channels that each exchange finds, times 4 bytes.
PER_IMAGE = {'conv3': 13 * 13 * 8 * 4, 'fc6': 6 * 6 * 8 * 4, 'fc7': 128 * 4, 'fc8': 128 * 4}


def readings(mesh, **options):
    """(traced, compiled) messages of the whole training step."""
    optimizer = paper_sgd(momentum=0.9, weight_decay=5e-4, bias_rate=1.0)
    step = step_module.make_train_step(
        NARROW, optimizer, fixed_drops(0.01, factor=0.1, at_steps=()), mesh, num_classes=CLASSES, seed=0, **options
    )
    traced = step.trace(abstract_state(NARROW, optimizer, mesh, num_classes=CLASSES), abstract_batch(mesh, ROWS))
    return traced_schedule(traced.jaxpr, mesh), compiled_schedule(traced.lower().compile().as_text(), mesh)


def over(axis, messages):
    return [(m.layer, m.direction, m.op, m.bytes) for m in messages if axis in m.axis]


def over_tower(messages):
    return over(TOWER, messages)


def design(rows):
    return expected_schedule({layer: rows * size for layer, size in PER_IMAGE.items()}, make_mesh(1, 2))


@pytest.mark.parametrize('shape', [(1, 2), (2, 2)], ids=['1x2', '2x2'])
def test_the_towers_talk_at_the_four_exchanges_and_nowhere_else(shape):
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


@pytest.mark.parametrize('shape', [(1, 2), (2, 2), (1, 4)], ids=lambda shape: f'{shape[0]}x{shape[1]}')
def test_one_weird_trick_talks_at_the_fully_connected_layers_and_about_gradients(shape):
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
    sizes = {layer: sum(leaf.size for leaf in leaves.values()) for layer, leaves in abstract_parameters().items()}
    everywhere = sum(n for layer, n in sizes.items() if layer.startswith('conv')) + CLASSES
    split = (sum(sizes.values()) - everywhere) // model
    reduced = [m for m in compiled if m.op == 'all-reduce']
    assert len(reduced) + len(expected) == len(compiled)
    received = {axis: sum(m.bytes for m in reduced if m.axis == axis) for axis in {m.axis for m in reduced}}
    devices = replicas * model
    across = 'data,model' if replicas > 1 else 'model'
    assert received[across] == pytest.approx(2 * 4 * everywhere * (devices - 1) / devices, abs=32)
    assert received.get('data', 0) == pytest.approx(2 * 4 * split * (replicas - 1) / replicas, abs=32)


def test_clipping_by_norm_is_one_more_word_of_four_bytes():
    mesh = make_mesh(1, 2)
    traced, compiled = readings(mesh, clip_norm=1.0)
    for found in (over_tower(traced), over_tower(compiled)):
        (more,) = [message for message in found if message not in design(ROWS)]
        assert more[2] == 'all-reduce'
        assert more[3] in (4, 8)  # received, of two devices
        assert len(found) == len(design(ROWS)) + 1


def test_one_device_says_nothing():
    assert readings(make_mesh(1, 1)) == ([], [])


def test_data_parallel_replicas_average_every_gradient_once():
    _, compiled = readings(make_mesh(2, 1))
    assert {(m.axis, m.op) for m in compiled} == {('data', 'all-reduce')}
    averaged = sum(m.bytes for m in compiled) // 2 * 2  # an all-reduce of two devices receives half, twice
    sizes = [leaf.size for leaf in jax.tree.leaves(abstract_parameters())]
    assert 0 <= averaged - 4 * sum(sizes) <= 8  # and the loss and the error


def abstract_parameters():
    from alexnet_jax.model.alexnet import get_parameter_shapes

    return get_parameter_shapes(NARROW, num_classes=CLASSES)


class Talkative(AlexNet):
    """Talks one time more: adds nothing to conv5's input, but asks the other tower what nothing is."""

    def _convolve(self, conv, x):
        if conv.name == 'conv5':
            x = x + 1e-30 * lax.psum(x.mean(), TOWER)
        return super()._convolve(conv, x)


def test_both_readings_catch_a_network_that_talks_one_time_more(monkeypatch):
    monkeypatch.setattr(step_module, 'AlexNet', Talkative)
    mesh = make_mesh(2, 2)
    traced, compiled = readings(mesh)
    expected = design(ROWS // 2)
    assert over_tower(traced) != expected
    assert sorted(over_tower(compiled)) != sorted(expected)
    extra = {(m.layer, m.op) for m in traced if TOWER in m.axis} - {(layer, op) for layer, _, op, _ in expected}
    assert extra == {('conv5', 'all-reduce')} or extra == {('', 'all-reduce')}


def test_the_compiled_reading_alone_catches_what_only_the_compiler_adds():
    """Left to the partitioner the traced program is silent and the compiled one is not."""
    mesh = make_mesh(1, 2)
    state = abstract_state(NARROW, paper_sgd(momentum=0.9, weight_decay=0.0, bias_rate=1.0), mesh, num_classes=CLASSES)
    images = jax.ShapeDtypeStruct((4, 224, 224, 3), jnp.float32)

    def forward(params, images):
        return AlexNet(NARROW, CLASSES).apply({'params': params}, images)

    traced = jax.jit(forward).trace(state.params, images)
    assert traced_schedule(traced.jaxpr, mesh) == []
    assert len(over_tower(compiled_schedule(traced.lower().compile().as_text(), mesh))) > 4


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
def test_every_notation_of_groups_is_read(groups, axis):
    (message,) = compiled_schedule(HEADER + groups, make_mesh(2, 2))
    assert message.axis == axis


def test_groups_of_one_device_are_silence_and_unknown_notations_are_refused():
    mesh = make_mesh(2, 2)
    assert compiled_schedule(HEADER + 'replica_groups={{0},{1},{2},{3}}', mesh) == []
    with pytest.raises(ValueError, match='no replica groups'):
        compiled_schedule(HEADER + 'replica_groups=<new>', mesh)


def test_a_primitive_that_it_does_not_know_is_refused(monkeypatch):
    mesh = make_mesh(1, 2)
    gather = jax.shard_map(
        lambda x: lax.all_gather(x, TOWER, to='varying'),
        mesh=mesh,
        in_specs=batch_spec(mesh),
        out_specs=jax.P(('data', TOWER)),
    )
    jaxpr = jax.jit(gather).trace(jax.ShapeDtypeStruct((2,), jnp.float32)).jaxpr
    assert [m.op for m in traced_schedule(jaxpr, mesh)] == ['all-gather']
    monkeypatch.delitem(schedule._PRIMITIVES, 'all_gather')
    with pytest.raises(ValueError, match='is not known to the schedule'):
        traced_schedule(jaxpr, mesh)
