"""Writes a network as a StableHLO program with its weights inside, for CPU, CUDA and TPU: dated, no archive.

Source: docs.jax.dev, "Exporting and serializing staged-out computations", "Compatibility guarantees": a later JAX opens
what an earlier one wrote for six months. Weights are kept as safetensors or ONNX; this is for serving.
"""

import datetime
import json
import pathlib
import re

import jax
import jax.numpy as jnp
from jax import Array

from alexnet_jax.data.augment import normalise
from alexnet_jax.files import write_file
from alexnet_jax.model.alexnet import AlexNet
from alexnet_jax.model.network import Network
from alexnet_jax.weights.metadata import make_metadata

PLATFORMS = ('cpu', 'cuda', 'tpu')
MONTHS = 6  # that JAX promises to open it


def save_stablehlo(network: Network, path: pathlib.Path, *, today: datetime.date) -> pathlib.Path:
    """Writes STEM-YYYY-MM-DD.SUFFIX and the metadata beside it as .json; returns the first's path.

    The program takes float32 (batch, size, size, 3), centre crops in RGB, 0..255, of any batch, and returns
    {'logits', 'probabilities'}, each (batch, classes). `jax.export.deserialize(bytearray(...)).call(images)` runs it,
    without this project.

    Raises:
      InputError: a file cannot be written.
    """
    if not re.search(r'\d{4}-\d\d-\d\d$', path.stem):
        path = path.with_name(f'{path.stem}-{today.isoformat()}{path.suffix}')
    model = AlexNet(network.variant, len(network.classes))
    params = jax.tree.map(jnp.asarray, network.params)
    network = network.with_centre_mean()
    mean_image, pixel_std, size = jnp.asarray(network.mean_image), network.variant.pixel_std, network.variant.input_size

    @jax.jit
    def classify(images: Array) -> dict[str, Array]:
        logits = model.apply({'params': params}, normalise(images, mean_image, std=pixel_std))
        return {'logits': logits, 'probabilities': jax.nn.softmax(logits)}

    (batch,) = jax.export.symbolic_shape('batch')
    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
    exported = jax.export.export(classify, platforms=PLATFORMS)(images)
    metadata = make_metadata(network) | {
        'written': today.isoformat(),
        'opens_for_months': str(MONTHS),
        'jax': jax.__version__,
        'calling_convention_version': str(exported.calling_convention_version),
        'platforms': json.dumps(exported.platforms),
        'input': f'float32 (batch, {size}, {size}, 3)',
    }
    write_file(path, bytes(exported.serialize()))
    write_file(path.with_name(path.name + '.json'), json.dumps(metadata, indent=1) + '\n')
    return path
