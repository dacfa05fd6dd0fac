"""The package's exports and a loaded network, against the plain network, the commands and the README's own words."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
from importlib import metadata

import cli
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from PIL import Image
from random_networks import CLASSES, network_of, save_run, slow_probabilities
from weights.networks import network as make_network

import alexnet_jax
from alexnet_jax.data.photo import square_image
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation import extract_features, predict_photos
from alexnet_jax.evaluation.open_networks import NetworkArgs
from alexnet_jax.library import TrainedNetwork
from alexnet_jax.weights.safetensors_file import save_safetensors


@pytest.fixture(scope='module')
def network():
    return network_of()


@pytest.fixture(scope='module')
def folder(network, tiny, tiny_dir, tmp_path_factory):
    """What the README's snippet finds: runs/two_device_demo and photo.jpg; a file of weights too."""
    folder, random = tmp_path_factory.mktemp('library'), np.random.default_rng(0)
    save_run(network, folder / 'runs/two_device_demo', tiny, tiny_dir)
    save_safetensors(network, folder / 'weights.safetensors')
    small = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(small).resize((400, 300), Image.Resampling.BICUBIC).save(folder / 'photo.jpg')
    (folder / 'text.jpg').write_text('no image')
    return folder


@pytest.fixture(scope='module')
def net(folder):
    return alexnet_jax.load(folder / 'runs/two_device_demo')


@pytest.fixture(scope='module')
def crops():
    """Three smooth images, float32 (3, 224, 224, 3), 0..255."""
    small = np.random.default_rng(1).uniform(0, 255, (3, 7, 7, 3))
    return small.repeat(32, axis=1).repeat(32, axis=2).astype(np.float32)


@pytest.fixture
def prepared_backend(monkeypatch):
    """The commands' code in this process, whose backend is set up already."""
    for module in (predict_photos, extract_features):
        monkeypatch.setattr(module, 'prepare_backend', lambda *_, **__: None)


def plain_logits(network, images):
    """(n, classes) by the plain network in float64."""
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), network.params)
        x = np.asarray(images, np.float64) - network.mean_image
        return np.asarray(jax.jit(lambda x: oracle.network('released', params, x, None))(x))


def run_python(code, *, cwd, cache):
    environment = cli.environment(cache) | {'PYTHONPATH': str(cli.ROOT)}
    done = subprocess.run([sys.executable, '-c', code], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_no_jax(tmp_path):
    code = 'import sys, alexnet_jax; dir(alexnet_jax); alexnet_jax.__version__; print("jax" in sys.modules)'
    assert run_python(code, cwd=tmp_path, cache=tmp_path) == 'False\n'


def test_exports_are_all_there():
    assert all(getattr(alexnet_jax, name) is not None for name in alexnet_jax.__all__)
    assert set(alexnet_jax.__all__) <= set(dir(alexnet_jax))
    source = pathlib.Path(alexnet_jax.__file__).read_text()
    typed = re.findall(r'from alexnet_jax\.(\S+) import \w+ as (\w+)', source)  # for type checkers
    assert {name: module for module, name in typed} == alexnet_jax._MODULES
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = alexnet_jax.nothing


def test_version_of_a_checkout_that_is_not_installed_says_so(monkeypatch):
    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, 'version', version)
    assert alexnet_jax.__version__ == '0+not.installed'


@pytest.mark.slow
def test_readme_snippet_runs_outside_the_checkout(net, folder, program_cache):
    readme = (cli.ROOT / 'README.md').read_text()
    (snippet,) = re.findall(r'## As a library\n```python\n(.*?)```', readme, re.DOTALL)
    assert len([line for line in snippet.splitlines() if line]) <= 8
    shapes = 'import json; print(json.dumps([logits.shape, fc7.shape, slopes.shape]), bool(abs(slopes).max() > 0))'
    printed = run_python(snippet + shapes, cwd=folder, cache=program_cache).splitlines()
    assert printed[-1] == '[[2, 3], [2, 256], [224, 224, 3]] True'
    first = net.predict(str(folder / 'photo.jpg'))[0][0]
    assert printed[0].startswith(f'[[({first[0]!r}, {first[1]:.3f}')


@pytest.mark.slow
def test_load_takes_run_folders_and_weights_files(network, folder, crops, net):
    nets = [
        net,
        alexnet_jax.load(str(folder / 'runs/two_device_demo')),
        alexnet_jax.load(folder / 'weights.safetensors'),
    ]
    expected = plain_logits(network, crops)
    for one in nets:
        assert one.classes == CLASSES
        np.testing.assert_allclose(one.logits(crops), expected, rtol=0, atol=2e-4)
    assert 'released, 3 classes' in repr(net)


