"""Programs as XLA writes them for two and eight H100s: parts of real ones, without what it says of tuning."""

import pathlib
import re

import pytest

from alexnet_jax.communication.audit import schedule_table
from alexnet_jax.communication.gpu_program import format_kernels, format_overlaps, read_gpu_program
from alexnet_jax.communication.hlo import ProgramText, parse_arrays, parse_result
from alexnet_jax.communication.messages import compiled_schedule
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.training.build import build_run
from alexnet_jax.training.config import make_config
from alexnet_jax.training.validation import validate_config

FOLDER = pathlib.Path(__file__).parent
# Two towers, 128 images, float32; then four pairs of them, 128 images each: the sums over replicas and what they sum.
TOWERS, AVERAGES = ((FOLDER / f'{name}_h100.hlo').read_text() for name in ('two_device', 'hybrid'))
SLICE = re.compile(r'  %wrapped_slice\.(\d+) = ')
# 128 images of the other tower's channels or units, 4 bytes a number.
CONV3, FC6, FC7 = 128 * 13 * 13 * 128 * 4, 128 * 6 * 6 * 128 * 4, 128 * 2048 * 4
# A tower's: kernels by what it reads and its half of the outputs, biases, fc8 whole; then the loss and the error.
REST = (
    (11 * 11 * 3 + 1) * 48
    + (5 * 5 * 48 + 1) * 128
    + (3 * 3 * 256 + 1) * 192
    + (3 * 3 * 192 + 1) * 192
    + (3 * 3 * 192 + 1) * 128
    + 2048
    + 2048
    + (4096 + 1) * 1000
    + 2
)


def test_compiled_schedule_counts_what_started_exchanges_give_and_not_what_they_take():
    assert (CONV3, FC6, FC7) == (11_075_584, 2_359_296, 1_048_576)
    found = compiled_schedule(TOWERS, make_mesh(1, 2))
    assert [(m.layer, m.direction, m.op, m.bytes) for m in found] == [
        ('conv3', 'forward', 'all-gather', CONV3),
        ('fc6', 'forward', 'all-gather', FC6),
        ('fc7', 'forward', 'all-gather', FC7),
        ('fc8', 'forward', 'all-gather', FC7),
        ('fc7', 'backward', 'reduce-scatter', FC7),
        ('fc6', 'backward', 'reduce-scatter', FC6),
        ('conv3', 'backward', 'reduce-scatter', CONV3),
    ]
    assert sum(m.bytes for m in found) == 30_015_488
    assert [m.shape for m in found[4:]] == [(2, 128, 2048), (2, 128, 6, 6, 128), (2, 128, 13, 13, 128)]


def test_compiled_schedule_names_sums_over_replicas_after_the_layers_whose_gradients_they_are_of():
    found = compiled_schedule(AVERAGES, make_mesh(4, 2))
    # Of four replicas three quarters of each, twice.
    assert [(m.layer, m.axis, m.op, m.direction, m.bytes) for m in found] == [
        ('fc7', 'data', 'all-reduce', 'backward', 2 * 3 * 4096 * 2048),
        ('', 'data', 'all-reduce', 'backward', 2 * 3 * REST),
        ('fc6', 'data', 'all-reduce', 'backward', 2 * 3 * 9216 * 2048),
    ]
    joined = found[1].shape
    assert joined[:3] == ((2,), (48,), (11 * 11 * 3 * 48,))
    assert len(joined) == 15


@pytest.mark.parametrize(
    ('kept', 'named'),
    [
        (range(1, 11), 'conv1-5'),
        ([*range(1, 11), 13, 14], 'conv1-5+fc8'),
        ([1, 11, 14], 'conv1+fc6+fc8'),
        ([7, 8], 'conv4'),
    ],
)
def test_compiled_schedule_names_a_sum_after_some_layers_where_it_is_not_of_all(kept, named):
    """By which of its slices are used: 1 to 10 are the convolutions', then come fc6's and fc7's biases, and fc8's."""
    lines = [line for line in AVERAGES.splitlines() if not (found := SLICE.match(line)) or int(found[1]) in kept]
    assert [m.layer for m in compiled_schedule('\n'.join(lines), make_mesh(4, 2))] == ['fc7', named, 'fc6']


def test_schedule_table_has_the_formula_of_all_gradients_once():
    config = make_config('imagenet2012', parallelism='hybrid', mesh=(4, 2))
    config.update(batch_size=512)
    run = build_run(validate_config(config), num_classes=1000, examples=1, mesh=make_mesh(4, 2))
    messages = compiled_schedule(AVERAGES, run.mesh)
    lines = schedule_table(run, traced=[], compiled=messages).splitlines()
    gradients = 2 * 3 * (REST - 2 + 4096 * 2048 + 9216 * 2048)
    (line,) = [line for line in lines if f'{gradients:,}' in line]
    assert line.startswith("total over 'data': 3 collectives") and f'{gradients + 12:,} bytes received' in line
    rows = [line.split() for line in lines[2:5]]
    assert [row[1] for row in rows] == ['fc7', 'all', 'fc6']
    assert [row[5] for row in rows] == ['-', '-', '-']
    # One sum of all stands beside it, as before.
    (alone,) = [
        line for line in schedule_table(run, traced=[], compiled=messages[:1]).splitlines() if 'all-reduce ' in line
    ]
    assert alone.split()[5] == f'{gradients:,}'


