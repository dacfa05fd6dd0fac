"""Krizhevsky's networks for CIFAR-10 on a dataset of 32x32 records: trained, resumed on another mesh, looked into."""

import json

import cli
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import draw_parameters
from PIL import Image

from alexnet_jax.data.preparing import folder
from alexnet_jax.data.preparing.writer import prepare
from alexnet_jax.model.cifar10 import CIFAR10
from alexnet_jax.sharding.mesh import make_mesh, place_batch
from alexnet_jax.training.step import Batch, make_gradients

COLOURS = {'blue': (60, 60, 190), 'green': (60, 190, 60), 'red': (190, 60, 60)}


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
    """'cifar10': 32x32 images of noise around a colour of their class, 60 to train on and 12 to validate with."""
    images, random = tmp_path_factory.mktemp('images'), np.random.default_rng(0)
    for split, count in {'train': 20, 'validation': 4}.items():
        for name, colour in COLOURS.items():
            (images / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = random.normal(colour, 40, (32, 32, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(images / split / name / f'{index}.png')
    data_dir = tmp_path_factory.mktemp('data')
    prepare(folder.make_folder_spec(images, name='cifar10', record_size=32), data_dir=data_dir, workers=1)
    return data_dir


def train(data_dir, workdir, cache, network, *more):
    options = (f'--config=configs/cifar10.py:{network}', f'--config.data_dir={data_dir}', f'--workdir={workdir}')
    done = cli.run('train', *options, '--config.batch_size=12', '--json', *more, cache=cache)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    'goes_on', [False, pytest.param(True, marks=pytest.mark.repeats)], ids=['from the start', 'from one device']
)
def test_train_learns_and_predict_finds_neighbours_without_a_hidden_layer(goes_on, data_dir, tmp_path, program_cache):
    rates = ('--config.learning_rate=0.01', '--config.drop_epochs=(400.0,)')
    if goes_on:
        train(data_dir, tmp_path, program_cache, '13pct', '--config.epochs=2.0', *rates)
    two = ('--config.parallelism=data_parallel', '--config.mesh=2,1')
    rates += ('--config.evaluate_every=30', '--config.checkpoint_every=30')
    result = train(data_dir, tmp_path, program_cache, '13pct', '--config.epochs=12.0', *two, *rates)
    assert (result['steps'], result['centre']['examples'], result['ten_view']['examples']) == (60, 12, 12)
    assert result['centre']['top1_error'] == 0  # three colours are easy; chance would be 2 in 3
    photo = tmp_path / 'photo.png'
    Image.new('RGB', (50, 40), COLOURS['green']).save(photo)
    given = (f'--workdir={tmp_path}', '--neighbours=cifar10', '--json', str(photo))
    done = cli.run('predict', *given, cache=program_cache)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)['predictions']
    assert found['top5'][0]['class'] == 'green'
    assert {near['class'] for near in found['neighbours']} == {'green'}


@pytest.mark.slow
@pytest.mark.parametrize('name', [pytest.param('cifar10_80sec_published', marks=pytest.mark.repeats), 'cifar10_11pct'])
def test_make_gradients_is_the_same_on_one_device_and_with_the_batch_on_two(name):
    variant, random = CIFAR10[name], np.random.default_rng(1)
    size = variant.input_size
    images = random.integers(0, 256, (4, size, size, 3), dtype=np.uint8)
    batch = Batch(images, random.integers(0, 10, 4).astype(np.int32), np.zeros((4, 3)))
    drawn, found = draw_parameters(variant, num_classes=10, factor=3), []
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, drawn)
        for shape in ((1, 1), (2, 1)):
            mesh = make_mesh(*shape, devices=jax.devices()[: shape[0]])
            gradients = jax.jit(make_gradients(variant, mesh, num_classes=10))
            mean = np.full((size, size, 3), 120.0)
            found.append(jax.device_get(gradients(params, place_batch(mesh, batch), mean, jax.random.key(0))))
    (metrics, one), (others, two) = found
    np.testing.assert_allclose(metrics, others, rtol=1e-12)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert np.abs(a).max() > 0
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-11 * np.abs(a).max())
