"""The StableHLO program runs without this project's model, on any batch, and says when it was written."""

import datetime
import json
import subprocess
import sys

import cli
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from weights.networks import network

from alexnet_jax.weights import stablehlo

TORCHVISION_STD = 255 * np.array([0.229, 0.224, 0.225], np.float32)  # of its transforms for ImageNet

# A process that has JAX and the file, and nothing of this project.
FRESH = """
import sys, jax, numpy
program = jax.export.deserialize(bytearray(open(sys.argv[1], 'rb').read()))
images = numpy.load('images.npy')
for rows in (1, 3):
    numpy.savez(f'{rows}.npz', **program.call(images[:rows]))
assert not any(name.startswith(('alexnet_jax', 'flax')) for name in sys.modules)
"""


@pytest.mark.slow
def test_save_stablehlo_gives_what_the_network_gives(tmp_path):
    net = network('one_weird_trick')  # without norms, which take most of compiling
    path = stablehlo.save_stablehlo(net, tmp_path / 'net.stablehlo', today=datetime.date(2026, 1, 31))
    assert path == tmp_path / 'net-2026-01-31.stablehlo'
    images = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3)).astype(np.float32)
    np.save(tmp_path / 'images.npy', images)
    command = [sys.executable, '-I', '-c', FRESH, path.name]
    subprocess.run(command, cwd=tmp_path, env=cli.environment(tmp_path), check=True, timeout=300)
    expected = oracle.network(
        'one_weird_trick', net.params, jnp.asarray(images - net.mean_image) / TORCHVISION_STD, None
    )
    for rows in (1, 3):
        found = np.load(tmp_path / f'{rows}.npz')
        error = np.abs(found['logits'] - expected[:rows]).max()
        assert error < 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(found['probabilities'], jax.nn.softmax(expected[:rows]), atol=1e-5)
    about = json.loads((tmp_path / 'net-2026-01-31.stablehlo.json').read_text())
    assert (about['written'], about['jax'], about['variant']) == ('2026-01-31', jax.__version__, 'one_weird_trick')
    assert json.loads(about['platforms']) == ['cpu', 'cuda', 'tpu']
    assert sorted(file.name for file in tmp_path.glob('net*')) == [path.name, f'{path.name}.json']


def test_save_stablehlo_keeps_a_date_in_the_name(tmp_path):
    net = network('one_weird_trick')
    path = stablehlo.save_stablehlo(net, tmp_path / 'net-2020-02-02.bin', today=datetime.date(2026, 1, 31))
    assert path.name == 'net-2020-02-02.bin'
