"""torchvision's AlexNet: state dicts by its names, both ways; the one-tower network alone has a counterpart there.

Source: torchvision/models/alexnet.py, `class AlexNet` for the names, `AlexNet_Weights` for how it wants its images.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np

from alexnet_jax import InputError
from alexnet_jax.interchange import card as cards
from alexnet_jax.interchange import safetensors_file
from alexnet_jax.interchange.tree import LAYERS, Params, channels_first, channels_last, described, named, numbered
from alexnet_jax.model.network import Network, NetworkName

VARIANT = 'one_weird_trick'
# Places in the two nn.Sequential, whose others are ReLU, pooling and dropout.
_PLACES = (*(f'features.{place}' for place in (0, 3, 6, 8, 10)), *(f'classifier.{place}' for place in (1, 4, 6)))
NAMES = dict(zip(LAYERS, _PLACES, strict=True))
MEAN_RGB = (0.485 * 255, 0.456 * 255, 0.406 * 255)  # torchvision/transforms/_presets.py, of pixels of 0..1
_PARTS = {'kernel': 'weight', 'bias': 'bias'}


def is_state_dict(tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether arrays of these names are torchvision's."""
    return f'{NAMES["conv1"]}.weight' in _bare(tensors)


def network_of(tensors: Mapping[str, np.ndarray], *, path: pathlib.Path, card: cards.Card | None = None) -> Network:
    """The network of a state dict.

    Args:
      tensors: by torchvision's names, also with the 'module.' of DataParallel before them.
      path: the file, for messages.
      card: what `save` wrote beside them; None: they are from elsewhere.

    Raises:
      InputError: they are not the tensors of that network, or not as `save` wrote them.
    """
    tensors = _bare(tensors)
    arrays = {}
    for layer, place in NAMES.items():
        for ours, theirs in _PARTS.items():
            if f'{place}.{theirs}' in tensors:
                arrays[f'{layer}/{ours}'] = tensors.pop(f'{place}.{theirs}')
    if tensors:
        raise InputError(f"{path} is no state dict of torchvision's alexnet: it holds {next(iter(tensors))[:60]} too")
    name = card.name if card else named(VARIANT, arrays)
    params = channels_last(name, arrays, source=path)
    if card is None:
        return foreign(name, params, source=str(path))
    return cards.network_of(card, params, cards.flat_mean(card.mean_rgb, name.build().input_size), path=path)


def foreign(name: NetworkName, params: Params, *, source: str) -> Network:
    """A network that torchvision trained: its mean colour, its classes by number."""
    mean_image = cards.flat_mean(MEAN_RGB, name.build().input_size)
    classes = numbered(params['fc8']['bias'].size)
    return Network(name=name, params=params, mean_image=mean_image, classes=classes, source=source)


def save(network: Network, path: pathlib.Path) -> list[str]:
    """Writes a .safetensors file by torchvision's names; returns what the reader of it has to know.

    `load_state_dict(safetensors.torch.load_file(path))` takes it. The mean image shrinks to its mean colour, because
    that is all that torchvision's transforms subtract.

    Raises:
      InputError: the network is another than torchvision's, or the file cannot be written.
    """
    if network.name != NetworkName(VARIANT, network.name.width):
        raise InputError(
            f'torchvision has no {described(network.name)}, its AlexNet is {VARIANT}: '
            'write --to=safetensors or --to=onnx'
        )
    colour = cards.mean_colour(network.mean_image)
    flat = cards.flat_mean(colour, network.variant.input_size)
    off = float(np.abs(flat - network.mean_image).max())
    arrays = {}
    for path_here, array in channels_first(network.name, network.params).items():
        layer, _, part = path_here.partition('/')
        arrays[f'{NAMES[layer]}.{_PARTS[part]}'] = array
    # 'format' is what the readers of PyTorch's own safetensors files look for.
    card = cards.written(dataclasses.replace(network, mean_image=flat)) | {'format': 'pt'}
    safetensors_file.write(arrays, card, path)
    notes = ['Normalize(mean=({:.4f}, {:.4f}, {:.4f}), std=(0.229, 0.224, 0.225))'.format(*(x / 255 for x in colour))]
    if off > 1e-3:
        notes.append(
            f'that is the mean colour; the mean image that this network subtracts differs from it by up to {off:.1f} '
            'of 255, so its outputs there are not quite those here'
        )
    return notes


def _bare(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Names without DataParallel's prefix."""
    return {name.removeprefix('module.'): tensor for name, tensor in tensors.items()}
