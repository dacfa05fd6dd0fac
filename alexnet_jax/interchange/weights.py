"""Opens a file of weights, whoever wrote it: the content says what it is, never the name."""

from __future__ import annotations

import pathlib

from alexnet_jax import InputError
from alexnet_jax.interchange import safetensors_file
from alexnet_jax.model.network import Network
from alexnet_jax.model.variants import VARIANTS


def open_weights(path: pathlib.Path | str, *, variant: str | None = None, mean: str | None = None) -> Network:
    """The network in a file.

    Args:
      path: a .safetensors file of this project, which says all of itself.
      variant: which network a foreign file holds, where the file does not say; a key of model.variants.VARIANTS.
      mean: what a foreign file's network subtracts, where that is not its family's usual colour: 'R,G,B' of 0..255.

    Raises:
      InputError: it is no file of weights, damaged, or of another network than `variant`; one line.
    """
    path = pathlib.Path(path)
    if variant is not None and variant not in VARIANTS:
        raise InputError(f'--variant={variant}: there is no such network; give one of {", ".join(VARIANTS)}')
    if path.is_dir():
        raise InputError(f'{path} is a folder: a run is given as --workdir={path}, weights as a file')
    try:
        with path.open('rb') as file:
            start = file.read(16)
    except OSError as error:
        raise InputError(f'{path} cannot be read: {error.strerror}') from error
    if start[8:9] != b'{':
        raise InputError(f'{path} is no file of weights that this program knows: it reads safetensors')
    network = safetensors_file.load(path)
    if variant not in (None, network.name.variant):
        raise InputError(f'{path} holds {network.name.variant}, not --variant={variant}')
    if mean is not None:
        raise InputError(f'{path} has its own mean image: leave --mean out')
    return network
