"""What is predicted for GPUs, by hand, and what is published of them against itself; no compiler is asked."""

import dataclasses
import importlib.util
import json
import re
import subprocess

import pytest

from alexnet_jax.communication import gpu_compiler, scaling
from alexnet_jax.communication.gpu_compiler import Compiled, compile_for_gpus
from alexnet_jax.communication.gpu_program import GpuProgram, Kernel, from_json, to_json
from alexnet_jax.communication.gpu_report import count_operations, format_gpus, predict_gpus
from alexnet_jax.communication.gpus import GPUS, find_target, is_gpu, list_gpu_topologies, parse_hosts
from alexnet_jax.communication.messages import Message
from alexnet_jax.communication.topology import get_chip
from alexnet_jax.errors import InputError
from alexnet_jax.training.config import make_config
from alexnet_jax.training.validation import validate_config

# Multiplications for one image: a kernel's numbers by the places and the maps that it gives.
CONVS = {'conv1': 105_415_200, 'conv2': 223_948_800, 'conv3': 149_520_384, 'conv4': 112_140_288, 'conv5': 74_760_192}
DENSE = {'fc6': 9216 * 4096, 'fc7': 4096 * 4096, 'fc8': 4096 * 1000}


def config_of(parallelism='hybrid', mesh=(4, 2), **options):
    config = make_config('imagenet2012', parallelism=parallelism, mesh=mesh)
    config.update(batch_size=128 * mesh[0], **options)
    return validate_config(config)


def message(axis, size, op='all-reduce'):
    return Message('', op, axis, 'backward', (size,), 'float32', size)


def kernel(traffic, *under, layer=''):
    return Kernel('k', 'XLA', 'fusion', layer, 'forward', bool(layer), traffic, under)


def compiled_of(kernels, messages, asynchronous):
    return Compiled('', 10, 20, GpuProgram(kernels, messages, asynchronous), [], 'TABLE', 1.0)


def test_count_operations_of_a_tower_is_half_of_each_layer_and_all_of_fc8():
    found = count_operations(config_of(mesh=(4, 2)), num_classes=1000)
    for layer, macs in (CONVS | DENSE).items():
        products = 2 if layer == 'conv1' else 3  # nobody wants the gradient of an image
        assert found[layer] == 2 * products * macs * 128 / (1 if layer == 'fc8' else 2), layer


def test_count_operations_of_one_weird_trick_has_the_images_of_all_and_a_part_of_the_units():
    config = dataclasses.replace(config_of('one_weird_trick', (2, 4)), batch_size=1024)
    found = count_operations(config, num_classes=1000)
    assert found['conv2'] == 2 * 3 * CONVS['conv2'] * 128
    assert found['fc6'] == 2 * 3 * DENSE['fc6'] / 4 * 512


def test_count_operations_leaves_out_what_frozen_layers_need_not():
    found = count_operations(config_of('data_parallel', (1, 1), frozen=('conv1', 'conv2')), num_classes=1000)
    assert found['conv1'] == 2 * CONVS['conv1'] * 128
    assert found['conv2'] == 2 * CONVS['conv2'] * 128
    assert found['conv3'] == 2 * 2 * CONVS['conv3'] * 128  # the gradient of its weights, of its input none
    assert found['conv4'] == 2 * 3 * CONVS['conv4'] * 128


def test_predict_gpus_adds_kernels_and_what_no_kernel_hides_of_a_message():
    # 3,350 GB/s: 1 ms, 2 ms and 1 ms. 450 GB/s: 3 ms, of which 2 are beside the second kernel; then 1 ms alone.
    kernels = [kernel(3_350_000_000), kernel(6_700_000_000, 0), kernel(3_350_000_000)]
    messages = [message('tower', 1_350_000_000), message('tower', 450_000_000)]
    found = predict_gpus(
        compiled_of(kernels, messages, [True, False]), config_of('two_device', (1, 2)), 'h100:2', num_classes=1000
    )
    assert found.memory == found.kernels == pytest.approx(4e-3)
    assert found.links == pytest.approx(4e-3)
    assert found.exposed == pytest.approx(2e-3)
    assert found.step == pytest.approx(6e-3)
    assert found.link_bytes == {'tower': 1_800_000_000} and found.network_bytes == {}


