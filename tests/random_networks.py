"""Networks with random weights, their run folders, and what the plain network makes of records."""

import dataclasses
import functools

import jax
import numpy as np
import oracle

from alexnet_jax.data.decode import decode
from alexnet_jax.model.alexnet import init_parameters
from alexnet_jax.model.network import Network, NetworkName
from alexnet_jax.parallel.mesh import make_mesh
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.training.config import recipe, validate
from alexnet_jax.training.recipe import optimizer_of, variant_of
from alexnet_jax.training.state import create_state
from alexnet_jax.training.workdir import claim

CLASSES = ('blue', 'green', 'red')


def network_of(variant='released', *, width=0.0625, seed=0, classes=CLASSES):
    """Strong enough that images differ in what they are taken for."""
    name = NetworkName(variant, width)
    side = name.build().input_size
    params = init_parameters(name.build(), jax.random.key(seed), num_classes=len(classes))
    params = jax.tree.map(lambda leaf: np.asarray(leaf) * 2, params)
    random = np.random.default_rng(seed)
    params['fc8']['kernel'] = random.normal(0, 0.1, params['fc8']['kernel'].shape).astype(np.float32)
    params['fc8']['bias'] = -params['fc8']['kernel'].sum(axis=0) / 2
    mean = random.uniform(90, 130, (side, side, 3)).astype(np.float32)
    return Network(name=name, params=params, mean_image=mean, classes=classes, source='random')


def save_run(network, workdir, dataset, data_dir):
    """A run folder of `network`, as if it had been trained on `dataset`, with checkpoint 0."""
    config = recipe(dataset.name, mesh=(1, 1))
    config.update(variant=network.name.variant, width=network.name.width, data_dir=str(data_dir), batch_size=4)
    validate(config)
    mesh, options = make_mesh(1, 1), {'num_classes': len(dataset.classes), 'mean_image': network.mean_image, 'seed': 0}
    state = create_state(variant_of(config), optimizer_of(config), mesh, **options)
    params = jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), network.params, state.params)
    claim(workdir, config, dataset, mesh)
    with Checkpoints(workdir, keep=2) as checkpoints:
        checkpoints.save(dataclasses.replace(state, params=params), data_order=0)


@functools.cache
def _plain(variant):
    return jax.jit(lambda params, x: oracle.network(variant, params, x, None))


def slow_probabilities(network, records, protocol, *, decoded=False):
    """(n, classes): image by image and view by view, with the plain network in float64 and sums over Python's lists.

    `records` are (JPEG, label), or (pixels, label) where `decoded`.
    """
    name, side = network.name.variant, network.mean_image.shape[0]
    end = 256 - side
    middle = (end // 2, end // 2)
    corners = [(0, 0), (0, end), (end, 0), (end, end), middle]
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), network.params)
        rows = []
        for image, _ in records:
            image, found = (image if decoded else decode(image)).astype(np.float64), []
            for top, left in [middle] if protocol == 'centre' else corners:
                view = image[top : top + side, left : left + side]
                for x in [view] if protocol == 'centre' else [view, view[:, ::-1]]:
                    logits = np.asarray(_plain(name)(params, (x - network.mean_image)[None]))[0]
                    powers = [np.exp(logit - max(logits)) for logit in logits]
                    found.append([power / sum(powers) for power in powers])
            rows.append([sum(column) / len(found) for column in zip(*found, strict=True)])
    return np.array(rows)