@pytest.mark.parametrize(
    ('op', 'text', 'shapes'),
    [
        ('all-gather-start', '(f32[1,8]{1,0}, f32[2,8]{1,0})', [(2, 8)]),
        ('all-gather-start', '((f32[1,8], f32[1,4]), (f32[2,8], f32[2,4]))', [(2, 8), (2, 4)]),
        ('reduce-scatter-start', '((f32[2,8]{1,0:T(8,128)}), f32[1,8]{1,0})', [(1, 8)]),
        ('all-reduce-start', '(f32[8], f32[4])', [(8,), (4,)]),
        ('all-reduce-start', 'f32[8]{0}', [(8,)]),
        ('collective-permute-start', '(f32[8]{0:S(1)}, f32[8], u32[]{:S(2)}, u32[]{:S(2)})', [(8,)]),
        ('reduce-scatter', '(f32[1,8], f32[1,4])', [(1, 8), (1, 4)]),
    ],
)
def test_parse_result_gives_what_the_end_of_a_collective_gives(op, text, shapes):
    assert [array.shape for array in parse_result(op, text)] == shapes


@pytest.mark.parametrize(
    ('op', 'text'),
    [
        ('all-gather-start', 'f32[2,8]'),  # no operand
        ('all-gather-start', '(f32[1,8], f32[1,4], f32[2,8], f32[2,4])'),  # which are the operands?
        ('reduce-scatter-start', '((f32[2,8], f32[2,4]), f32[1,8])'),
        ('reduce-scatter-start', '((f32[2,8]), f32[1,8], f32[4])'),
    ],
)
def test_parse_result_refuses_a_type_that_it_does_not_understand(op, text):
    with pytest.raises(ValueError, match=f'what does {op} give'):
        parse_result(op, text)


def test_program_text_refuses_what_it_does_not_understand():
    with pytest.raises(ValueError, match='of what size'):
        parse_arrays('f4new[8]')
    assert parse_arrays('(token[], f8e4m3fn[3])')[0].bytes == 3
    with pytest.raises(ValueError, match=r'what instruction is this\? %new := f32\[8\]'):
        ProgramText(TOWERS.replace('  %all-gather-done.1 =', '  %new := f32[8]\n  %all-gather-done.1 ='))


def test_read_gpu_program_tells_whose_kernels_are_whose_and_what_runs_under_a_message():
    found = read_gpu_program(TOWERS, make_mesh(1, 2))
    kernels = {kernel.name: kernel for kernel in found.kernels}
    assert [(k.library, k.what, k.layer, k.direction) for k in found.kernels if k.product] == [
        ('cuDNN', 'convBiasForward', 'conv3', 'forward'),
        ('Triton', 'nested_gemm_fusion', 'fc6', 'forward'),
        ('Triton', 'nested_gemm_fusion', 'fc7', 'backward'),
        ('Triton', 'nested_gemm_fusion', 'fc8', 'backward'),
        ('cuDNN', 'convBackwardInput', 'conv3', 'backward'),
        ('Triton', 'nested_gemm_fusion', 'fc6', 'backward'),
        ('cuDNN', 'convBackwardFilter', 'conv5', 'backward'),
    ]
    assert {kernel.library for kernel in found.kernels if not kernel.product} == {'XLA'}
    # fc8's gather is started and waited for at once.
    assert found.asynchronous == [True, True, True, False, True, True, True]
    assert {name: kernel.under for name, kernel in kernels.items() if kernel.under} == {
        'loop_broadcast_fusion': (0,),
        'gemm_fusion_transpose.40': (4,),
        'gemm_fusion_transpose.41': (5,),
        'cudnn-conv-bw-filter.10': (6,),
    }
    # What the compiler calls synchronous waits at its start.
    waits = re.sub(r'(%reduce-scatter-start\.2 = .*"is_sync":)false', r'\1true', TOWERS)
    (last,) = [k for k in read_gpu_program(waits, make_mesh(1, 2)).kernels if k.name == 'cudnn-conv-bw-filter.10']
    assert last.under == ()
    # Two arrays of zeros are written; of what fc7's weight gradient reads, the units of both towers are in the text.
    assert kernels['loop_broadcast_fusion'].traffic == 2 * 128 * 13 * 13 * 128 * 4
    assert kernels['gemm_fusion_transpose.40'].traffic == (4096 * 2048 + 2 * 128 * 2048) * 4
    text = '\n'.join([*format_kernels(found.kernels), *format_overlaps(found)])
    assert '  1 x convBackwardFilter backward: conv5' in text
    assert '  all-gather forward at fc8: synchronous' in text
    assert '  reduce-scatter backward at conv3: 1 kernels beside it' in text and ': conv5 (cuDNN)' in text


@pytest.mark.parametrize(
    ('old', 'new', 'complaint'),
    [
        (', is_scheduled=true', '', 'has no schedule'),
        ('__cudnn$convBackwardInput', 'new_library', 'whose kernel is this'),
        ('__cudnn$convBackwardInput', '__new$convBackwardInput', 'whose kernel is this'),
        (
            'all-gather-done(%all-gather-start.1)',
            'all-gather-done(%other)',
            'is no part of the schedule, or does not end',
        ),
        ('replica_groups={{0,1}}, dimensions={0}', 'replica_groups=<new>, dimensions={0}', 'no replica groups'),
    ],
)
def test_read_gpu_program_refuses_what_it_does_not_understand(old, new, complaint):
    assert old in TOWERS
    with pytest.raises(ValueError, match=complaint):
        read_gpu_program(TOWERS.replace(old, new), make_mesh(1, 2))