def test_predict_gpus_lets_a_kernel_hide_one_message_after_the_other():
    """A kernel of 1.5 ms beside two messages of 1 ms each, which take turns on the link."""
    said = [message('tower', 450_000_000)] * 2
    compiled = compiled_of([kernel(5_025_000_000, 0, 1)], said, [True, True])
    found = predict_gpus(compiled, config_of('two_device', (1, 2)), 'h100:2', num_classes=1000)
    assert (found.links, found.exposed) == (pytest.approx(2e-3), pytest.approx(0.5e-3))


def test_predict_gpus_lets_a_product_take_its_arithmetic_where_that_is_longer():
    config = config_of('data_parallel', (1, 1), precision='bfloat16')
    halves = [kernel(1, layer='conv2'), kernel(1, layer='conv2'), kernel(3_350_000_000, layer='conv3')]
    found = predict_gpus(compiled_of(halves, [], []), config, 'h100:1', num_classes=1000)
    assert found.kernels == pytest.approx(2 * 3 * CONVS['conv2'] * 128 / 989.5e12 + 1e-3)
    # What is named after no layer does what the named do not: all layers but conv2 and conv3.
    unnamed = [*halves, dataclasses.replace(kernel(1), product=True)]
    found = predict_gpus(compiled_of(unnamed, [], []), config, 'h100:1', num_classes=1000)
    rest = 3 * (sum((CONVS | DENSE).values()) - CONVS['conv2'] - CONVS['conv3']) - CONVS['conv1']
    assert found.kernels == pytest.approx((2 * 3 * CONVS['conv2'] + 2 * rest) * 128 / 989.5e12 + 1e-3)
    # A float32 step multiplies in TF32.
    slower = dataclasses.replace(config, precision='float32')
    found = predict_gpus(compiled_of(halves, [], []), slower, 'h100:1', num_classes=1000)
    assert found.kernels == pytest.approx(2 * 3 * CONVS['conv2'] * 128 / 494.7e12 + 1e-3)


@pytest.mark.parametrize(
    ('topology', 'mesh', 'axis', 'link', 'network'),
    [
        ('h100:8', (4, 2), 'tower', 80, 0),
        ('h100:8', (4, 2), 'data', 80, 0),
        ('h100:2x4', (4, 2), 'tower', 80, 0),
        ('h100:2x4', (4, 2), 'data', 80, 40),  # two of the four replicas are in a host, and so two of its ports theirs
        ('h100:4x2', (4, 2), 'data', 0, 80),  # one
        ('h100:2x8', (16, 1), 'data', 80, 10),
        ('h100:2x4', (4, 2), 'data,tower', 80, 20),
    ],
)
def test_predict_gpus_sends_what_leaves_a_host_through_the_ports_of_the_group(topology, mesh, axis, link, network):
    found = predict_gpus(
        compiled_of([], [message(axis, 80)], [False]), config_of(mesh=mesh), topology, num_classes=1000
    )
    assert found.link_bytes == {axis: link}
    assert found.network_bytes.get(axis, 0) == network
    assert found.links == pytest.approx(max(link / 450e9, network / 50e9))


def test_format_gpus_has_every_term_and_says_what_does_not_fit():
    config = config_of(mesh=(4, 2))
    large = dataclasses.replace(compiled_of([kernel(3350, 0)], [message('data', 45)], [True]), temporaries=90 * 10**9)
    found = predict_gpus(large, config, 'h100:2x4', num_classes=1000)
    text = format_gpus(large, found, config, 'h100:2x4', num_classes=1000)
    assert 'a prediction: nothing was run' in text
    assert re.search(r'memory +90\.000 GB of 80: IT DOES NOT FIT: state and batch 0\.000, temporaries 90\.000', text)
    assert 'TFLOP/s in TF32' in text and 'NVLink, data' in text and 'network, data' in text
    assert '  all-reduce backward at all: 1 kernels beside it' in text


