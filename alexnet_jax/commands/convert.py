"""Converts weights: from a run or another program's file to a file of another kind.

    alexnet convert --workdir=runs/NAME --to=onnx --output=NAME.onnx
    alexnet convert --workdir=runs/NAME --to=safetensors --output=NAME.safetensors
    alexnet convert --weights=bvlc_alexnet.caffemodel --to=safetensors --output=bvlc.safetensors
    alexnet convert --weights=alexnet-owt-7be5be79.pth --classes=synset_words.txt --to=onnx --output=torchvision.onnx

Read are safetensors, ONNX, Caffe's .caffemodel, PyTorch's .pth, MatConvNet's .mat, Keras's .keras and .h5, and the
bvlc_alexnet.npy of many ports; nothing of them is run. Preprocessing travels
inside the file: mean, geometry, classes. docs/weights.md has the table of what goes where.
"""

import pathlib

from absl import flags, logging

from alexnet_jax.commands.command_line import parse_options

_WORKDIR = flags.DEFINE_string('workdir', None, 'A run folder: the weights of its newest checkpoint.')
_STEP = flags.DEFINE_integer('step', None, '--workdir: of this checkpoint instead.', lower_bound=0)
_WEIGHTS = flags.DEFINE_string(
    'weights', None, 'A file of weights: safetensors, ONNX, .caffemodel, .pth, .mat, .keras, .h5, .npy or .npz.'
)
_VARIANT = flags.DEFINE_string(
    'variant', None, '--weights: which network, where a file does not say: caffe_alexnet, caffenet, ...'
)
_MEAN = flags.DEFINE_string(
    'mean', None, "--weights: what the network subtracts: R,G,B of 0..255, or Caffe's .binaryproto."
)
_CLASSES = flags.DEFINE_string(
    'classes', None, 'Names of the outputs: a file (synset_words.txt, a name a line, JSON), or imagenet2012.'
)
_TO = flags.DEFINE_string('to', None, 'onnx, safetensors, torchvision, stablehlo, or npy (of bvlc_alexnet).')
_OUTPUT = flags.DEFINE_string('output', None, 'The file to write; for stablehlo the date is added to its name.')
flags.mark_flags_as_required(['to', 'output'])
parse = parse_options


def main(_: list[str]) -> None:
    """Opens one, writes the other."""
    logging.set_verbosity(logging.ERROR)
    from alexnet_jax.weights.convert import convert, open_source

    network = open_source(
        workdir=_WORKDIR.value,
        step=_STEP.value,
        weights=_WEIGHTS.value,
        variant=_VARIANT.value,
        mean=_MEAN.value,
        classes=_CLASSES.value,
    )
    print(convert(network, to=_TO.value, output=pathlib.Path(_OUTPUT.value)))
