"""`make gpu`: its page, its processes that fail or hang, and the benchmark's figures, from results made up by hand."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from alexnet_jax.benchmark.gpu_figures import find_peaks, format_gpu_figures, make_gpu_figures, summarise_row
from alexnet_jax.benchmark.measure import Measurement, Results
from alexnet_jax.benchmark.protocol import Setting
from alexnet_jax.benchmark.sampling import Sample
from alexnet_jax.data.dataset import open_dataset
from experiments import gpu
from experiments.gpu import BEGIN, END, Outcome, Stage


def make_measurement(*seconds, flop=0, moved=0, peak=None):
    return Measurement([Sample(1, s, s, None, peak) for s in seconds], flop, moved)


def make_results(**others):
    network = {
        ('gpu_ceilings', 'gemm'): make_measurement(1.0, 1.0, flop=800 * 10**12),
        ('gpu_ceilings', 'copy'): make_measurement(2.0, 2.0, moved=6 * 10**12),
        ('one_device', 'train'): make_measurement(0.5, 0.5, flop=100 * 10**12, peak=7 * 10**9),
        ('one_device', 'inference'): make_measurement(0.25, 0.25, flop=40 * 10**12),
        ('torch_eager', 'train'): make_measurement(4.0, 4.0),
        ('torch_best', 'train'): make_measurement(0.75, 0.75, peak=9 * 10**9),
    }
    setting = Setting(64, 1.0, 1000, 'default', device='gpu', precision='bfloat16')
    return Results(setting, network | others, {'jax': '1'})


def test_summarise_row_compares_with_the_fastest_pytorch_the_product_and_the_data_sheet():
    row = summarise_row(make_results(), 'NVIDIA H100 80GB HBM3')
    train = row['train']
    assert row['forms']['one_device'] == {'train': 128, 'inference': 256}
    assert (train['ratio_to_torch_best'], train['torch_best']) == (1.5, 'best')
    assert train['fraction_of_gemm'] == pytest.approx(0.25)  # 200 of 800 TFLOP/s
    assert train['fraction_of_peak'] == pytest.approx(200 / 989.5)
    assert row['copy_fraction_of_peak'] == pytest.approx(3 / 3.35)
    assert row['peak_bytes'] == {'one_device': 7 * 10**9, 'torch_eager': None, 'torch_best': 9 * 10**9}
    assert row['inference']['ratio_to_torch_best'] is None
    assert 'training' in format_gpu_figures(make_gpu_figures([make_results()], 'NVIDIA H100 80GB HBM3'))


@pytest.mark.parametrize(('device', 'flops'), [('NVIDIA A100-SXM4-80GB', 156e12), ('NVIDIA L4', 60e12)])
def test_find_peaks_knows_a_device_by_a_whole_word(device, flops):
    assert find_peaks(device, 'tf32')[0] == flops
    assert find_peaks('NVIDIA L40S', 'tf32') is None


def steps(*losses, resumed=True, left_out=()):
    return {'device': 'GPU', 'modes': {'one_device': {'losses': losses, 'resumed': resumed}}, 'left_out': left_out}


AUDIT = {
    'device': 'GPU',
    'mesh': [1, 2],
    'agree': True,
    'real': {'messages': 2, 'bytes': 1234, 'kernels': {'cuDNN': 14, 'XLA': 100}, 'traffic': 4_500_000_000},
    'absent': {'messages': 2, 'bytes': 1234, 'kernels': {}, 'traffic': 0},
}


def test_write_tables_replaces_its_own_part_and_says_what_failed():
    outcomes = {
        'steps cpu': Outcome(steps(2.0, 4.0), 9.0),
        'steps float32 yes': Outcome(steps(2.0, 4.0002, resumed=False, left_out=['hybrid']), 3.0),
        'steps bfloat16 no': Outcome(steps(2.02, 4.0), 3.0),
        'bench': Outcome(make_gpu_figures([make_results()], 'NVIDIA H100 80GB HBM3') | {'torch': True}, 99.0),
        'demo': Outcome({'top1_error': 0.125, 'protocol': 'centre'}, 61.4),
        'loader': Outcome({'stages': {'batch': {'images_per_second': 3000.0}}, 'appetite': 20000.0}, 50.0),
        'audit': Outcome(None, 120.0, 'took more than 120 s'),
    }
    more = outcomes | {'audit': Outcome(AUDIT, 33.0), 'demo': Outcome(AUDIT | {'agree': False}, 3.0)}
    page = gpu.write_tables(f'before\n{BEGIN}\nold\n{END}\nafter', outcomes)
    assert page.startswith(f'before\n{BEGIN}\n')
    assert page.endswith(f'\n{END}\nafter')
    lines = page.splitlines()
    assert 'old' not in lines
    assert '| float32, yes | one_device | 5.0e-05 | yes | **no** |' in lines
    assert '| float32, yes | hybrid | too few devices | | |' in lines
    assert '| bfloat16, no | one_device | 1.0e-02 | yes | yes |' in lines
    assert '| bfloat16 | 64 | one_device | 128 | 256 | 7.00 | 25% | 20% |' in lines
    assert '| bfloat16 | 64 | torch_eager | 16 | - | - | - | - |' in lines
    assert '| demo | 61 | top-1 error 12.50%, centre |' in lines
    assert '| loader | 50 | 3,000 images/s in batches, of 20,000 wanted |' in lines
    assert '| audit | 120 | **took more than 120 s** |' in lines
    lines = gpu.format_tables(more).splitlines()
    (same, other) = (next(line for line in lines if line.startswith(f'| {stage} ')) for stage in ('audit', 'demo'))
    real, absent = '2 messages, 1,234 bytes; kernels: 100 of XLA, 14 of cuDNN; 4.50 GB', '2 messages, 1,234 bytes'
    assert same == f'| audit | 33 | on 1x2 {real}; compiled without them the same: {absent} |'
    assert '**not the same**' in other
    left = {key: value for key, value in AUDIT.items() if key != 'absent'} | {'missing': 'no compiler'}
    assert '4.50 GB; not compared: no compiler |' in gpu.format_tables({'audit': Outcome(left, 1.0)})
    with pytest.raises(ValueError, match='no lines'):
        gpu.write_tables('no place', outcomes)


def test_the_page_has_a_place_for_the_tables():
    assert '### What was run' in gpu.write_tables(gpu.PAGE.read_text(), {})


@pytest.mark.parametrize(
    ('code', 'result', 'problem'),
    [
        ('print(1); print(\'{"a": 2}\'); print("{")', {'a': 2}, ''),
        ('print(\'{"a": 2}\', flush=True); import time; time.sleep(60)', {'a': 2}, 'took more than 2 s'),
        ('raise SystemExit("out of memory")', None, 'ended with code 1: out of memory'),
        ('pass', None, 'gave no result'),
    ],
    ids=['well', 'hangs', 'fails', 'silent'],
)
def test_run_stage_keeps_what_was_printed_and_names_the_problem(tmp_path, code, result, problem):
    outcome = gpu.run_stage(Stage('it', [sys.executable, '-c', code], 2.0), tmp_path)
    assert (outcome.result, outcome.problem) == (result, problem)


def test_sigterm_ends_the_processes_of_a_stage_too(tmp_path):
    """Of `make gpu`, which is told to stop while its first stage sleeps in a process group of its own."""
    code = f"""
