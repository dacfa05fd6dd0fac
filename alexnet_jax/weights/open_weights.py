"""Opens a file of weights, whoever wrote it: the content says what it is, never the name."""

import dataclasses
import pathlib

from alexnet_jax.errors import InputError
from alexnet_jax.files import map_file
from alexnet_jax.model.network import Network
from alexnet_jax.model.zoo import VARIANTS
from alexnet_jax.weights import (
    caffe,
    caffe_dictionary,
    keras_file,
    mat_file,
    matconvnet,
    npz,
    onnx_read,
    safetensors_file,
    torch_file,
    torchvision,
)
from alexnet_jax.weights.metadata import FORMAT_KEY
from alexnet_jax.weights.other_files import KNOWN, describe_archive, describe_file, describe_folder
from alexnet_jax.weights.pretrained import IMAGENET_TRUNK, load_imagenet_trunk


def open_weights(path: pathlib.Path | str, *, variant: str | None = None, mean: str | None = None) -> Network:
    """Opens the network in a file, or the one that is called `pretrained.IMAGENET_TRUNK`.

    Args:
      path: a .safetensors or .onnx file of this project, or the .npz of `checkpoint export`, which say all of
        themselves; torchvision's alexnet as .safetensors, .pth or ONNX; Caffe's bvlc_alexnet or CaffeNet as
        .caffemodel, ONNX, MatConvNet's .mat or the .npy of caffe-tensorflow; an AlexNet of Keras as .keras or .h5.
      variant: which network it is, where a foreign file does not say; a key of model.zoo.VARIANTS.
      mean: what a foreign file's network subtracts, where that is not its family's usual colour: 'R,G,B' of 0..255, or
        Caffe's .binaryproto.

    Raises:
      InputError: it is no file of weights, damaged, or of another network than `variant`; one line.
    """
    path = pathlib.Path(path)
    if variant is not None and variant not in VARIANTS:
        raise InputError(f'--variant={variant}: there is no such network; give one of {", ".join(VARIANTS)}')
    if str(path) == IMAGENET_TRUNK:
        network = load_imagenet_trunk()
    elif path.is_dir():
        raise InputError(f'{path} {describe_folder(path)}')
    else:
        network = _load_network(path, variant)
    if variant not in (None, network.name.variant):
        raise InputError(f'{path} holds {network.name.variant}, not --variant={variant}: leave that out')
    if mean is None:
        return network
    return dataclasses.replace(network, mean_image=caffe.parse_mean(mean, network.variant))


def _load_network(path: pathlib.Path, variant: str | None) -> Network:
    content = map_file(path)
    start = bytes(content[:16])
    if start[8:9] == b'{':
        arrays, values = safetensors_file.read_safetensors(path)
        if torchvision.is_state_dict(arrays):
            return torchvision.load_state_dict(arrays, values if FORMAT_KEY in values else None, path=path)
        if FORMAT_KEY in values:
            return safetensors_file.load_network_arrays(arrays, values, path=path)
        raise InputError(
            f"{path} does not say which network it holds, and the names are not torchvision's alexnet's (it has "
            f'{next(iter(arrays), "none")[:60]}): {KNOWN}'
        )
    if torch_file.is_zip(content):
        names = torch_file.list_members(path)
        if 'about.npy' in names and 'mean_image.npy' in names:
            return npz.load_npz(path, variant=variant)
        if any(name.endswith('.weights.h5') for name in names):
            return keras_file.load_keras(path, variant=variant)
        # Of a damaged one there are no names, and its reader says so.
        if names and not any(name.endswith('/data.pkl') for name in names):
            raise InputError(f'{path} {describe_archive(path, names)}')
        return torchvision.load_state_dict(torch_file.read_torch(path), path=path)
    if torch_file.is_legacy(content):
        return torchvision.load_state_dict(torch_file.read_torch(path), path=path)
    if start.startswith(b'\x80') or caffe_dictionary.is_npy(content):
        return caffe_dictionary.load_dictionary(path, variant=variant)
    if keras_file.is_hdf5(content):
        return keras_file.load_keras(path, variant=variant)
    if mat_file.is_mat(content):
        return matconvnet.load_matconvnet(path)
    if onnx_read.is_onnx(content):
        return onnx_read.load_onnx(path)
    if caffe.is_caffe(content):
        return caffe.load_caffe(path, variant=variant)
    raise InputError(f'{path} {describe_file(path, content)}')
