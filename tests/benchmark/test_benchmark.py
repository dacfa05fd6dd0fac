"""The benchmark: its arithmetic against hand computations, its processes as a user starts them, its peer's truth."""

import json
import subprocess
import sys

import commands
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax import InputError
from alexnet_jax.benchmark import figures, measure
from alexnet_jax.benchmark.network import flop_per_image
from alexnet_jax.benchmark.protocol import Setting, Subject
from alexnet_jax.benchmark.sampling import Program, Sample, take
from alexnet_jax.benchmark.statistics import Spread, ratios
from alexnet_jax.model.variants import PAPER

TINY = ('--width=0.03125', '--classes=10', '--batch=4', '--rounds=2', '--seconds=0')


def test_median_and_quartiles():
    assert Spread.of([5, 1, 4, 2, 3]) == Spread(median=3, low=2, high=4)
    assert ratios([2.0, 9.0, 8.0], [1.0, 3.0, 2.0]) == Spread(median=3.0, low=2.5, high=3.5)


def test_work_of_the_papers_network():
    # Places x outputs x (kernel x inputs) of each layer, two for a multiply-accumulate.
    conv1 = 55 * 55 * 96 * (11 * 11 * 3)
    others = 27 * 27 * 256 * (25 * 48) + 13 * 13 * (384 * 9 * 256 + 384 * 9 * 192 + 256 * 9 * 192)
    dense = 9216 * 4096 + 4096 * 4096 + 4096 * 1000
    forward, trained = flop_per_image(PAPER, num_classes=1000)
    assert forward == 2 * (conv1 + others + dense) == 1_448_813_632
    assert trained == 2 * (2 * conv1 + 3 * (others + dense)) == 4_135_610_496


def test_a_sample_calls_until_its_time_is_over_and_sees_the_memory_that_was_held():
    calls, held = [], []

    def call():
        calls.append(1)
        held[:] = [b'x' * 2**26]

    once = take(Program(call), seconds=0)
    assert once.calls == len(calls) == 1
    many = take(Program(call), seconds=0.2)
    assert many.calls == len(calls) - 1 > 1
    assert many.seconds * many.calls >= 0.2
    assert many.peak_bytes is None or many.peak_bytes > 2**26
    assert many.foreign is None or 0 <= many.foreign <= 1


def samples(*seconds, flop=0, peak=100):
    return measure.Measured([Sample(1, s, s, 0.0, peak) for s in seconds], flop, 0)


def test_figures_are_medians_and_ratios_of_rounds():
    network = {
        ('one_device', 'train'): samples(2.0, 1.0, 4.0, flop=60, peak=70),
        ('one_device', 'inference'): samples(1.0, 1.0, 1.0, flop=20),
        ('two_device', 'train'): samples(4.0, 1.0, 16.0),
        ('two_device', 'inference'): samples(2.0, 2.0, 2.0),
        ('torch_eager', 'train'): samples(9.0, 9.0, 9.0),
        ('torch_eager_channels_last', 'train'): samples(6.0, 2.0, 8.0),
        ('torch_compiled', 'train'): samples(3.0, 3.0, 3.0),
        ('torch_best', 'train'): samples(1.0, 1.0, 2.0),
        ('ceilings', 'gemm_numpy'): samples(1.0, 1.0, 1.0, flop=100),
        ('ceilings', 'gemm_xla'): samples(2.0, 2.0, 2.0, flop=100),
    }
    network |= {
        (f'torch_{form}', 'inference'): samples(2.0, 2.0, 2.0)
        for form in ('eager', 'eager_channels_last', 'compiled', 'best')
    }
    found = figures.of_batch(measure.Results(Setting(8, 1.0, 10, 'default'), network, {}, {}))
    assert found['train']['images_per_second'] == 4  # 8 images in the median of 2 s
    assert found['train']['images_per_second_quartiles'] == [3, 6]
    assert found['train']['ratio_to_torch'] == 2  # to channels_last, the faster layout: 3, 2, 2
    assert found['train']['ratio_to_torch_form'] == 'eager_channels_last'
    assert found['train']['ratio_to_torch_best'] == 0.5  # 0.5, 1, 0.5
    assert found['train']['fraction_of_gemm'] == 0.3  # 30, 60, 15 of 100 a second
    assert found['two_device']['ratio_to_one_device'] == 0.5  # 0.5, 1, 0.25
    assert found['inference']['ratio_to_torch'] == 2
    assert found['peak_bytes']['one_device'] == 70


