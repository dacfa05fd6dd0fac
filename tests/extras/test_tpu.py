"""The real training step, compiled for TPU slices that are not here: it compiles, and its text shows the schedule.

Needs the extra `tpu`; 90 s, most of them in the compiler. The widths are a sixteenth of the paper's.
"""

import dataclasses
import json
import math

import jax
import pytest
from extras.conftest import extra
from talkative import Talkative

from alexnet_jax.communication import audit, cost_model, scaling
from alexnet_jax.communication.messages import Message, expected_schedule
from alexnet_jax.communication.topology import count_links, make_topology_devices, parse_topology
from alexnet_jax.errors import InputError
from alexnet_jax.sharding.mesh import TOWER, make_mesh
from alexnet_jax.training import step as step_module
from alexnet_jax.training.config import make_config
from alexnet_jax.training.validation import validate_config

extra('libtpu')
# Programs for absent chips cannot be read from the cache of programs that other tests of this process set up.
pytestmark = pytest.mark.filterwarnings('ignore:Error reading persistent compilation cache entry')


@pytest.fixture(autouse=True)
def cache_as_it_was():
    kept = jax.config.jax_enable_compilation_cache
    yield
    jax.config.update('jax_enable_compilation_cache', kept)


CLASSES = 10
IMAGES = 8  # of each replica
# Held by each of two devices, from the widths 6, 16, 24, 24, 16 and 256, 256: kernels (what a tower reads) and biases.
HELD = (
    (11 * 11 * 3 + 1) * 3
    + (5 * 5 * 3 + 1) * 8
    + (3 * 3 * 16 + 1) * 12
    + (3 * 3 * 12 + 1) * 12
    + (3 * 3 * 12 + 1) * 8
    + (6 * 6 * 16 + 1) * 128
    + (256 + 1) * 128
    + (256 + 1) * CLASSES
)


def config_of(parallelism, mesh, **options):
    config = make_config('imagenet2012', parallelism=parallelism, mesh=mesh)
    config.update(width=0.0625, batch_size=IMAGES * mesh[0], **options)
    return validate_config(config)


def compiled(config, topology):
    """(messages, cost, mesh) of the config's step on `topology`."""
    run = cost_model.build_topology_run(config, topology, num_classes=CLASSES)
    return *cost_model.compile_for(audit.trace_step(run).lower(), run.mesh), run.mesh


def over_tower(messages):
    """{(layer, direction): bytes received} of what is said between towers."""
    found = {}
    for message in messages:
        if TOWER in message.axis:
            key = (message.layer, message.direction)
            found[key] = found.get(key, 0) + message.bytes
    return found


def design(mesh):
    exchanged = {
        layer: IMAGES * units * 4
        for layer, units in {'conv3': 13 * 13 * 8, 'fc6': 6 * 6 * 8, 'fc7': 128, 'fc8': 128}.items()
    }
    return {(layer, direction): size for layer, direction, _, size in expected_schedule(exchanged, mesh)}


def check_towers(messages, mesh):
    """Exchanges where the design has them and nowhere else, and of what sizes."""
    expected, found = design(mesh), over_tower(messages)
    assert found.keys() == expected.keys()
    for (layer, direction), size in found.items():
        if direction == 'forward':  # the layer behind multiplies in bfloat16, so the compiler sends just that
            assert size == expected[layer, direction] // 2
        else:  # float32; as a scatter, perhaps with a tile of padding, or a small one as a sum of twice the size
            assert size in (expected[layer, direction], 2 * expected[layer, direction]) or (
                layer == 'conv3' and expected[layer, direction] < size < 1.05 * expected[layer, direction]
            )
    ops = {(m.direction, m.op) for m in messages if TOWER in m.axis}
    backward = ops - {('forward', 'all-gather')}
    assert backward < ops
    assert backward <= {('backward', op) for op in ('reduce-scatter', 'all-reduce', 'collective-permute')}


def test_two_device_on_a_2x2_slice_talks_at_the_four_exchanges_and_nowhere_else():
    messages, cost, mesh = compiled(config_of('two_device', (1, 2)), 'v5e:2x2')
    check_towers(messages, mesh)
    assert {m.axis for m in messages} == {TOWER}
    # At least the state and the batch, at most a chip; multiplying and adding for all three products of each layer.
    assert 2 * 4 * HELD < cost.arguments < cost.memory < 16e9
    assert cost.traffic > 2 * 4 * HELD  # parameters and momenta are read and written
    assert cost.operations > 0


def test_hybrid_on_256_chips_exchanges_in_pairs_and_averages_over_all_pairs():
    messages, _, mesh = compiled(config_of('hybrid', (128, 2)), 'v5e:16x16')
    check_towers(messages, mesh)
    others = [m for m in messages if TOWER not in m.axis]
    assert {(m.axis, m.op) for m in others} == {('data', 'all-reduce')}
    averaged = sum(m.bytes for m in others)
    # Every gradient once, and the loss and the error: twice 127/128 of them.
    assert averaged == pytest.approx(2 * 4 * (HELD + 2) * 127 / 128, abs=8)
    for a, b in mesh.devices:
        assert sum(abs(p - q) for p, q in zip(a.coords, b.coords, strict=True)) == 1  # the two towers are neighbours
    predicted = cost_model.predict(cost_model.Cost(1.0, 1, 0, 0, 0), messages, mesh, 'v5e:16x16')
    tower = sum(m.bytes for m in messages if m.axis == TOWER)
    # One link to the other tower. To the other replicas two along one ring, and half of two along the towers' ring.
    assert predicted.link_bytes == {'tower': tower, 'data': pytest.approx(averaged / 3)}


