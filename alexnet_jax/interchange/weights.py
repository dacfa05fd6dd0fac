"""Opens a file of weights, whoever wrote it: the content says what it is, never the name."""

from __future__ import annotations

import dataclasses
import pathlib

from alexnet_jax import InputError
from alexnet_jax.interchange import caffe, onnx_import, safetensors_file, torch_zip, torchvision
from alexnet_jax.interchange import card as cards
from alexnet_jax.interchange.files import mapped
from alexnet_jax.interchange.mean import mean_image
from alexnet_jax.model.catalogue import VARIANTS
from alexnet_jax.model.network import Network

KNOWN = 'safetensors, ONNX, .caffemodel and state dicts as .pth are read'


def open_weights(path: pathlib.Path | str, *, variant: str | None = None, mean: str | None = None) -> Network:
    """The network in a file.

    Args:
      path: a .safetensors or .onnx file of this project, which says all of itself; torchvision's alexnet as
        .safetensors, .pth or ONNX; Caffe's bvlc_alexnet or CaffeNet as .caffemodel or ONNX.
      variant: which network it is, where a foreign file does not say; a key of model.catalogue.VARIANTS.
      mean: what a foreign file's network subtracts, where that is not its family's usual colour: 'R,G,B' of 0..255, or
        Caffe's .binaryproto.

    Raises:
      InputError: it is no file of weights, damaged, or of another network than `variant`; one line.
    """
    path = pathlib.Path(path)
    if variant is not None and variant not in VARIANTS:
        raise InputError(f'--variant={variant}: there is no such network; give one of {", ".join(VARIANTS)}')
    if path.is_dir():
        raise InputError(f'{path} is a folder: a run is given as --workdir={path}, weights as a file')
    network = _opened(path, variant)
    if variant not in (None, network.name.variant):
        raise InputError(f'{path} holds {network.name.variant}, not --variant={variant}')
    if mean is None:
        return network
    image = mean_image(mean, network.variant.input_size, record_size=network.variant.record_size)
    return dataclasses.replace(network, mean_image=image)


def _opened(path: pathlib.Path, variant: str | None) -> Network:
    content = mapped(path)
    start = bytes(content[:16])
    if start[8:9] == b'{':
        return _safetensors(path)
    if start.startswith(b'PK\x03\x04'):
        return torchvision.network_of(torch_zip.read(path), path=path)
    if start.startswith(b'\x80'):
        raise InputError(
            f'{path} is a pickle, which would have to be run to be read: save the state dict as safetensors, '
            'safetensors.torch.save_file(model.state_dict(), FILE)'
        )
    if onnx_import.is_onnx(content):
        return onnx_import.load(path)
    if caffe.is_caffe(content):
        return caffe.load(path, variant=variant)
    raise InputError(f'{path} is no file of weights that is known here: {KNOWN}')


def _safetensors(path: pathlib.Path) -> Network:
    arrays, metadata = safetensors_file.read(path)
    card = cards.understood(metadata, path=path) if cards.KEY in metadata else None
    if torchvision.is_state_dict(arrays):
        return torchvision.network_of(arrays, path=path, card=card)
    if card is None:
        raise InputError(f"{path} does not say which network it holds, and the names are not torchvision's: {KNOWN}")
    return safetensors_file.network_of(arrays, path=path, card=card)
