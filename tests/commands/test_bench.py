"""The benchmark command, as a user runs it, on a network that takes no time."""

import json
import subprocess
import sys

import cli
import pytest

from alexnet_jax.benchmark.input_figures import STAGES


@pytest.mark.slow
def test_bench_step_measures_both_meshes_and_the_ceilings(program_cache):
    process = cli.run(
        'bench', 'step', '--width=0.03125', '--classes=10', '--batch=4', '--rounds=2', '--seconds=0.02', '--nolayers',
        '--json', cache=program_cache,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    *text, last = process.stdout.splitlines()
    found = json.loads(last)
    for program in ('train', 'inference'):
        for figures in (found[program], found['two_device'][program]):
            low, high = figures['images_per_second_quartiles']
            assert 0 < low <= figures['images_per_second'] <= high
        # A network this narrow is far from the machine's matrix products.
        assert 0 < found[program]['fraction_of_gemm'] < 0.5
        assert found[program]['ratio_to_torch'] is found[program]['ratio_to_torch_best'] is None
    assert found['two_device']['ratio_to_one_device'] > 0
    assert set(found['ceilings']) == {'gemm_numpy', 'gemm_xla', 'copy', 'add'}
    assert min(found['ceilings'].values()) > 0
    assert found['by_batch']['4']['train'] == found['train']
    assert found['setting'] == {'width': 0.03125, 'classes': 10, 'allocator': 'tuned'}
    assert found['hardware']['cores'] >= 1
    if sys.platform.startswith('linux'):
        assert 50e6 < found['peak_bytes']['one_device'] < 5e9
        assert 0 <= found['foreign']['median'] <= found['foreign']['worst'] <= 1
    assert any(line.startswith('this project, two devices') for line in text)
    assert 'batch 4: round 2 of 2' in process.stderr


@pytest.mark.slow
def test_bench_input_measures_every_stage_and_names_the_limit(tiny_dir, tmp_path):
    process = cli.run(
        'bench', 'input', '--dataset=tiny', f'--data_dir={tiny_dir}', '--batch=8', '--rounds=2', '--seconds=0.02',
        '--appetite=0.5', '--json', cache=tmp_path,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    *text, last = process.stdout.splitlines()
    found = json.loads(last)
    stages = found['stages']
    assert set(stages) == set(STAGES)
    for figures in (*stages.values(), *found['prepared records']['threads'].values()):
        low, high = figures['images_per_second_quartiles']
        assert 0 < low <= figures['images_per_second'] <= high
    # A batch is made of the others: it takes longer than its largest part, and no more than a few times as long.
    decode, batch = (stages[name]['images_per_second'] for name in ('decode', 'batch'))
    assert decode / 10 < batch < decode * 1.5
    assert found['bytes']['transfer'] == 224 * 224 * 3 + 4 + 3 * 4 + 3 * 4  # label, lighting, place
    assert 1000 < found['bytes']['read'] < 40_000
    assert 50_000 < found['bytes']['photo_read'] < 150_000
    assert (found['appetite'], found['limit']) == (0.5, 'model')
    assert found['headroom'] == list(found['prepared records']['threads'].values())[-1]['images_per_second'] / 0.5
    assert found['prepared records']['ratio_to_tf'] is None
    assert [line for line in process.stderr.splitlines() if not line.startswith('batch 8: ')] == []
    assert any('the training step takes 0.5 images/s: the model is the limit' in line for line in text)
    assert not any('tf.data' in line or 'PyTorch' in line for line in text)
    assert found['cores']['raw records']['20000'] == 20_000 / found['per_core']['raw records']['images_per_second']


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ([], 'nothing cannot be measured: alexnet bench step, or input'),
        (['epoch'], 'epoch cannot be measured: alexnet bench step, or input'),
        (['step', '--against=tf'], '--against=tf does not go with step: give --against=torch'),
        (
            ['input', '--data_dir=nowhere'],
            "no dataset 'demo' in nowhere (prepared there: none); make it with "
            '`alexnet prepare --dataset=demo --data_dir=nowhere`, or from a folder of images with '
            '`--images=DIR --name=demo`',
        ),
        (['step', '--batch=32,0'], '--batch=32,0: give different positive numbers, as in --batch=128,32'),
        (['step', '--batch=32,32'], '--batch=32,32: give different positive numbers, as in --batch=128,32'),
        (['step', '--device=gpu', '--precision=half'], '--precision=half: give some of float32,tf32,bfloat16'),
        (
            ['step', '--device=gpu'],  # the tests' machine has JAX on the CPU alone
            "--device=gpu: JAX finds no GPU here: pip install 'alexnet-jax[cuda12]', and see nvidia-smi",
        ),
    ],
)
def test_bench_reports_a_mistake_in_one_line(options, message, tmp_path):
    process = cli.run('bench', *options, cache=tmp_path)
    assert (process.returncode, process.stderr) == (1, f'error: {message}\n')


def test_bench_help_imports_no_numerical_library():
    code = "import sys; sys.argv = ['alexnet', 'bench', '--help']; import runpy\n"
    code += 'try: runpy.run_module("alexnet_jax", run_name="__main__")\nfinally: print(*sys.modules)'
    found = subprocess.run([sys.executable, '-c', code], cwd=cli.ROOT, capture_output=True, text=True).stdout
    assert '--against' in found
    assert 'absl' in found.splitlines()[-1].split()
    assert {'jax', 'numpy', 'torch'}.isdisjoint(found.splitlines()[-1].split())
