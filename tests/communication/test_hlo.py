"""Programs as compilers for TPUs write them: short excerpts of real ones, only their backend_config left out."""

import pytest

from alexnet_jax.communication.hlo import ProgramText
from alexnet_jax.communication.messages import compiled_schedule
from alexnet_jax.sharding.mesh import make_mesh

GATHER = (
    '  %all-gather.18 = bf16[2,128,13,13,8]{1,4,3,2,0:T(8,128)(2,1)S(1)} all-gather(%fusion.39), channel_id=1, '
    'replica_groups={{0,1},{2,3}}, dimensions={0}, use_global_device_ids=true, '
    'frontend_attributes={async_collective_name="all-gather-start"}, '
    'metadata={op_name="jit(train_step)/shard_map/jvp(AlexNet)/exchange_conv3/all_gather" stack_frame_id=87}'
)
# The gradient of conv3's exchange: a kernel that sums and keeps a slice, and a rest of one row, none of them named.
SCATTER = """
%all-reduce-scatter (input: f32[2,128,13,13,8]) -> f32[170,8,128] {
  %input = f32[2,128,13,13,8]{1,4,3,2,0:T(8,128)S(1)} parameter(0)
  %bitcast.57 = f32[338,8,128]{2,1,0:T(8,128)} bitcast(%input)
  %constant.379 = f32[] constant(0)
  %pad.11 = f32[340,8,128]{2,1,0:T(8,128)} pad(%bitcast.57, %constant.379), padding=0_2x0_0x0_0
  %all-reduce.18 = f32[340,8,128]{2,1,0:T(8,128)} all-reduce(%pad.11), channel_id=6, replica_groups={{0,1},{2,3}}, \
use_global_device_ids=true, to_apply=%region_15.20.clone
  ROOT %dynamic-slice.7 = f32[170,8,128]{2,1,0:T(8,128)S(1)} dynamic-slice(%all-reduce.18, %multiply.7), \
dynamic_slice_sizes={170,8,128}
}

ENTRY %main.1 (param: f32[4]) -> f32[171,8,128] {
  %fused = f32[2,128,13,13,8]{1,4,0,3,2:T(8,128)S(1)} fusion(%get-tuple-element.774, %copy-done.8), kind=kOutput, \
calls=%fused_computation.78, \
metadata={op_name="jit(train_step)/shard_map/transpose(jvp(AlexNet))/AlexNet._convolve/conv3/conv_general_dilated"}
  %copy.84 = f32[2,128,13,13,8]{1,4,3,2,0:T(8,128)S(1)} copy(%fused), \
metadata={op_name="jit(train_step)/shard_map/transpose(jvp(AlexNet))/transpose" stack_frame_id=88}
  %fusion = f32[170,8,128]{2,1,0:T(8,128)S(1)} fusion(%copy.84), kind=kCustom, calls=%all-reduce-scatter
  %slice.58 = f32[1,8,128]{2,1,0:T(8,128)S(1)} slice(%fusion), slice={[169:170], [0:8], [0:128]}
  %collective-permute-start = (f32[1,8,128]{2,1,0:T(8,128)S(1)}, f32[1,8,128]{2,1,0:T(8,128)S(1)}, u32[]{:S(2)}, \
u32[]{:S(2)}) collective-permute-start(%slice.58), channel_id=1, source_target_pairs={{0,1},{2,3}}
  %collective-permute-done = f32[1,8,128]{2,1,0:T(8,128)S(1)} collective-permute-done(%collective-permute-start)
}
"""
MEAN = (
    '  %all-reduce.19 = (f32[2]{0:T(128)S(1)}, f32[3]{0:T(128)S(1)}, f32[11,11,3,3]{3,2,1,0:T(4,128)S(1)}, '
    '/*index=5*/f32[12]{0:T(128)S(1)}) all-reduce(%pad_maximum_fusion, %get-tuple-element.771, %fusion.1, '
    '/*index=5*/%get-tuple-element.773), channel_id=1, replica_groups={{0,2},{1,3}}, use_global_device_ids=true, '
    'to_apply=%region_9.14, metadata={op_name="jit(train_step)/shard_map/jvp()/psum_invariant" stack_frame_id=141}'
)


def test_compiled_schedule_reads_a_gather_between_layouts_with_tiles():
    (message,) = compiled_schedule(GATHER, make_mesh(2, 2))
    assert (message.layer, message.op, message.axis, message.direction) == ('conv3', 'all-gather', 'tower', 'forward')
    assert (message.shape, message.dtype) == ((2, 128, 13, 13, 8), 'bfloat16')
    assert message.bytes == 128 * 13 * 13 * 8 * 2  # the other tower's


# As jaxlib 0.12 writes it for one weird trick: gathers of the partitioner's are named after what they read.
PARTITIONED = """
ENTRY %main.1 (param: f32[4]) -> f32[128,13,13,384] {
  %maximum = f32[64,13,13,384]{3,2,1,0} fusion(%param), kind=kLoop, calls=%fused, \
metadata={op_name="jit(loss)/jvp(AlexNet)/AlexNet._convolve/conv3/add"}
  %all-gather.1 = f32[128,13,13,384]{3,2,1,0} all-gather(%maximum), channel_id=2, replica_groups={{0,1},{2,3}}, \
dimensions={0}, use_global_device_ids=true, frontend_attributes={is_spmd_generated="true"}, \
metadata={op_name="jit(loss)/jvp(AlexNet)/AlexNet._operate/jit(relu)/max" stack_frame_id=97}
  %copy.1 = f32[128,13,13,384]{3,2,1,0} copy(%all-gather.1)
  %convolution.3 = f32[128,13,13,384]{3,2,1,0} convolution(%copy.1, %param.22), window={size=3x3 pad=1_1x1_1}, \
dim_labels=b01f_01io->b01f, feature_group_count=2, \
metadata={op_name="jit(loss)/jvp(AlexNet)/AlexNet._convolve/conv4/conv_general_dilated" stack_frame_id=93}
  %all-reduce.1 = f32[2]{0} all-reduce(%stack), channel_id=3, replica_groups={{0,1},{2,3}}, to_apply=%add, \
frontend_attributes={is_spmd_generated="true"}, metadata={op_name="jit(loss)/reduce_sum"}
}
"""