def test_load_takes_what_was_trained_on_two_devices(tiny, tiny_dir, crops, tmp_path, net, network):
    save_run(network, tmp_path / 'run', tiny, tiny_dir, mesh=(1, 2))
    assert json.loads((tmp_path / 'run/config.json').read_text())['mesh'] == [1, 2]
    loaded = alexnet_jax.load(tmp_path / 'run')
    np.testing.assert_array_equal(loaded.logits(crops), net.logits(crops))
    assert len(loaded.logits(crops).devices()) == 1


@pytest.mark.parametrize(
    ('name', 'step', 'message'),
    [
        ('nothing', None, 'nothing does not exist: give a run folder'),
        ('runs', None, 'runs has no checkpoint: it has none'),
        ('runs/two_device_demo', 7, 'has no checkpoint 7: it has 0'),
        ('weights.safetensors', 0, '--step is for --workdir'),
        ('photo.jpg', None, 'is no file of weights but a picture'),
    ],
)
def test_load_refuses_what_is_no_network(folder, name, step, message):
    with pytest.raises(InputError, match=message):
        alexnet_jax.load(folder / name, step=step)


@pytest.mark.slow
def test_predict_equals_the_command(net, folder, program_cache):
    options = [f'--workdir={folder / "runs/two_device_demo"}', '--json']
    done = cli.run('predict', str(folder / 'photo.jpg'), *options, cache=program_cache)
    (entry,) = json.loads(done.stdout)['predictions']
    expected = [(one['class'], pytest.approx(one['probability'], abs=2e-5)) for one in entry['top5']]
    assert net.predict(folder / 'photo.jpg') == [expected]
    assert net.predict([os.fspath(folder / 'photo.jpg')] * 2) == [expected] * 2


@pytest.mark.parametrize('protocol', ['centre', 'ten_view'])
def test_predict_of_arrays_and_files_equals_the_plain_network(net, network, folder, protocol):
    square = square_image((folder / 'photo.jpg').read_bytes())
    (row,) = slow_probabilities(network, [(square, 0)], protocol, decoded=True)
    order = sorted(range(3), key=lambda index: -row[index])
    expected = [(CLASSES[index], pytest.approx(row[index], abs=2e-5)) for index in order]
    assert net.predict(square, protocol=protocol) == [expected]
    assert net.predict(jnp.asarray(square, jnp.float32)[None], protocol=protocol) == [expected]
    assert net.predict(folder / 'photo.jpg', protocol=protocol) == [expected]


def test_predict_keeps_the_order_over_batches(net, monkeypatch, crops):
    whole = net.predict(crops, protocol='centre')
    monkeypatch.setattr('alexnet_jax.library.MAX_BATCH', 2)
    assert [[name for name, _ in one] for one in net.predict(crops, protocol='centre')] == [
        [name for name, _ in one] for one in whole
    ]


def test_predict_refuses_what_it_cannot_read(net, folder, crops):
    with pytest.raises(InputError, match=r'text\.jpg: not an image; .*nothing\.jpg: No such file'):
        net.predict([folder / 'photo.jpg', folder / 'text.jpg', folder / 'nothing.jpg'])
    with pytest.raises(InputError, match='no image is named'):
        net.predict([])
    with pytest.raises(InputError, match="no protocol 'best': give one of centre, ten_view"):
        net.predict(crops, protocol='best')
    with pytest.raises(InputError, match=r"224x224 have no ten views: give protocol='centre', or images of 256x256"):
        net.predict(crops)


@pytest.mark.parametrize('layer', ['conv2', 'fc7', pytest.param('fc8', marks=pytest.mark.repeats)])
def test_features_equal_the_command(prepared_backend, net, folder, layer, tmp_path):
    source = NetworkArgs(workdir=[str(folder / 'runs/two_device_demo')])
    options = {'layer': layer, 'output': str(tmp_path / 'f.npz')}
    extract_features.extract_features([str(folder / 'photo.jpg')], source, **options)
    with np.load(tmp_path / 'f.npz') as file:
        expected = file['features']
    square = square_image((folder / 'photo.jpg').read_bytes())
    found = net.features(square, layer)
    assert found.dtype == jnp.float32 and (1, *found.shape) == expected.shape
    np.testing.assert_allclose(found / abs(expected).max(), expected[0] / abs(expected).max(), rtol=0, atol=2e-5)


