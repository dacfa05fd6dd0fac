"""The step's figures and their text, from samples made up so that everything can be computed by hand."""

import json
import subprocess
import sys

import cli
import pytest

from alexnet_jax.benchmark.measure import Measurement, Results
from alexnet_jax.benchmark.protocol import Setting
from alexnet_jax.benchmark.sampling import Sample
from alexnet_jax.benchmark.step_figures import format_step_figures, make_step_figures, summarise_batch

SETTING = Setting(batch=12, width=1.0, classes=1000, allocator='tuned')


def make_measurement(*seconds, flop=0, moved=0, peak=None, foreign=0.02):
    return Measurement([Sample(1, s, s, foreign, peak) for s in seconds], flop, moved)


def make_results(*, torch, layers=False, foreign=0.02):
    network = {
        ('one_device', 'train'): make_measurement(2.0, 4.0, 2.0, flop=40 * 10**9, peak=100, foreign=foreign),
        ('one_device', 'inference'): make_measurement(0.5, 0.5, 0.5, flop=10 * 10**9, peak=900),
        ('two_device', 'train'): make_measurement(4.0, 4.0, 8.0, peak=300),
        ('two_device', 'inference'): make_measurement(1.0, 1.0, 1.0),
        ('ceilings', 'gemm_numpy'): make_measurement(1.0, 2.0, 1.0, flop=100 * 10**9),
        ('ceilings', 'gemm_xla'): make_measurement(1.5, 1.5, 1.5, flop=100 * 10**9),
        ('ceilings', 'copy'): make_measurement(1.0, 1.0, 1.0, moved=20 * 10**9),
        ('ceilings', 'add'): make_measurement(1.0, 1.0, 1.0, moved=25 * 10**9),
    }
    if torch:
        for form, train, inference in (
            ('eager', 6.0, 0.25), ('eager_channels_last', 5.0, 1.0), ('compiled', 3.0, 2.0), ('best', 4.0, 2.0),
        ):  # fmt: skip
            network[f'torch_{form}', 'train'] = make_measurement(train, 2 * train, train)
            network[f'torch_{form}', 'inference'] = make_measurement(inference, inference, inference)
    by_layer = {
        ('layers', 'train'): make_measurement(1.0, 2.0),
        ('layers', 'conv1 forward'): make_measurement(0.25, 0.25, flop=10 * 10**9, moved=10**9),
        ('layers', 'conv1 weight gradient'): make_measurement(0.5, 0.5, flop=10 * 10**9, moved=10**9),
        ('layers', 'conv1 pooling forward'): make_measurement(0.05, 0.05, moved=10**9),
        ('layers', 'fc6 forward'): make_measurement(0.1, 0.1, flop=10**9, moved=2 * 10**9),
        ('ceilings', 'gemm_numpy'): make_measurement(1.0, 1.0, flop=100 * 10**9),
        ('ceilings', 'copy'): make_measurement(1.0, 1.0, moved=20 * 10**9),
        ('ceilings', 'add'): make_measurement(1.0, 1.0, moved=40 * 10**9),
    }
    return Results(SETTING, network, {'jax': '1'}, by_layer if layers else {})


def test_summarise_batch_compares_with_the_ceiling_and_between_meshes():
    found = summarise_batch(make_results(torch=False))
    assert found['train']['images_per_second'] == 6.0  # of 6, 3, 6
    assert found['train']['images_per_second_quartiles'] == [4.5, 6.0]
    # 20, 10 and 20 GFLOP/s under NumPy's 100, 50 and 100: the better library by its median, although not in round two.
    assert found['train']['fraction_of_gemm'] == pytest.approx(0.2)
    assert found['train']['fraction_of_gemm_quartiles'] == pytest.approx([0.2, 0.2])
    assert found['inference']['fraction_of_gemm'] == pytest.approx(0.2)
    assert found['two_device']['ratio_to_one_device'] == 0.5  # of 2/4, 4/4, 2/8
    assert found['two_device']['train']['ratio_to_one_device_quartiles'] == [0.375, 0.75]
    assert found['two_device']['inference']['ratio_to_one_device'] == 0.5
    assert found['peak_bytes'] == {'one_device': 100, 'two_device': 300}  # of training, not of inference
    assert found['ceilings'] == {'gemm_numpy': 100, 'gemm_xla': pytest.approx(66.67, abs=0.01), 'copy': 20, 'add': 25}
    assert found['train']['ratio_to_torch'] is None
    assert found['train']['ratio_to_torch_best'] is None
    assert found['torch'] == {}
    assert found['layers'] is None


