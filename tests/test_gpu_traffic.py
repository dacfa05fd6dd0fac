"""The account of what a GPU's step moves: of a program written here, and the least of layers, both counted by hand."""

from alexnet_jax.model.spec import Relu
from alexnet_jax.model.zoo import PAPER, RELEASED
from experiments.gpu_traffic import UPDATE, count_kernels, count_least, format_traffic

# Two images of 4x4 pixels, one convolution of eight maps, its normalisation, their gradients, and the update.
PROGRAM = """HloModule step, is_scheduled=true

%inside (p: bf16[2,2,2,8]) -> bf16[2,2,2,8] {
  ROOT %p = bf16[2,2,2,8]{3,2,1,0} parameter(0)
}

ENTRY %main (images: u8[2,4,4,3], kernel: f32[3,3,3,8], momentum: f32[3,3,3,8]) -> f32[3,3,3,8] {
  %images = u8[2,4,4,3]{3,2,1,0} parameter(0), metadata={op_name="batch.images"}
  %kernel = f32[3,3,3,8]{3,2,1,0} parameter(1), metadata={op_name="state.params[\\'conv1\\'][\\'kernel\\']"}
  %momentum = f32[3,3,3,8]{3,2,1,0} parameter(2), \
metadata={op_name="state.opt_state[3].trace[\\'conv1\\'][\\'kernel\\']"}
  %pixels = bf16[2,4,4,3]{3,2,1,0} fusion(%images), kind=kLoop, calls=%inside, metadata={op_name="jit(step)/sub"}
  %cast = bf16[8,3,3,3]{3,2,1,0} fusion(%kernel), kind=kInput, calls=%inside, \
metadata={op_name="jit(step)/jvp(AlexNet)/AlexNet._parameters/convert_element_type"}
  %conv = (bf16[2,2,2,8]{3,2,1,0}, u8[0]{0}) custom-call(%pixels, %cast), custom_call_target="__cudnn$convForward", \
metadata={op_name="jit(step)/jvp(AlexNet)/AlexNet._convolve/conv1/conv_general_dilated"}
  %maps = bf16[2,2,2,8]{3,2,1,0} get-tuple-element(%conv), index=0
  %towers = bf16[2,2,2,2,4]{4,3,2,1,0} bitcast(%maps)
  %norm = bf16[2,2,2,2,4]{4,3,2,1,0} fusion(%towers), kind=kLoop, calls=%inside, \
metadata={op_name="jit(step)/jvp(AlexNet)/AlexNet._operate/mul"}
  %back = (f32[8]{0}, bf16[2,2,2,8]{3,2,1,0}) fusion(%norm, %towers, %maps), kind=kInput, calls=%inside, \
metadata={op_name="jit(step)/transpose(jvp(AlexNet))/AlexNet._operate/mul"}
  %gradient = bf16[2,2,2,8]{3,2,1,0} get-tuple-element(%back), index=1
  %filter = (bf16[8,3,3,3]{3,2,1,0}, u8[0]{0}) custom-call(%pixels, %gradient), \
custom_call_target="__cudnn$convBackwardFilter", \
metadata={op_name="jit(step)/transpose(jvp(AlexNet))/AlexNet._convolve/conv1/conv_general_dilated"}
  %weights = bf16[8,3,3,3]{3,2,1,0} get-tuple-element(%filter), index=0
  %updated = (f32[3,3,3,8]{3,2,1,0}, f32[3,3,3,8]{3,2,1,0}) fusion(%kernel, %momentum, %weights), kind=kInput, \
calls=%inside, metadata={op_name="jit(step)/cond"}
  %new = f32[3,3,3,8]{3,2,1,0} get-tuple-element(%updated), index=0
  ROOT %copy.1 = f32[3,3,3,8]{3,2,1,0} copy(%new)
}
"""
IMAGES, MAPS, WEIGHTS = 2 * 4 * 4 * 3, 2 * 2 * 2 * 8, 3 * 3 * 3 * 8