def test_layers_are_the_stages_with_their_shapes(net, crops):
    assert list(net.layers)[-1] == 'fc8/linear'
    some = [*net.layers][::4]
    shapes = {stage: jax.eval_shape(lambda x, stage=stage: net.features(x, stage), crops) for stage in some}
    assert all(found.shape[1:] == net.layers[stage] for stage, found in shapes.items())


def test_logits_take_every_kind_of_image(net, crops):
    whole = crops.astype(np.uint8)
    expected = net.logits(whole)
    for images in (whole.astype(np.float32), whole.astype(np.float16), whole.astype(np.float64), jnp.asarray(whole)):
        np.testing.assert_allclose(net.logits(images), expected, rtol=0, atol=1e-5)
    record = np.pad(whole, ((0, 0), (16, 16), (16, 16), (0, 0)))
    np.testing.assert_array_equal(net.logits(record), expected)
    assert net.logits(whole[0]).shape == (3,) and expected.shape == (3, 3)


@pytest.mark.slow
def test_logits_under_jit_and_vmap_equal_a_loop(net, crops):
    loop = np.stack([net.logits(crop) for crop in crops])
    for function in (jax.jit(net.logits), jax.vmap(net.logits), jax.jit(jax.vmap(net.logits))):
        np.testing.assert_allclose(function(crops), loop, rtol=0, atol=1e-4)
    features = jax.vmap(lambda crop: net.features(crop, 'conv5'))(crops)
    np.testing.assert_allclose(features, net.features(crops, 'conv5'), rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_logits_gradient_equals_finite_differences_of_the_plain_network(net, network, crops):
    direction = np.random.default_rng(2).standard_normal(crops[0].shape)
    slope = jax.grad(lambda crop: net.logits(crop)[1])(crops[0])
    step = 1e-4  # pixels; in float64
    ends = plain_logits(network, np.stack([crops[0] + sign * step * direction for sign in (1, -1)]))[:, 1]
    expected = (ends[0] - ends[1]) / (2 * step)
    assert abs(expected) > 1e-3
    assert float(np.vdot(slope, direction)) == pytest.approx(expected, rel=1e-3)
    _, forward = jax.jvp(lambda crop: net.logits(crop)[1], (crops[0],), (direction.astype(np.float32),))
    assert float(forward) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ('images', 'message'),
    [
        (np.zeros((100, 100, 3), np.uint8), r'have the shape \(100, 100, 3\): give one of \(224, 224, 3\) or \(256'),
        (np.zeros((1, 3, 224, 224), np.float32), r'have the shape \(1, 3, 224, 224\)'),
        (np.zeros((0, 224, 224, 3), np.float32), 'at least one'),
        (np.zeros((1, 1, 224, 224, 3), np.float32), 'have the shape'),
        (np.zeros((224, 224, 3), np.int32), 'images are int32: give uint8 or a float dtype'),
        ([[1, 2, 3]], 'images are a list: give a NumPy or JAX array'),
    ],
)
def test_logits_refuse_other_images(net, images, message):
    with pytest.raises(InputError, match=message):
        net.logits(images)


def test_features_refuse_an_unknown_layer(net, crops):
    with pytest.raises(InputError, match=r"no layer 'pool5': give one of conv1, conv2, .*fc8, or a stage of \.layers"):
        net.features(crops, 'pool5')


@pytest.mark.slow
def test_trained_network_of_caffe_subtracts_the_mean_behind_each_view():
    """As if the mean had been subtracted from whole records before they were cut and mirrored."""
    random = np.random.default_rng(5)
    mean = random.uniform(60, 160, (256, 256, 3)).astype(np.float32)
    images = random.integers(0, 256, (2, 256, 256, 3)).astype(np.float32)
    saved = dataclasses.replace(make_network('caffenet', width=1 / 64, scale=2), about={})
    saved.params['fc8']['kernel'] /= 500  # no probability is 0 or 1
    ours, plain = (TrainedNetwork(dataclasses.replace(saved, mean_image=image)) for image in (mean, 0 * mean))
    for protocol in ('centre', 'ten_view'):
        found, expected = ours.predict(images, protocol=protocol), plain.predict(images - mean, protocol=protocol)
        for one, other in zip(found, expected, strict=True):
            assert [name for name, _ in one] == [name for name, _ in other]
            assert [value for _, value in one] == pytest.approx([value for _, value in other], rel=1e-4)
    np.testing.assert_allclose(ours.logits(images[:, 14:241, 14:241]), ours.logits(images), rtol=1e-5)
    centre = images[:, 14:241, 14:241] - mean[14:241, 14:241]
    np.testing.assert_allclose(ours.logits(images), plain.logits(centre), rtol=1e-3, atol=1e-4)
    assert ours.predict(images, protocol='centre') != ours.predict(images)