def test_compiled_schedule_gives_what_the_partitioner_adds_to_the_layer_that_reads_it():
    gather, total = compiled_schedule(PARTITIONED, make_mesh(2, 2))
    assert (gather.layer, gather.op, gather.direction) == ('conv4', 'all-gather', 'forward')
    assert (total.layer, total.op) == ('', 'all-reduce')  # no layer reads it


def test_compiled_schedule_leaves_a_name_of_the_code_s_own_as_it_is():
    own = PARTITIONED.replace('frontend_attributes={is_spmd_generated="true"}, ', '')
    assert [message.layer for message in compiled_schedule(own, make_mesh(2, 2))] == ['', '']


def test_compiled_schedule_counts_the_result_of_a_started_gather_once():
    started = (
        '  %ag = (bf16[1,8]{1,0:T(8,128)}, bf16[2,8]{1,0:T(8,128)}) all-gather-start(%x), '
        'replica_groups={{0,1},{2,3}}, dimensions={0}\n  %done = bf16[2,8]{1,0:T(8,128)} all-gather-done(%ag)'
    )
    (message,) = compiled_schedule(started, make_mesh(2, 2))
    assert (message.shape, message.bytes) == ((2, 8), 16)


def test_compiled_schedule_reads_a_sum_and_its_slice_as_a_scatter_of_the_layer_behind():
    scatter, rest = compiled_schedule(SCATTER, make_mesh(2, 2))
    assert (scatter.layer, scatter.op, scatter.axis) == ('conv3', 'reduce-scatter', 'tower')
    assert scatter.bytes == 170 * 8 * 128 * 4  # with two rows of padding in 340, the own half of them
    assert (rest.layer, rest.op, rest.axis) == ('conv3', 'collective-permute', 'tower')
    assert rest.bytes == 8 * 128 * 4  # all of what arrives
    assert scatter.direction == rest.direction == 'backward'


def test_compiled_schedule_reads_many_arrays_in_one_sum_as_one_message():
    (message,) = compiled_schedule(MEAN, make_mesh(2, 2))
    assert (message.layer, message.op, message.axis) == ('', 'all-reduce', 'data')
    assert message.shape == ((2,), (3,), (11, 11, 3, 3), (12,))
    assert message.bytes == 4 * (2 + 3 + 11 * 11 * 3 * 3 + 12)  # of two devices half, twice


@pytest.mark.parametrize(
    'line',
    [
        '  %new = f32[8]{0} all-to-some(%x), replica_groups={{0,1},{2,3}}',
        '  %new = f32[8]{0} permute-new(%x), source_target_pairs={{0,1},{2,3}}',
    ],
)
def test_compiled_schedule_refuses_an_unknown_collective(line):
    with pytest.raises(ValueError, match='no collective that this program can read'):
        compiled_schedule(line, make_mesh(2, 2))


def test_memory_traffic_counts_copies_but_not_what_stays_on_the_chip():
    program = ProgramText("""
%branch_0 (p: f32[8]) -> f32[8] {
  ROOT %small = f32[8]{0:T(128)} copy(%p)
}

%branch_1 (q: f32[8]) -> f32[100] {
  %q = f32[8]{0:T(128)} parameter(0)
  ROOT %large = f32[100]{0:T(128)} fusion(%q), kind=kLoop, calls=%unseen
}

ENTRY %main (weights: f32[3,10,10]) -> f32[100] {
  %weights = f32[3,10,10]{2,1,0:T(8,128)} parameter(0)
  %slice-start = ((f32[3,10,10]{2,1,0:T(8,128)}), f32[1,10,10]{2,1,0:T(8,128)S(1)}, s32[]{:S(2)}) \
slice-start(%weights), slice={[0:1], [0:10], [0:10]}
  %slice-done = f32[1,10,10]{2,1,0:T(8,128)S(1)} slice-done(%slice-start)
  %fusion.1 = (bf16[50]{0:T(128)(2,1)S(1)}, f32[20]{0:T(128)}) fusion(%slice-done, %weights), kind=kLoop, calls=%unseen
  %inside = bf16[50]{0:T(128)(2,1)S(1)} get-tuple-element(%fusion.1), index=0
  %add = bf16[50]{0:T(128)(2,1)S(1)} add(%inside, %inside)
  %copy-start = (bf16[50]{0:T(128)(2,1)}, bf16[50]{0:T(128)(2,1)S(1)}, u32[]{:S(2)}) copy-start(%add)
  %copy-done = bf16[50]{0:T(128)(2,1)} copy-done(%copy-start)
  ROOT %conditional = f32[100]{0:T(128)} conditional(%one, %weights, %weights), \
branch_computations={%branch_0, %branch_1}
}
""")
    read_slice, fusion, copied, branch = 100 * 4, (20 + 300) * 4, 50 * 2, (100 + 8) * 4
    assert program.memory_traffic() == read_slice + fusion + copied + branch


def test_memory_traffic_refuses_a_loop_of_unknown_length():
    loop = 'ENTRY %main (p: f32[8]) -> f32[8] {\n  %w = f32[8]{0} while(%p), condition=%c, body=%b\n}'
    with pytest.raises(ValueError, match='how often'):
        ProgramText(loop).memory_traffic()