def test_summarise_batch_compares_with_the_faster_layout_and_the_fastest_form():
    found = summarise_batch(make_results(torch=True))
    train, inference = found['train'], found['inference']
    assert (train['ratio_to_torch'], train['ratio_to_torch_form']) == (2.5, 'eager_channels_last')
    assert (train['ratio_to_torch_best'], train['ratio_to_torch_best_form']) == (1.5, 'compiled')  # whatever its name
    assert (inference['ratio_to_torch'], inference['ratio_to_torch_form']) == (0.5, 'eager')
    assert (inference['ratio_to_torch_best'], inference['ratio_to_torch_best_form']) == (0.5, 'eager')
    assert found['torch']['compiled']['train']['images_per_second'] == 4.0


def test_summarise_batch_compares_layers_with_their_bounds():
    found = summarise_batch(make_results(torch=False, layers=True))['layers']
    assert (found['gemm_gflops'], found['memory_gb_per_second']) == (100, 40)
    rows = {row['name']: row for row in found['rows']}
    assert list(rows) == ['conv1 forward', 'conv1 weight gradient', 'conv1 pooling forward', 'fc6 forward']
    got = {name: (row['bound'], row['rate'], pytest.approx(row['fraction_of_bound'])) for name, row in rows.items()}
    assert got == {
        'conv1 forward': ('arithmetic', 40, 0.4),
        'conv1 weight gradient': ('arithmetic', 20, 0.2),
        'conv1 pooling forward': ('memory', 20, 0.5),
        'fc6 forward': ('memory', 20, 0.5),  # 1 GFLOP takes 10 ms, 2 GB take 50 ms
    }
    assert found['convolutions_forward_fraction_of_gemm'] == pytest.approx(0.4)
    assert found['convolutions_backward_fraction_of_gemm'] == pytest.approx(0.2)
    assert found['explained'] == pytest.approx((0.9 / 1 + 0.9 / 2) / 2)


@pytest.mark.parametrize(('foreign', 'warned'), [(0.09, False), (0.11, True)])
def test_format_step_figures_warns_of_noise(foreign, warned):
    results = make_results(torch=False)
    for measurement in results.network.values():
        measurement.samples[:] = [Sample(1, s.seconds, s.cpu_seconds, foreign, None) for s in measurement.samples]
    found = make_step_figures([results])
    assert found['foreign'] == {'median': foreign, 'worst': foreign}
    assert ('NOISY' in format_step_figures(found)) == warned
    assert f'others used {foreign:.0%} of the cores' in format_step_figures(found)


def test_format_step_figures_has_every_figure_within_110_columns():
    found = make_step_figures([make_results(torch=True, layers=True)])
    lines = format_step_figures(found).splitlines()
    assert max(map(len, lines[1:])) <= 110  # the first is the machine's name, as long as it is
    by_title = {line.split('  ')[0]: line.split() for line in lines}
    assert by_title['this project, one device'][-5:] == ['6.0', '(4.5-6.0)', '24.0', '(24.0-24.0)', '0']
    assert by_title['PyTorch compiled, channels_last'][-1] == 'unknown'
    assert by_title['to PyTorch eager, faster layout'][-4:] == ['2.50', '(2.50-2.50)', '0.50', '(0.50-0.50)']
    assert by_title['two devices to one'][-4:] == ['0.50', '(0.38-0.75)', '0.50', '(0.50-0.50)']
    assert by_title['fc6 forward'][-5:] == ['2000.0', '20.0', 'GB/s', '50%', '6.7%']


def test_make_step_figures_puts_the_first_batch_size_on_top():
    other = make_results(torch=False)
    small = Results(Setting(4, 1.0, 1000, 'tuned'), other.network, {'jax': '1'})
    found = make_step_figures([make_results(torch=False), small])
    assert list(found['by_batch']) == ['12', '4']
    assert found['batch'] == 12
    assert found['train'] == found['by_batch']['12']['train']
    assert found['by_batch']['4']['train']['images_per_second'] == 2.0
    assert found['setting'] == {'width': 1.0, 'classes': 1000, 'allocator': 'tuned'}
    assert found['versions']['jax'] == '1'
    json.dumps(found)


def test_measuring_process_imports_no_numerical_library():
    code = 'import sys; from alexnet_jax.benchmark import measure, step_figures; print(*sys.modules)'
    done = subprocess.run([sys.executable, '-c', code], cwd=cli.ROOT, check=True, capture_output=True, text=True)
    assert 'alexnet_jax.benchmark.measure' in done.stdout.split()
    assert {'jax', 'numpy', 'torch', 'flax'}.isdisjoint(done.stdout.split())