def test_count_kernels_gives_each_its_part_and_counts_an_array_that_it_reads_by_two_names_once():
    rows = count_kernels(PROGRAM)
    assert [(name, what, group, read, written) for name, what, group, read, written in rows] == [
        ('pixels', 'XLA fusion', ('', 'input'), IMAGES, 2 * IMAGES),
        ('cast', 'XLA fusion', ('conv1', 'forward'), 4 * WEIGHTS, 2 * WEIGHTS),
        ('conv', 'cuDNN convForward', ('conv1', 'forward'), 2 * IMAGES + 2 * WEIGHTS, 2 * MAPS),
        ('norm', 'XLA fusion', ('conv1', 'forward, between'), 2 * MAPS, 2 * MAPS),
        ('back', 'XLA fusion', ('conv1', 'backward, between'), 2 * 2 * MAPS, 2 * MAPS + 4 * 8),
        ('filter', 'cuDNN convBackwardFilter', ('conv1', 'backward'), 2 * IMAGES + 2 * MAPS, 2 * WEIGHTS),
        ('updated', 'XLA fusion', UPDATE, (4 + 4 + 2) * WEIGHTS, 2 * 4 * WEIGHTS),
        ('copy.1', 'XLA copy', UPDATE, 4 * WEIGHTS, 4 * WEIGHTS),
    ]
    lines = format_traffic(rows, {('conv1', 'forward'): 1000, UPDATE: 13 * WEIGHTS}).splitlines()
    cast_and_conv = 8 * WEIGHTS + 2 * IMAGES + 2 * MAPS
    assert lines[1].split() == ['conv1', 'forward', '2', '0.0', '0.0', f'{cast_and_conv / 1000:.2f}']
    assert lines[2].split() == ['update', '2', '0.0', '0.0', '2.00']  # 18 and 8 bytes a weight, of 13
    assert lines[-1].startswith('all ') and lines[-1].split()[1] == '8'


# Numbers of one image: the pixels, what conv1 to conv5 give before pooling, and what the next layer reads of it.
PIXELS = 224 * 224 * 3
MADE = {'conv1': 55 * 55 * 96, 'conv2': 27 * 27 * 256, 'conv3': 13 * 13 * 384, 'conv4': 13 * 13 * 384}
MADE['conv5'] = 13 * 13 * 256
LEFT = MADE | {'conv1': 27 * 27 * 96, 'conv2': 13 * 13 * 256, 'conv5': 6 * 6 * 256}
HELD = {'conv1': 11 * 11 * 3 * 96, 'conv2': 25 * 48 * 256, 'conv3': 9 * 256 * 384, 'conv4': 9 * 192 * 384}
HELD |= {'conv5': 9 * 192 * 256, 'fc6': 9216 * 4096, 'fc7': 4096**2, 'fc8': 4096 * 1000}


def test_count_least_is_each_product_s_operands_and_result_and_one_pass_between_two():
    least = count_least(PAPER, images=3, itemsize=2)
    assert least['', 'input'] == 3 * PIXELS * (1 + 2)
    assert least['conv1', 'forward'] == 2 * 3 * (PIXELS + MADE['conv1']) + 4 * HELD['conv1']
    # No gradient of the image.
    assert least['conv1', 'backward'] == 2 * 3 * (PIXELS + MADE['conv1']) + 2 * HELD['conv1']
    for layer in ('conv1', 'conv2', 'conv5'):
        assert least[layer, 'forward, between'] == 2 * 3 * (MADE[layer] + LEFT[layer])
        assert least[layer, 'backward, between'] == 2 * 3 * (2 * MADE[layer] + LEFT[layer])
    assert not [group for group in least if group[0] in ('conv3', 'conv4', 'fc6', 'fc7') and 'between' in group[1]]
    # conv3 reads what was normalised, conv4 what conv3 gave: the ReLU between the two asks where that is not 0.
    maps, weights = 2 * 3 * (LEFT['conv2'] + MADE['conv3']), 2 * HELD['conv3']
    assert least['conv3', 'backward'] == 2 * maps + weights + 4 * HELD['conv3']
    maps, weights = 2 * 3 * (MADE['conv3'] + MADE['conv4']), 2 * HELD['conv4']
    assert least['conv4', 'backward'] == 2 * maps + 2 * 3 * MADE['conv3'] + weights + 4 * HELD['conv4']
    assert least['fc6', 'forward'] == 2 * 3 * (9216 + 4096) + 4 * HELD['fc6']
    # Weights and momenta in float32, read and written; gradients read as the products give them.
    assert least['', 'update'] == sum(HELD.values()) * (4 * 4 + 2)


def test_count_least_of_another_order_is_the_same_and_without_more_than_an_activation_less():
    assert RELEASED.convs[0].then[-1] == Relu()
    least = count_least(RELEASED, images=1, itemsize=4)
    assert least['conv1', 'backward, between'] == 4 * (2 * MADE['conv1'] + LEFT['conv1'])
    assert ('conv4', 'forward, between') not in least
