"""Writes a network as a StableHLO program with its weights inside, for CPU, CUDA and TPU: dated, no archive.

Source: docs.jax.dev, "Exporting and serializing staged-out computations", "Compatibility guarantees": a later JAX opens
what an earlier one wrote for six months. Weights are kept as safetensors or ONNX; this is for serving.
"""

from __future__ import annotations

import datetime
import json
import pathlib
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from alexnet_jax.data.augment import normalise
from alexnet_jax.interchange import card as cards
from alexnet_jax.interchange.files import replacing
from alexnet_jax.model.alexnet import AlexNet
from alexnet_jax.model.network import Network

PLATFORMS = ('cpu', 'cuda', 'tpu')
MONTHS = 6  # that JAX promises to open it


def save(network: Network, path: pathlib.Path, *, today: datetime.date) -> pathlib.Path:
    """Writes STEM-YYYY-MM-DD.SUFFIX and the card beside it as .json; returns the first's path.

    The program takes float32 (batch, size, size, 3), centre crops in RGB, 0..255, of any batch, and returns
    {'logits', 'probabilities'}, each (batch, classes). `jax.export.deserialize(bytearray(...)).call(images)` runs it,
    without this project.

    Raises:
      InputError: a file cannot be written.
    """
    if not re.search(r'\d{4}-\d\d-\d\d$', path.stem):
        path = path.with_name(f'{path.stem}-{today.isoformat()}{path.suffix}')
    size = network.variant.input_size
    (batch,) = jax.export.symbolic_shape('batch')
    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
    exported = jax.export.export(jax.jit(_program(network)), platforms=PLATFORMS)(images)
    about = cards.written(network) | {
        'written': today.isoformat(),
        'opens_for_months': str(MONTHS),
        'jax': jax.__version__,
        'calling_convention_version': str(exported.calling_convention_version),
        'platforms': json.dumps(exported.platforms),
        'input': f'float32 (batch, {size}, {size}, 3)',
    }
    with replacing(path) as file:
        file.write(exported.serialize())
    with replacing(path.with_name(path.name + '.json')) as file:
        file.write((json.dumps(about, indent=1) + '\n').encode())
    return path


def _program(network: Network) -> Callable[[Array], dict[str, Array]]:
    model = AlexNet(network.variant, len(network.classes))
    params = jax.tree.map(jnp.asarray, network.params)
    mean, std = jnp.asarray(network.mean_image), network.variant.pixel_std

    def classify(images: Array) -> dict[str, Array]:
        logits = model.apply({'params': params}, normalise(images, mean, std=std))
        return {'logits': logits, 'probabilities': jax.nn.softmax(logits)}

    return classify
