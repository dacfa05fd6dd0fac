"""torchvision's AlexNet: state dicts by its names, both ways; the one-tower network alone has a counterpart there.

Source: torchvision/models/alexnet.py, `class AlexNet` for the names, `AlexNet_Weights` for how it wants its images.
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping

import numpy as np

from alexnet_jax.console import info
from alexnet_jax.errors import InputError
from alexnet_jax.model.network import Network, NetworkName
from alexnet_jax.weights.layout import (
    LAYERS,
    convert_to_channels_first,
    convert_to_channels_last,
    format_name,
    infer_name,
)
from alexnet_jax.weights.metadata import (
    check_hashes,
    get_mean_colour,
    make_flat_mean,
    make_foreign_network,
    make_metadata,
    parse_metadata,
)
from alexnet_jax.weights.safetensors_file import write_safetensors

VARIANT = 'one_weird_trick'
MEAN_RGB = (0.485 * 255, 0.456 * 255, 0.406 * 255)  # torchvision/transforms/_presets.py, of pixels of 0..1
# Places in the two nn.Sequential, whose others are ReLU, pooling and dropout.
_PLACES = (*(f'features.{place}' for place in (0, 3, 6, 8, 10)), *(f'classifier.{place}' for place in (1, 4, 6)))
NAMES = {
    f'{layer}/{ours}': f'{place}.{theirs}'
    for layer, place in zip(LAYERS, _PLACES, strict=True)
    for ours, theirs in (('kernel', 'weight'), ('bias', 'bias'))
}


# What DataParallel, torch.compile, FSDP and activation checkpointing put before a module's names, anywhere.
_WRAPPERS = ('module', '_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module')
_BESIDE = ('criterion', 'loss', 'metric')  # begin names of what a trainer keeps beside the network
_COPIES = ('ema', 'averag', 'swa', 'teacher')  # are in names of copies of the network


def is_state_dict(tensors: Mapping[str, np.ndarray]) -> bool:
    """Tells whether arrays of these names are torchvision's, whatever stands before the names."""
    return bool(_find_prefixes(map(_unwrap, tensors)))


def load_state_dict(
    tensors: Mapping[str, np.ndarray], values: Mapping[str, str] | None = None, *, path: pathlib.Path
) -> Network:
    """Loads the network of a state dict; `values` is the metadata where `save_torchvision` wrote it.

    Raises:
      InputError: they are not the tensors of that network, or not as `save_torchvision` wrote them.
    """
    tensors = _select(tensors, path)
    arrays = {ours: tensors[theirs] for ours, theirs in NAMES.items() if theirs in tensors}
    if values is None:
        name = infer_name(VARIANT, arrays)
        params = convert_to_channels_last(name, arrays, source=path)
        return make_foreign_network(name, params, mean_rgb=MEAN_RGB, source=str(path))
    network = parse_metadata(values, path=path)
    params = convert_to_channels_last(network.name, arrays, source=path)
    return check_hashes(dataclasses.replace(network, params=params), values, path=path)


def _unwrap(name: str) -> str:
    return '.'.join(part for part in name.split('.') if part not in _WRAPPERS)


def _find_prefixes(names: Iterable[str]) -> list[str]:
    """Finds what stands before torchvision's names: '', or 'model.' of a LightningModule; several of several copies."""
    first = NAMES['conv1/kernel']
    return [name.removesuffix(first) for name in names if name == first or name.endswith(f'.{first}')]


def _select(tensors: Mapping[str, np.ndarray], path: pathlib.Path) -> dict[str, np.ndarray]:
    """Selects the network's tensors, by torchvision's names; nothing that belongs to a network is left out."""
    unwrapped = {_unwrap(name): tensor for name, tensor in tensors.items()}
    if len(unwrapped) < len(tensors):
        raise InputError(f'{path} holds a name twice, with and without module.: save the state dict of one network')
    prefixes = _find_prefixes(unwrapped)
    originals = [prefix for prefix in prefixes if not any(copy in prefix.lower() for copy in _COPIES)] or prefixes
    if len(originals) > 1:
        raise InputError(
            f'{path} holds several networks, named {", ".join(prefix + "features" for prefix in originals)[:120]}: '
            'save the state dict of one of them'
        )
    (prefix,) = originals or ['']
    if len(prefixes) > 1:
        others = ', '.join(f'{other}features' for other in prefixes if other != prefix)
        info(f'{path}: its {prefix}features is read, and not {others[:120]}')
    copies = tuple(other for other in prefixes if other != prefix and not prefix.startswith(other))
    selected = {}
    for name, tensor in unwrapped.items():
        own = name.removeprefix(prefix) if name.startswith(prefix) else ''
        if own in NAMES.values():
            if tensor.dtype.kind != 'f':
                raise InputError(f'{path} holds {name[:60]} as {tensor.dtype}: save it as floating-point numbers')
            selected[own] = tensor
        elif not _is_beside(name, tensor, copies, prefix):
            raise InputError(
                f"{path} is no state dict of torchvision's alexnet: it holds {name[:60]} too. That is another network, "
                'and only its layers are read, with any number of classes'
            )
    return selected


def _is_beside(name: str, tensor: np.ndarray, copies: tuple[str, ...], prefix: str) -> bool:
    """Tells whether a tensor is a copy's, a loss's, or a counter, such as AveragedModel's n_averaged."""
    first, last = name.split('.')[0].lower(), name.split('.')[-1]
    beside = not prefix.lower().startswith(first) and (first.startswith(_BESIDE) or 'ema' in first.split('_'))
    return (
        name.startswith(copies)
        or beside
        or (tensor.dtype.kind in 'iu' and tensor.size == 1 and last != 'num_batches_tracked')
    )


def save_torchvision(network: Network, path: pathlib.Path) -> list[str]:
    """Writes a .safetensors file for torchvision's `load_state_dict`; returns lines for the person who uses it.

    The mean image shrinks to its mean colour, because that is all that torchvision's transforms subtract.

    Raises:
      InputError: the network is another than torchvision's, or the file cannot be written.
    """
    if network.name != NetworkName(VARIANT, network.name.width):
        raise InputError(
            f'torchvision has no {format_name(network.name)}, its AlexNet is {VARIANT}: '
            f'write --to=safetensors{" or --to=onnx" if all(conv.shared for conv in network.variant.convs) else ""}'
        )
    colour = get_mean_colour(network.mean_image)
    flat = make_flat_mean(colour, network.variant.input_size)
    difference = float(np.abs(flat - network.mean_image).max())
    arrays = convert_to_channels_first(network.name, network.params)
    # 'format' is what the readers of PyTorch's own safetensors files look for.
    metadata = make_metadata(dataclasses.replace(network, mean_image=flat)) | {'format': 'pt'}
    write_safetensors({NAMES[name]: array for name, array in arrays.items()}, metadata, path)
    notes = ['Normalize(mean=({:.4f}, {:.4f}, {:.4f}), std=(0.229, 0.224, 0.225))'.format(*(x / 255 for x in colour))]
    if difference > 1e-3:
        notes.append(
            'that is the mean colour; the mean image that this network subtracts differs from it by up to '
            f'{difference:.1f} of 255, so its outputs there are not quite those here'
        )
    return notes