def test_step_is_measured_in_processes_of_its_own(program_cache):
    result = commands.run('bench', 'step', *TINY, '--json', cache=program_cache)
    assert result.returncode == 0, result.stderr[-2000:]
    found = json.loads(result.stdout.splitlines()[-1])
    assert found['train']['images_per_second'] > 0
    assert found['inference']['images_per_second'] > 0
    assert 0 < found['train']['fraction_of_gemm'] < 1
    assert found['train']['ratio_to_torch'] is None
    assert found['train']['ratio_to_torch_best'] is None
    assert found['two_device']['ratio_to_one_device'] > 0
    assert found['by_batch']['4']['batch'] == 4
    rows = {row['name']: row for row in found['layers']['rows']}
    assert {'conv1 forward', 'conv1 weight gradient', 'conv2 input gradient', 'conv2 LRN backward', 'update'} <= {*rows}
    assert 'conv1 input gradient' not in rows
    # Width 1/32: 4 (not 3) channels in conv1, 8 in conv2, in two towers: 27 x 27 x 8 x 5 x 5 x 2, of four images.
    assert rows['conv2 forward']['gflop'] == pytest.approx(4 * 2 * 27 * 27 * 8 * 25 * 2 / 1e9)
    assert 'conv5 pooling backward' in result.stdout


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ([], 'nothing cannot be measured'),
        (['speed'], 'speed cannot be measured'),
        (['step', '--batch=8,0'], '--batch=8,0'),
        (['step', '--batch=8,8'], '--batch=8,8'),
    ],
)
def test_mistakes_are_one_line(options, message, program_cache):
    result = commands.run('bench', *options, cache=program_cache)
    assert result.returncode == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_without_torch_the_peer_is_refused_by_name_of_the_file_to_install(monkeypatch):
    monkeypatch.setattr(measure.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(InputError, match=r'requirements-bench\.txt'):
        measure.measure(
            Setting(4, 1.0, 10, 'default'), torch=True, layers=False, rounds=2, seconds=0, progress=lambda line: None
        )


def test_a_measured_process_that_fails_says_why():
    subject = Subject(
        'broken', ['-c', 'raise SystemExit("out of luck")'], Setting(4, 1.0, 10, 'default'), environment={}
    )
    with pytest.raises(RuntimeError, match='out of luck'):
        subject.wait()
    subject.close()


def test_the_workers_parent_imports_neither_jax_nor_torch():
    code = 'import sys, alexnet_jax.benchmark.measure as m; print({"jax", "torch", "flax"} & {*sys.modules})'
    found = subprocess.run([sys.executable, '-c', code], cwd=commands.ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == 'set()'


def test_the_pytorch_peer_is_the_same_network(monkeypatch):
    torch = pytest.importorskip('torch')
    monkeypatch.syspath_prepend(commands.ROOT / 'tests' / 'peers')
    import torch_alexnet

    from alexnet_jax.data.augment import normalise
    from alexnet_jax.model.alexnet import AlexNet, init_parameters
    from alexnet_jax.training.step import cross_entropy

    variant = PAPER.scaled(0.0625)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (3, 224, 224, 3), np.uint8)
    lighting, labels = random.standard_normal((3, 3)) * 9, np.array([1, 0, 3])
    with jax.enable_x64(True):
        params = init_parameters(variant, jax.random.key(0), num_classes=4)
        params = jax.tree.map(lambda p: jnp.asarray(np.asarray(p, np.float64)) * 2, params)
        x = normalise(images, jnp.full((224, 224, 3), 127.5), lighting=jnp.asarray(lighting))

        def loss(params):
            logits = AlexNet(variant, 4).apply({'params': params}, x)
            return cross_entropy(logits, jnp.asarray(labels)).mean(), logits

        gradients, logits = jax.grad(loss, has_aux=True)(params)
        gradients, params, logits = jax.tree.map(np.asarray, (gradients, params, logits))
    for norm in (torch_alexnet.builtin_norm, torch_alexnet.shifted_norm):
        model = torch_alexnet.AlexNet(width=0.0625, classes=4, norm=norm).double().eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                layer, kind = name.split('.')
                value = params[layer]['kernel' if kind == 'weight' else 'bias']
                parameter.copy_(torch.tensor(value.transpose((3, 2, 0, 1) if value.ndim == 4 else None)))
        theirs = model(torch.tensor(images.transpose(0, 3, 1, 2)), torch.tensor(lighting))
        np.testing.assert_allclose(theirs.detach().numpy(), logits, rtol=1e-9)
        torch.nn.functional.cross_entropy(theirs, torch.tensor(labels)).backward()
        for name, parameter in model.named_parameters():
            layer, kind = name.split('.')
            expected = gradients[layer]['kernel' if kind == 'weight' else 'bias']
            expected = expected.transpose((3, 2, 0, 1) if expected.ndim == 4 else None)
            difference = np.linalg.norm(parameter.grad.numpy() - expected) / np.linalg.norm(expected)
            assert difference < 1e-9, (name, difference)
