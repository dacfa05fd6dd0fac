"""Converts a run or a file of weights to a file of another kind."""

import datetime
import pathlib

from alexnet_jax.checkpoints.hashes import hash_tree
from alexnet_jax.checkpoints.load import load_network
from alexnet_jax.errors import InputError
from alexnet_jax.files import check_writable
from alexnet_jax.model.network import Network
from alexnet_jax.weights import caffe_dictionary, onnx_write, safetensors_file, stablehlo, torchvision
from alexnet_jax.weights.class_names import name_classes
from alexnet_jax.weights.layout import flatten, format_name
from alexnet_jax.weights.open_weights import open_weights

FORMATS = ('safetensors', 'onnx', 'torchvision', 'stablehlo', 'npy')


def open_source(
    *,
    workdir: str | None,
    step: int | None,
    weights: str | None,
    variant: str | None,
    mean: str | None,
    classes: str | None = None,
) -> Network:
    """Opens the network of a run's checkpoint (its newest, or `step`) or of a file, as `open_weights` does.

    `classes` names its outputs, as of `name_classes`.

    Raises:
      InputError: not one of the two is given, or what is given cannot be read.
    """
    if (workdir is None) == (weights is None):
        raise InputError('give --workdir=RUN, a run folder, or --weights=FILE, one of the two')
    if workdir is not None:
        if variant is not None or mean is not None:
            raise InputError('--variant and --mean are for files of other programs: a run has its own')
        return name_classes(load_network(pathlib.Path(workdir), step=step), classes)
    if step is not None:
        raise InputError('--step is for --workdir: a file of weights has one state')
    return name_classes(open_weights(weights or '', variant=variant, mean=mean), classes)


def convert(network: Network, *, to: str, output: pathlib.Path) -> str:
    """Writes a network in one of FORMATS; returns a few lines that say what was written.

    Raises:
      InputError: that format has no such network, or the file cannot be written.
    """
    if to not in FORMATS:
        raise InputError(f'--to={to}: give one of {", ".join(FORMATS)}')
    network.check_trained()
    check_writable(output, option='--output')
    notes, size = [], network.variant.input_size
    match to:
        case 'safetensors':
            safetensors_file.save_safetensors(network, output)
        case 'onnx':
            onnx_write.save_onnx(network, output)
            notes = [f'reads images, float32 (batch, 3, {size}, {size}), RGB 0..255; gives logits and probabilities']
        case 'torchvision':
            notes = torchvision.save_torchvision(network, output)
        case 'npy':
            notes = caffe_dictionary.save_dictionary(network, output)
        case 'stablehlo':
            output = stablehlo.save_stablehlo(network, output, today=datetime.date.today())
            notes = [f'opens for about {stablehlo.MONTHS} months; its metadata is in {output.name}.json']
    count = sum(array.size for array in flatten(network.params).values())
    first = f'{format_name(network.name)} from {network.source}: {count:,} parameters, {len(network.classes)} classes'
    second = f'{output}: {output.stat().st_size / 1e6:.1f} MB, params_sha256 {hash_tree(network.params)}'
    return '\n'.join([first, second, *notes])
