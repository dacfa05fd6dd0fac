"""Ten-view testing written out slowly, beside `evaluate`'s, on real photographs.

    PYTHONPATH=.:tests python experiments/slow_ten_view.py WORKDIR [IMAGES]

Takes the first IMAGES (200) validation images of the run's dataset. Each is decoded by Pillow, cut view by view with
slices, and goes alone through the plain network of tests/oracle.py in float64; softmax and mean are loops. Prints by
how much the probabilities of the project's program, in float32 on all sorts of meshes, differ at most.
"""

import io
import math
import pathlib
import sys

import jax
import numpy as np
import oracle
from PIL import Image

from alexnet_jax.checkpoints.load import load_network
from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.evaluation.open_networks import make_predictor
from alexnet_jax.sharding.backend import prepare_backend
from alexnet_jax.sharding.mesh import make_mesh

MESHES = ((1, 1), (1, 2), (2, 1), (2, 2))


class First:
    """The first records of a split."""

    photos = False

    def __init__(self, records, count):
        self.records, self.count = records, count

    def __len__(self):
        """How many."""
        return self.count

    def __getitem__(self, index):
        """JPEG and label."""
        if index >= self.count:
            raise IndexError
        return self.records[index]


def slowly(network, records):
    """(n, classes) of centre and of ten views."""
    plain = jax.jit(lambda params, x: oracle.network(network.name.variant, params, x, None))
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), network.params)
    size, centre, ten_view = network.variant.input_size, [], []
    end = 256 - size
    for jpeg, _ in records:
        image = np.asarray(Image.open(io.BytesIO(jpeg)).convert('RGB'), np.float64)
        views = []
        for top, left in ((end // 2, end // 2), (0, 0), (0, end), (end, 0), (end, end)):
            patch = image[top : top + size, left : left + size]
            for view in (patch, patch[:, ::-1]):
                logits = np.asarray(plain(params, (view - network.mean_image)[None]))[0]
                powers = [math.exp(logit - logits.max()) for logit in logits]
                views.append([power / sum(powers) for power in powers])
        centre.append(views[0])
        ten_view.append([sum(column) / 10 for column in zip(*views, strict=True)])
    return {'centre': np.array(centre), 'ten_view': np.array(ten_view)}


def main(workdir, count=200):
    """Compares."""
    prepare_backend((2, 2))
    network = load_network(pathlib.Path(workdir))
    config = network.about['config']
    dataset = open_dataset(config['dataset'], data_dir=config['data_dir'])
    records = First(dataset.records('validation'), int(count))
    labels = np.array([label for _, label in records])
    with jax.enable_x64(True):
        expected = slowly(network, records)
    for data, tower in MESHES:
        predict = make_predictor(network, make_mesh(data, tower), records, batch_size=config['batch_size'])
        for protocol, rows in expected.items():
            found = predict(protocol=protocol).probabilities
            own, others = ((values.argmax(axis=1) != labels).sum() for values in (found, rows))
            difference = np.abs(found - rows).max()
            print(f'{data}x{tower} {protocol:8}: at most {difference:.1e} apart; wrong {own} and {others} of {count}')


if __name__ == '__main__':
    main(*sys.argv[1:])
