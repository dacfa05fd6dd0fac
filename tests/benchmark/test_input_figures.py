"""The input pipeline's figures, from samples whose medians and ratios are plain by hand."""

from unittest import mock

import pytest

from alexnet_jax.benchmark import input_figures, measure
from alexnet_jax.benchmark.measure import Measurement, Results, Turns
from alexnet_jax.benchmark.protocol import Setting
from alexnet_jax.benchmark.sampling import Sample
from alexnet_jax.errors import InputError

SETTING = Setting(batch=100, width=1.0, classes=10, allocator='default', dataset='demo')


def make_measurement(*seconds, cpu=None, moved=0):
    samples = [Sample(1, s, cpu or s, 0.02, None) for s in seconds]
    return Measurement(samples, flop=0, moved=moved)


@pytest.fixture
def results():
    samples = {('input', name): make_measurement(1.0, 1.0, 1.0, cpu=0.5) for name in input_figures.STAGES}
    samples['input', 'read'] = make_measurement(0.01, 0.02, 0.04, moved=3_000_000)
    samples['input', 'transfer'] = make_measurement(0.01, 0.01, 0.01, moved=100 * 150_544)
    for prefix, slower in (('', 1), ('photo_', 4)):
        samples['input', f'{prefix}pipeline_1'] = make_measurement(*[0.2 * slower] * 3)
        samples['input', f'{prefix}pipeline_2'] = make_measurement(*[0.1 * slower] * 3)
        samples['tf_default', f'{prefix}pipeline'] = make_measurement(0.11 * slower, 0.15 * slower, 0.2 * slower)
        samples['tf_accurate', f'{prefix}pipeline'] = make_measurement(*[0.3 * slower] * 3, cpu=0.6 * slower)
        samples['torch_loader', f'{prefix}pipeline'] = make_measurement(*[0.4 * slower] * 3, cpu=0.8 * slower)
    for name, seconds in {'raw_pipeline_1': 0.02, 'raw_pipeline_2': 0.0125, 'raw_grain': 0.2, 'memcpy': 0.01}.items():
        samples['input', name] = make_measurement(*[seconds] * 3)
    for threads in (1, 2):
        samples['input', f'cached_pipeline_{threads}'] = make_measurement(*[0.04 / threads] * 3)
    samples['tf_default', 'raw_pipeline'] = make_measurement(0.05, 0.0625, 0.1)
    samples['one_device', 'train'] = make_measurement(2.0, 2.0, 2.5)
    return Results(SETTING, samples, {'jax': '1'})


def test_make_input_figures_counts_stages_by_cpu_time_and_pipelines_by_the_clock(results):
    figures = input_figures.make_input_figures(results, appetite=None)
    assert figures['stages']['decode']['images_per_second'] == 200  # 100 images in half a second of one core
    assert figures['stages']['read']['images_per_second'] == 5000
    assert figures['stages']['read']['images_per_second_quartiles'] == pytest.approx([3750, 7500])
    assert figures['bytes'] == {'read': 30_000, 'photo_read': 0, 'transfer': 150_544}
    threads = figures['prepared records']['threads']
    assert {n: round(f['images_per_second']) for n, f in threads.items()} == {'1': 500, '2': 1000}
    assert round(figures['photographs']['threads']['2']['images_per_second']) == 250


def test_make_input_figures_takes_ratios_in_each_round_and_the_smaller_form(results):
    figures = input_figures.make_input_figures(results, appetite=None)
    for kind in input_figures.KINDS.values():
        forms = figures[kind]['tf']
        assert forms['default']['ratio'] == pytest.approx(1.5)
        assert forms['default']['ratio_quartiles'] == pytest.approx([1.3, 1.75])
        assert forms['accurate']['ratio'] == pytest.approx(3)
        assert forms['accurate']['ratio_per_core'] == pytest.approx(6)  # it took twice the cores
        assert figures[kind]['ratio_to_tf'] == pytest.approx(1.5)


def test_make_input_figures_compares_with_pytorch_where_it_was_measured(results):
    figures = input_figures.make_input_figures(results, appetite=50)
    for kind, speed in {'prepared records': 250, 'photographs': 62.5}.items():
        loader = figures[kind]['torch']
        assert loader['images_per_second'] == pytest.approx(speed)  # 100 images in 0.4 seconds, or 1.6
        assert (loader['ratio'], loader['ratio_per_core']) == (pytest.approx(4), pytest.approx(8))
    lines = input_figures.format_input_figures(figures).splitlines()
    assert next(line for line in lines if line.startswith("per core, to PyTorch's")).split()[-2:] == [
        '8.00',
        '(8.00-8.00)',
    ]
    for prefix in input_figures.KINDS:
        del results.network['torch_loader', f'{prefix}pipeline']
    figures = input_figures.make_input_figures(results, appetite=50)
    assert figures['photographs']['torch'] is None
    assert 'PyTorch' not in input_figures.format_input_figures(figures)