import pathlib, sys
from experiments import gpu
stage = gpu.Stage('it', [sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'], 60)
gpu.make_stages = lambda **_: [stage]
gpu.make_small_datasets, gpu.LOGS = lambda _: None, pathlib.Path({str(tmp_path)!r})
gpu.main()
"""
    process = subprocess.Popen([sys.executable, '-c', code], cwd=gpu.ROOT, env={**os.environ, 'REHEARSE': '1'})
    output = tmp_path / 'rehearsal/it.out'
    wait_for(lambda: output.exists() and output.read_text().endswith('\n'))
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    wait_for(lambda: not pathlib.Path('/proc', output.read_text().strip()).exists())


def wait_for(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_rehearsal_has_the_stages_of_the_run(tmp_path):
    names = [[s.name for s in gpu.make_stages(rehearse=r, folder=tmp_path, cifar10=True)] for r in (True, False)]
    assert names[0] == names[1]
    assert [name for name in names[0] if not name.startswith('steps')] == [
        'audit',
        'bench',
        'demo',
        'cifar10',
        'loader',
    ]


def test_a_rehearsal_reads_its_own_few_images(tmp_path):
    """Not the embedded dataset, whose rendering and ten views were half of the rehearsal's time."""
    gpu.make_small_datasets(tmp_path)
    data_dir = tmp_path / 'data'
    datasets = [open_dataset(name, data_dir=data_dir) for name in ('demo', 'cifar10')]
    assert [[own.examples(split) for split in ('train', 'validation')] for own in datasets] == [[64, 10], [64, 8]]
    stages = {stage.name: stage.command for stage in gpu.make_stages(rehearse=True, folder=tmp_path, cifar10=True)}
    assert [sum(str(data_dir) in word for word in stages[name]) for name in ('demo', 'cifar10', 'loader')] == [1, 1, 1]


def test_gpu_says_that_there_is_none_and_leaves_the_page(monkeypatch, capsys):
    monkeypatch.delenv('REHEARSE', raising=False)
    monkeypatch.setattr('alexnet_jax.benchmark.measure.find_gpu', lambda: None)
    before = gpu.PAGE.read_bytes()
    gpu.main()
    assert capsys.readouterr().out.startswith('no GPU')
    assert gpu.PAGE.read_bytes() == before
