"""The real training step, compiled for GPUs that are not here: it compiles, and its text shows the schedule.

Needs the extra `gpu-compiler`; 40 s of a core, most of them in the compiler. The widths are a sixteenth of the paper's.
"""

import dataclasses

import jax
import pytest
from extras.conftest import extra
from talkative import Talkative

from alexnet_jax.communication import gpu_compiler, gpu_worker
from alexnet_jax.communication.gpus import GPUS, find_target
from alexnet_jax.communication.messages import expected_schedule
from alexnet_jax.errors import InputError
from alexnet_jax.sharding.mesh import TOWER, make_mesh
from alexnet_jax.training import step as step_module
from alexnet_jax.training.config import make_config
from alexnet_jax.training.validation import validate_config

extra('jax_plugins.xla_cuda12')

CLASSES = 10
IMAGES = 8  # of each replica
# What a device receives of the other tower, widths 6, 16, 24, 24, 16 and 256, 256, in float32.
EXCHANGED = {
    layer: IMAGES * units * 4
    for layer, units in {'conv3': 13 * 13 * 8, 'fc6': 6 * 6 * 8, 'fc7': 128, 'fc8': 128}.items()
}
# Held by each of two devices: kernels (what a tower reads) and biases.
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


def config_of(parallelism, mesh):
    config = make_config('imagenet2012', parallelism=parallelism, mesh=mesh)
    config.update(width=0.0625, batch_size=IMAGES * mesh[0])
    return validate_config(config)


def over_tower(messages):
    return [(m.layer, m.direction, m.op, m.bytes) for m in messages if TOWER in m.axis]


def compile_for(config, topology):
    return gpu_compiler.parse_compiled(gpu_compiler.compile_for_gpus(config, topology, num_classes=CLASSES))


def test_two_device_on_two_gpus_talks_at_the_four_exchanges_and_nowhere_else():
    compiled = compile_for(config_of('two_device', (1, 2)), 'h100:2')
    expected = expected_schedule(EXCHANGED, make_mesh(1, 2))
    assert sorted(over_tower(compiled.program.messages)) == sorted(expected)
    assert over_tower(compiled.traced) == expected
    assert {message.axis for message in compiled.program.messages} == {TOWER}
    assert 2 * 4 * HELD < compiled.arguments < compiled.memory < 80e9
    # Each layer's output, and the gradients of its weights and of its input, but for the image's.
    products = [kernel.layer for kernel in compiled.program.kernels if kernel.product]
    layers = [f'conv{n}' for n in range(1, 6)] + ['fc6', 'fc7', 'fc8']
    assert sorted(products) == sorted(['conv1'] * 2 + [layer for layer in layers[1:] for _ in range(3)])
    assert {k.library for k in compiled.program.kernels if k.layer == 'conv2' and k.product} == {'cuDNN'}
    # The bias and the ReLU are in the convolutions, because nothing else asks for what ReLU reads: model/ops_gpu.py.
    forward = [kernel.what for kernel in compiled.program.kernels if 'Forward' in kernel.what and 'Bias' in kernel.what]
    assert forward == ['convBiasReluForward'] * 5


def test_hybrid_on_two_hosts_of_four_gpus_averages_every_gradient_once():
    compiled = compile_for(config_of('hybrid', (4, 2)), 'h100:2x4')
    messages = compiled.program.messages
    assert sorted(over_tower(messages)) == sorted(expected_schedule(EXCHANGED, make_mesh(1, 2)))
    others = [message for message in messages if TOWER not in message.axis]
    assert {(message.axis, message.op) for message in others} == {('data', 'all-reduce')}
    # The loss and the error too; of four replicas three quarters, twice.
    assert sum(message.bytes for message in others) == 2 * 3 * (HELD + 2)


def test_compiled_schedule_catches_a_network_that_talks_one_time_more(monkeypatch):
    """In this process, in which the network can be replaced."""
    monkeypatch.setattr(step_module, 'AlexNet', Talkative)
    monkeypatch.setattr(gpu_worker, 'prepare_backend', lambda *_, **__: None)
    kept = jax.config.jax_enable_compilation_cache
    try:
        found = gpu_worker.compile_step(
            config_of('two_device', (1, 2)),
            hosts=1,
            gpus=2,
            classes=CLASSES,
            kept=[],
            target=find_target(GPUS['h100']).read_text(),
        )
    finally:
        jax.config.update('jax_enable_compilation_cache', kept)
    messages = gpu_compiler.parse_compiled(found).program.messages
    expected = expected_schedule(EXCHANGED, make_mesh(1, 2))
    more = [message for message in over_tower(messages) if message not in expected]
    assert {op for _, _, op, _ in more} == {'all-reduce'} and len(messages) > len(expected)


def test_compile_for_gpus_says_in_one_line_that_the_compiler_does_not_take_a_target(tmp_path):
    """One that it refuses by itself. How a process that ends in it is named: communication/test_gpu_report.py."""
    own = tmp_path / 'own.txtpb'
    own.write_text(find_target(GPUS['h100']).read_text().replace('core_count', 'count_of_cores'))
    config = dataclasses.replace(config_of('two_device', (1, 2)), batch_size=2)
    with pytest.raises(InputError, match=r'the compiler does not take the target own\.txtpb: .*parse') as found:
        gpu_compiler.compile_for_gpus(config, 'h100:2', num_classes=CLASSES, target=own)
    assert '\n' not in found.value.args[0]