def test_make_input_figures_counts_cores_that_feed_chips(results):
    """By CPU time, of the processes that work for a pipeline too: 100 images in 0.8 s of it are 125 for a core."""
    figures = input_figures.make_input_figures(results, appetite=50)
    assert figures['cores']["prepared records, PyTorch's DataLoader"] == pytest.approx(
        {'10000': 80, '20000': 160, '40000': 320}
    )
    assert figures['cores']['raw records'] == pytest.approx({'10000': 1.25, '20000': 2.5, '40000': 5})
    assert figures['per_core']['photographs, tf.data']['images_per_second'] == pytest.approx(1000 / 6)
    lines = input_figures.format_input_figures(figures).splitlines()
    assert next(line for line in lines if line.startswith('kept in memory  ')).split()[-3:] == ['2.0', '4.0', '8.0']
    assert next(line for line in lines if line.startswith('cores that feed')).split()[-2:] == ['20,000', '40,000']


def test_make_input_figures_compares_raw_records_with_what_moves_pixels(results):
    raw = input_figures.make_input_figures(results, appetite=50)['raw']
    speeds = {
        kind: {n: round(f['images_per_second']) for n, f in threads.items()} for kind, threads in raw['threads'].items()
    }
    assert speeds == {'raw records': {'1': 5000, '2': 8000}, 'kept in memory': {'1': 2500, '2': 5000}}
    assert {name: round(f['images_per_second']) for name, f in raw['others'].items()} == {
        'tf.data': 1600,
        "Grain's own batch": 500,
        'memory copy, 1 thread': 10_000,
    }
    assert raw['ratio_to_jpeg'] == pytest.approx(8)  # 0.1 to 0.0125 seconds, by two threads
    assert raw['ratio_to_tfdata'] == pytest.approx(5)
    assert raw['ratio_to_tfdata_quartiles'] == pytest.approx([4.5, 6.5])
    assert raw['fraction_of_memcpy'] == pytest.approx(0.5)  # 0.01 to 0.02 seconds, by one
    del results.network['tf_default', 'raw_pipeline']
    assert 'ratio_to_tfdata' not in input_figures.make_input_figures(results, appetite=50)['raw']


def test_make_input_figures_names_the_slower_one(results):
    figures = input_figures.make_input_figures(results, appetite=None)
    assert (figures['appetite'], figures['headroom'], figures['limit']) == (50, pytest.approx(20), 'model')
    text = input_figures.format_input_figures(figures)
    assert 'takes 50.0 images/s: the model is the limit, the pipeline gives 20.0 times as many' in text
    assert max(map(len, text.splitlines())) <= 110
    assert '5.00 (4.50-6.50)' in next(line for line in text.splitlines() if line.startswith('raw records to tf.data'))
    figures = input_figures.make_input_figures(results, appetite=4000)
    assert (figures['headroom'], figures['limit']) == (pytest.approx(0.25), 'input')
    assert 'the input pipeline is the limit' in input_figures.format_input_figures(figures)


def test_measure_input_refuses_a_machine_without_what_it_compares_with(monkeypatch):
    monkeypatch.setattr(measure.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(measure.InputError, match=r"pip install 'alexnet-jax\[tensorflow\]'"):
        measure.measure_input(SETTING, Turns(2, 0.0), tf=True, torch=False, model=True)
    with pytest.raises(measure.InputError, match=r"pip install 'alexnet-jax\[torch\]'"):
        measure.measure_input(SETTING, Turns(2, 0.0), tf=False, torch=True, model=True)


def test_measure_input_starts_the_processes_asked_for(monkeypatch):
    started = []
    monkeypatch.setattr(measure, 'take_turns', lambda names, *_: started.append(names) or ({}, {}))
    monkeypatch.setattr(measure.importlib.util, 'find_spec', lambda name: 'found')
    monkeypatch.setattr(measure.shutil, 'which', lambda name: None)  # a compiler, which only torch.compile needs
    for tf, torch, model in ((False, False, False), (True, False, True), (False, True, False)):
        measure.measure_input(SETTING, Turns(2, 0.0), tf=tf, torch=torch, model=model)
    assert started == [['input'], ['input', 'tf_default', 'tf_accurate', 'one_device'], ['input', 'torch_loader']]


def test_measure_input_pipeline_refuses_raw_records(monkeypatch):
    raw = mock.Mock(encoding='raw')
    raw.name, raw.check_variant.return_value = 'pets_raw', raw
    monkeypatch.setattr(input_figures, 'open_dataset', lambda name, data_dir: raw)
    options = {'images': None, 'tf': False, 'torch': False, 'appetite': None}
    with pytest.raises(InputError, match=r'pets_raw has raw records, .*: name one of JPEG records'):
        input_figures.measure_input_pipeline(SETTING, mock.Mock(), **options)
