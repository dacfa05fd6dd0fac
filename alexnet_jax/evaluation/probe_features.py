"""Makes the features that a probe learns from: several layers at once, pooled to few numbers, kept on disk."""

import json
import math
import pathlib
import zipfile
from collections.abc import Callable, Sequence

import numpy as np

from alexnet_jax.checkpoints.hashes import hash_array, hash_tree
from alexnet_jax.data.dataset import Dataset
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.features import iter_stages
from alexnet_jax.files import hash_json, replacing
from alexnet_jax.model.network import Network
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.weights.layout import format_name

MAX_NUMBERS = 4096  # of one image in a layer: as many as fc6 has
_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
Features = tuple[np.ndarray, np.ndarray]  # float32 (n, numbers) and labels, int32 (n,)


def make_features(
    network: Network,
    dataset: Dataset,
    split: str,
    *,
    stages: Sequence[str],
    cache: pathlib.Path,
    batch_size: int,
    progress: Callable[[int], None],
) -> dict[str, Features]:
    """Makes {stage: features and labels} of all images of a split, in order, on one device.

    What `cache` has of the same weights, mean image and records is read from there, and the rest is added to it.

    Raises:
      InputError: a layer has no weights, a record is damaged, or a file of `cache` is, or cannot be written.
    """
    cached = {stage: _describe(network, dataset, split, stage) for stage in stages}
    paths = {stage: cache / f'{hash_json(about)[:32]}.npz' for stage, about in cached.items()}
    missing = [stage for stage, path in paths.items() if not path.exists()]
    if missing:
        parts: dict[str, list[np.ndarray]] = {stage: [] for stage in missing}
        labels = []
        records = dataset.records(split)
        for rows, own in iter_stages(
            network, make_mesh(1, 1), records, stages=missing, batch_size=batch_size, progress=progress
        ):
            labels.append(own)
            for stage in missing:
                parts[stage].append(pool_places(rows[stage]))
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f'cannot write {cache}: {error.strerror}; choose another --cache') from error
        for stage in missing:
            with replacing(paths[stage]) as file:
                about = np.array(json.dumps(cached[stage]))
                np.savez(file, features=np.concatenate(parts[stage]), labels=np.concatenate(labels), about=about)
    return {stage: _read(path) for stage, path in paths.items()}


def pool_places(rows: np.ndarray) -> np.ndarray:
    """Averages (b, h, w, channels) over a grid of h/g x w/g places, the finest of at most MAX_NUMBERS; (b, numbers).

    Cell i of g reaches from floor(i h / g) to ceil((i + 1) h / g), as in PyTorch's adaptive pooling. (b, units) stay.
    """
    if rows.ndim == 2:
        return rows
    images, height, width, channels = rows.shape
    side = min(height, width, max(1, math.isqrt(MAX_NUMBERS // channels)))
    edges = [[(i * size // side, -(-(i + 1) * size // side)) for i in range(side)] for size in (height, width)]
    cells = [rows[:, a:b, c:d].mean(axis=(1, 2)) for a, b in edges[0] for c, d in edges[1]]
    return np.stack(cells, axis=1).reshape(images, -1)


def _describe(network: Network, dataset: Dataset, split: str, stage: str) -> dict[str, str | int]:
    return {
        'network': format_name(network.name),
        'params_sha256': hash_tree(network.params),
        'mean_sha256': hash_array(network.mean_image),
        'dataset': dataset.fingerprint,
        'split': split,
        'stage': stage,
        'numbers': MAX_NUMBERS,
    }


def _read(path: pathlib.Path) -> Features:
    try:
        with np.load(path, allow_pickle=False) as file:
            return file['features'], file['labels']
    except _DAMAGED as error:
        raise InputError(f'{path} is damaged: delete it, and it is computed again') from error
