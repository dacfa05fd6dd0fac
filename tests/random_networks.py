"""Networks with random weights, their run folders, and what the plain network makes of records."""

import dataclasses
import functools

import jax
import numpy as np
import oracle
from builders import run_with
from simplejpeg import decode_jpeg

from alexnet_jax.checkpoints.checkpointer import Checkpointer
from alexnet_jax.model.alexnet import init_parameters
from alexnet_jax.model.network import Network, NetworkName
from alexnet_jax.run.run_dir import claim_run_dir

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


def save_run(network, workdir, dataset, data_dir, *, mesh=(1, 1)):
    """A run folder of `network`, as if it had been trained on `dataset`, with checkpoint 0."""
    name, width = network.name.variant, network.name.width
    classes, settings = len(dataset.classes), {'mesh': mesh, 'data_dir': str(data_dir), 'batch_size': 4}
    run = run_with(dataset=dataset.name, num_classes=classes, variant=name, width=width, **settings)
    state = run.create_state(network.mean_image)
    params = jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), network.params, state.params)
    claim_run_dir(workdir, run, dataset)
    with Checkpointer(workdir, keep=2) as checkpoints:
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
            image, found = (image if decoded else decode_jpeg(image)).astype(np.float64), []
            for top, left in [middle] if protocol == 'centre' else corners:
                view = image[top : top + side, left : left + side]
                for x in [view] if protocol == 'centre' else [view, view[:, ::-1]]:
                    logits = np.asarray(_plain(name)(params, (x - network.mean_image)[None]))[0]
                    powers = [np.exp(logit - max(logits)) for logit in logits]
                    found.append([power / sum(powers) for power in powers])
            rows.append([sum(column) / len(found) for column in zip(*found, strict=True)])
    return np.array(rows)