def test_a_program_is_the_same_from_json():
    program = GpuProgram([kernel(1, 0, 1, layer='fc6')], [message('data', 3)], [True])
    again = from_json(json.loads(json.dumps(to_json(program))))
    assert again.kernels == program.kernels and again.asynchronous == [True]
    assert again.messages[0].bytes == 3


@pytest.mark.parametrize('kind', GPUS)
def test_targets_agree_with_what_is_published(kind):
    """The text's own numbers give the peak of the sheet: cores, clock and memory are of the same GPU."""
    gpu, text = GPUS[kind], find_target(GPUS[kind]).read_text()
    said = {key: float(value) for key, value in re.findall(r'(\w+): ([\d.]+)$', text, re.MULTILINE)}
    assert said['memory_bandwidth'] == pytest.approx(gpu.memory_bandwidth, rel=0.05)
    assert said['device_memory_size'] == pytest.approx(gpu.memory, rel=0.08)
    # Multiplications and additions of a core in a clock, in bfloat16; the tensor cores' clock is up to 9 % lower.
    per_core = {'a100': 2048, 'h100': 4096, 'h200': 4096, 'b200': 8192, 'l4': 1024}[kind]
    assert said['core_count'] * per_core * said['clock_rate_ghz'] * 1e9 == pytest.approx(gpu.flops, rel=0.1)
    assert f'{gpu.name.upper()}' in text and gpu.tf32_flops == pytest.approx(gpu.flops / 2, rel=0.03)


@pytest.mark.parametrize(
    ('kind', 'memory', 'link', 'network'),
    [
        ('a100', 640e9, 4.8e12, 200e9),
        ('h100', 640e9, 7.2e12, 400e9),
        ('h200', 1128e9, 7.2e12, 400e9),
        ('b200', 1440e9, 14.4e12, 400e9),
    ],
)
def test_gpus_agree_with_what_is_published_of_whole_hosts(kind, memory, link, network):
    """Of DGX: memory, the links of all GPUs both ways in bytes a second, and a port in bits a second."""
    gpu = GPUS[kind]
    assert (gpu.host * gpu.memory, gpu.host * 2 * gpu.link_bandwidth) == (memory, link)
    assert gpu.network_bandwidth * 8 == network


def test_parse_hosts_and_list_gpu_topologies_read_the_name():
    assert parse_hosts('h100:2') == (1, 2)
    assert parse_hosts('b200:2x4') == (2, 4)
    assert [*list_gpu_topologies(GPUS['h100']).values()] == [
        *('h100:1', 'h100:2', 'h100:4', 'h100:8', 'h100:2x8', 'h100:4x8', 'h100:8x8'),
    ]
    assert is_gpu('l4') and is_gpu('a100:2') and not is_gpu('v5e:2x2') and not is_gpu(None)


@pytest.mark.parametrize(
    ('topology', 'complaint'),
    [
        *((f'h100{rest}', 'is no number of h100 GPUs') for rest in ('', ':', ':0', ':2x', ':2x2x2', ':-1', ':a')),
        ('h100:16', 'has 16 GPUs in a host, h100 at most 8: use one like h100:2, or hosts x GPUs, h100:2x4'),
        ('b200:2x9', 'has 9 GPUs in a host'),
    ],
)
def test_parse_hosts_refuses_in_one_line(topology, complaint):
    with pytest.raises(InputError, match=complaint) as found:
        parse_hosts(topology)
    assert '\n' not in found.value.args[0]


def test_an_unknown_chip_lists_the_known():
    with pytest.raises(InputError, match="no chip 'v100' is known, only v4, v5e, v5p, v6e, a100, h100, h200, b200, l4"):
        get_chip('v100:2')