def test_compile_for_catches_a_network_that_talks_one_time_more(monkeypatch):
    monkeypatch.setattr(step_module, 'AlexNet', Talkative)
    messages, _, mesh = compiled(config_of('two_device', (1, 2)), 'v5e:2x2')
    with pytest.raises(AssertionError):
        check_towers(messages, mesh)
    more = over_tower(messages).keys() - design(mesh).keys()
    assert more == {('', 'forward'), ('', 'backward')}  # of no exchange


@pytest.mark.parametrize('topology', ['v4:2x2x1', 'v5e:1x1', 'v5e:1x2', 'v5e:2x4', 'v5p:2x2x2', 'v6e:4x4'])
def test_make_topology_devices_has_one_for_each_chip(topology):
    devices, chips = make_topology_devices(topology), math.prod(parse_topology(topology))
    assert len({tuple(device.coords) for device in devices}) == len(devices) == chips
    assert {device.platform for device in devices} == {'tpu'}


def test_make_topology_devices_and_make_mesh_refuse_in_one_line():
    with pytest.raises(InputError, match=r'a mesh of 4x2 .* needs 8 devices, but 4 TPU device'):
        make_mesh(4, 2, devices=make_topology_devices('v5e:2x2'))
    with pytest.raises(
        InputError, match=r'^--topology=v5e:3x3 cannot be compiled for: .*; use one like v5e:1x1'
    ) as found:
        make_topology_devices('v5e:3x3')
    assert '\n' not in found.value.args[0]


def test_count_links_of_one_weird_trick_on_blocks_of_chips():
    mesh = make_mesh(64, 4, one_weird_trick=True, devices=make_topology_devices('v5e:16x16'))
    assert count_links(mesh, ('model',), 'v5e:16x16') == 2  # a host's 2x2


def test_report_prediction_has_both_readings_the_chip_and_the_prediction(monkeypatch):
    """The compiler replaced again."""
    mean = Message('', 'all-reduce', 'data', 'backward', (HELD,), 'float32', 50_000_000)
    monkeypatch.setattr(cost_model, 'compile_for', lambda *_: ([mean], cost_model.Cost(197e9, 819_000, 1, 2, 3)))
    figures, text = cost_model.report_prediction(config_of('hybrid', (2, 2)), 'v5e:2x2', num_classes=CLASSES)
    assert json.loads(json.dumps(figures))['compiled'][0]['bytes'] == 50_000_000
    towers = [(m['layer'], m['direction']) for m in figures['traced'] if m['axis'] == TOWER]
    assert towers == list(design(make_mesh(2, 2)))
    assert figures['chip']['flops'] == 197e12
    assert figures['prediction']['step'] == pytest.approx(2e-3)
    assert f'50,000,000{2 * 4 * HELD // 2:>14,}' in text  # what it receives, beside the formula
    assert 'automatic' not in figures and 'automatic' not in text
    assert 'predicted step: 2.000 ms' in text


def test_report_scaling_compiles_each_program_once(tmp_path, monkeypatch, capsys):
    """The compiler replaced, since it has its tests above; all before it is real."""
    said, asked = [Message('conv3', 'all-gather', 'tower', 'forward', (2, 4), 'float32', 50_000_000)], []

    def compile_for(lowered, mesh):
        asked.append(mesh.devices.size)
        if mesh.devices.size == 1:
            raise cost_model.TooLargeError('no')
        return said, cost_model.Cost(197e9, 819_000, 1, 2, 3)

    monkeypatch.setattr(cost_model, 'compile_for', compile_for)
    options = {'num_classes': CLASSES, 'output': str(tmp_path / 'rows.json')}
    config = config_of('hybrid', (2, 2))
    figures, text = scaling.report_scaling(config, 'v5e', ['1', '2', '4'], scaling='weak', **options)
    assert asked == [1, 2, 4]
    assert capsys.readouterr().err.splitlines()[2] == 'compiling for v5e:2x2, mesh 2x2, 64 images ...'
    rows = figures['rows']
    assert [(row['mesh'], row['batch_size']) for row in rows] == [([1, 1], 16), ([1, 2], 32), ([2, 2], 64)]
    assert 'prediction' not in rows[0] and 'does not fit' in text
    assert rows[1]['prediction']['step'] == pytest.approx(2e-3)  # 1 ms of arithmetic, 50 MB over one link
    assert rows[2]['images_per_second'] == pytest.approx(64 / 2e-3)
    again, _ = scaling.report_scaling(config, 'v5e', ['1', '2', '4'], scaling='weak', **options)
    assert json.dumps(again) == json.dumps(figures)
    assert asked == [1, 2, 4]  # all were there
    strong, _ = scaling.report_scaling(config, 'v5e', ['4', '2'], scaling='strong', **options)
    assert [row['batch_size'] for row in strong['rows']] == [16, 16]
    assert asked == [1, 2, 4, 2, 4]
    narrow = dataclasses.replace(config, precision='bfloat16')
    scaling.report_scaling(narrow, 'v5e', ['2'], scaling='weak', **options)
    assert asked == [1, 2, 4, 2, 4, 2]
