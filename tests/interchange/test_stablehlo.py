"""The StableHLO program runs without this project's model, on any batch, and says when it was written."""

import datetime
import json

import jax
import jax.numpy as jnp
import numpy as np
import oracle
from interchange.networks import network

from alexnet_jax.interchange import stablehlo


def test_the_program_gives_what_the_network_gives(tmp_path):
    net = network('released')
    path = stablehlo.save(net, tmp_path / 'net.stablehlo', today=datetime.date(2026, 1, 31))
    assert path == tmp_path / 'net-2026-01-31.stablehlo'
    program = jax.export.deserialize(bytearray(path.read_bytes()))
    assert program.platforms == ('cpu', 'cuda', 'tpu')
    images = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3)).astype(np.float32)
    expected = oracle.network('released', net.params, jnp.asarray(images - net.mean_image), None)
    for rows in (1, 3):
        found = program.call(images[:rows])
        error = np.abs(found['logits'] - expected[:rows]).max()
        assert error < 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(found['probabilities'].sum(axis=1), 1, rtol=1e-6)
    about = json.loads((tmp_path / 'net-2026-01-31.stablehlo.json').read_text())
    assert (about['written'], about['jax'], about['variant']) == ('2026-01-31', jax.__version__, 'released')
    assert json.loads(about['platforms']) == ['cpu', 'cuda', 'tpu']
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, f'{path.name}.json']


def test_a_name_with_a_date_keeps_it(tmp_path):
    net = network('one_weird_trick')
    path = stablehlo.save(net, tmp_path / 'net-2020-02-02.bin', today=datetime.date(2026, 1, 31))
    assert path.name == 'net-2020-02-02.bin'