def test_compile_for_gpus_names_the_line_that_installs_a_compiler(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(
        InputError, match=r"^--topology needs the GPU compiler: pip install 'alexnet-jax\[gpu-compiler\]'$"
    ):
        compile_for_gpus(config_of(), 'h100:8', num_classes=10)


def test_compile_for_gpus_refuses_a_mesh_of_another_size_before_it_starts_a_process(monkeypatch):
    monkeypatch.setattr(gpu_compiler, 'check_compiler', lambda: None)
    monkeypatch.setattr(subprocess, 'run', None)
    with pytest.raises(InputError, match='h100:2 has 2 GPUs and a mesh of 4x2 needs 8'):
        compile_for_gpus(config_of(), 'h100:2', num_classes=10)


@pytest.mark.parametrize(
    ('code', 'said', 'error', 'complaint'),
    [
        (
            -6,
            'F0000 00:00:1 7 layout.cc:9] Check failed: no\n',
            InputError,
            r'by SIGABRT in the compiler, .*: Check failed: no$',
        ),
        (-9, 'I0000 00:00:1 7 layout.cc:9] all is well\n', InputError, r'the process ended by SIGKILL$'),
        (1, 'Traceback', RuntimeError, 'Traceback'),  # a bug, with all that was said of it
    ],
)
def test_compile_for_gpus_says_how_the_process_ended(monkeypatch, code, said, error, complaint):
    monkeypatch.setattr(gpu_compiler, 'check_compiler', lambda: None)

    def run(command, *, stderr, **_):
        stderr.write(said)
        stderr.flush()
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(subprocess, 'run', run)
    with pytest.raises(error, match=complaint):
        compile_for_gpus(config_of(), 'h100:8', num_classes=10)


def test_report_scaling_of_gpus_keeps_programs_and_says_what_does_not_fit(tmp_path, monkeypatch):
    """The compiler replaced; the extra's tests have the real one."""
    asked = []

    def compile_for(config, topology, *, num_classes, kept):
        asked.append(topology)
        name = f'{topology} {config.batch_size}'
        large = topology == 'h100:1'
        found = compiled_of([kernel(3_350_000_000)], [] if large else [message('data', 450_000_000)], [False][large:])
        found = dataclasses.replace(found, temporaries=81 * 10**9 if large else 1)
        made = dataclasses.asdict(found) | {'name': name, 'program': to_json(found.program)}
        return {'name': name} if name in kept else json.loads(json.dumps(made))

    monkeypatch.setattr(gpu_compiler, 'compile_for_gpus', compile_for)
    options = {'scaling': 'weak', 'num_classes': 10, 'output': str(tmp_path / 'rows.json')}
    config = config_of('data_parallel', (2, 1))
    figures, text = scaling.report_scaling(config, 'h100', ['1', '2', '16'], **options)
    assert asked == ['h100:1', 'h100:2', 'h100:2x8']
    assert 'does not fit' in text.splitlines()[2]
    rows = figures['rows']
    assert 'the step needs 81.0 GB of 80' in rows[0]['too_large']
    assert rows[1]['prediction']['step'] == pytest.approx(2e-3)  # 1 ms each of memory and NVLink
    assert rows[2]['prediction']['step'] == pytest.approx(1e-3 + 450e6 / 8 / 50e9)  # through eight ports
    # Sixteen give 8 times the images in 2.125 ms for 2: 0.94 of the images/s of each of two.
    assert text.splitlines()[-1].startswith(
        'It scales up to 16, at 94% of the efficiency of 2; the least is 94%, at 16.'
    )
    assert text.endswith("53% messages; most of them, 1.12 ms, go along 'data' between hosts.")
    again, _ = scaling.report_scaling(config, 'h100', ['1', '2', '16'], **options)
    assert json.dumps(again) == json.dumps(figures)
