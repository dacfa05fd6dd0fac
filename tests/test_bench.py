"""The benchmark command, as a user runs it, on a network that takes no time."""

import json
import subprocess
import sys

import commands
import pytest


def test_step_measures_both_meshes_and_the_ceilings(program_cache):
    process = commands.run(
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


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ([], 'nothing cannot be measured: python -m alexnet_jax.bench step'),
        (['epoch'], 'epoch cannot be measured: python -m alexnet_jax.bench step'),
        (['step', '--batch=32,0'], '--batch=32,0: give different positive numbers, as in --batch=128,32'),
        (['step', '--batch=32,32'], '--batch=32,32: give different positive numbers, as in --batch=128,32'),
    ],
)
def test_a_mistake_is_one_line(options, message, tmp_path):
    process = commands.run('bench', *options, cache=tmp_path)
    assert (process.returncode, process.stderr) == (1, f'error: {message}\n')


def test_help_imports_no_numerical_library():
    code = "import sys; sys.argv = ['bench', '--help']; import runpy\n"
    code += 'try: runpy.run_module("alexnet_jax.bench", run_name="__main__")\nfinally: print(*sys.modules)'
    found = subprocess.run([sys.executable, '-c', code], cwd=commands.ROOT, capture_output=True, text=True).stdout
    assert '--against' in found
    assert 'absl' in found.splitlines()[-1].split()
    assert {'jax', 'numpy', 'torch'}.isdisjoint(found.splitlines()[-1].split())
