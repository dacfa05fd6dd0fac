"""`compare-images` on files: the library's distances of the same crops, and the form written out in NumPy."""

import json

import cli
import numpy as np
import pytest
from PIL import Image
from random_networks import network_of
from weights.foreign import lpips_tensors, write_torch_tensors

from alexnet_jax.data.photo import square_image
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation import compare_photos as comparing
from alexnet_jax.evaluation.compare_photos import compare_photos
from alexnet_jax.evaluation.open_networks import NetworkArgs
from alexnet_jax.library import TrainedNetwork
from alexnet_jax.weights.safetensors_file import save_safetensors

STAGES = [f'conv{number}/relu' for number in range(1, 6)]
NAMES = ('a.png', 'far.png', 'near.png', 'same.png')


@pytest.fixture(scope='module')
def network():
    return network_of('one_weird_trick', width=0.03125)


@pytest.fixture(scope='module')
def source(network, tmp_path_factory):
    path = tmp_path_factory.mktemp('weights') / 'w.safetensors'
    save_safetensors(network, path)
    return NetworkArgs(weights=[str(path)])


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """An image, another, the first with some noise, and the first again; and a file that is none."""
    folder, random = tmp_path_factory.mktemp('photos'), np.random.default_rng(0)
    first, other = (random.integers(0, 256, (8, 8, 3)).repeat(32, axis=0).repeat(32, axis=1) for _ in range(2))
    near = np.clip(first + random.normal(0, 10, first.shape), 0, 255)
    for name, pixels in zip(NAMES, (first, other, near, first), strict=True):
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
    (folder / 'text.jpg').write_text('no image')
    return folder


@pytest.fixture
def prepared_backend(monkeypatch):
    """This process's backend is set up already."""
    monkeypatch.setattr(comparing, 'prepare_backend', lambda *_, **__: None)


def read_crops(photos):
    return np.stack([square_image((photos / name).read_bytes())[16:240, 16:240] for name in NAMES])


def slow_distance(net, one, other, layers):
    total = 0.0
    for index, stage in enumerate(STAGES):
        a, b = (np.asarray(net.features(crop, stage), np.float64) for crop in (one, other))
        a, b = (x / (np.sqrt((x**2).sum(axis=-1, keepdims=True)) + 1e-10) for x in (a, b))
        total += ((a - b) ** 2 * (1 if layers is None else layers[index])).sum(axis=-1).mean()
    return total


@pytest.mark.slow
@pytest.mark.parametrize('learned', [False, True])
def test_compare_photos_measures_from_the_first(prepared_backend, network, source, photos, tmp_path, learned):
    net, random = TrainedNetwork(network), np.random.default_rng(1)
    layers = [random.uniform(0, 1, net.layers[stage][-1]).astype(np.float32) for stage in STAGES] if learned else None
    linear = str(tmp_path / 'alex.pth') if learned else None
    if learned:
        write_torch_tensors(tmp_path / 'alex.pth', lpips_tensors(layers), legacy=True)
    names = [str(photos / name) for name in (*NAMES[:1], 'text.jpg', *NAMES[1:])]
    found, text, unusable = compare_photos(names, source, linear=linear)
    crops = read_crops(photos)
    expected = [slow_distance(net, crops[0], other, layers) for other in crops[1:]]
    assert [entry['image'] for entry in found['distances']] == [str(photos / name) for name in NAMES[1:]]
    distances = [entry['distance'] for entry in found['distances']]
    np.testing.assert_allclose(distances, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(distances, net.distance(crops[0], crops[1:], weights=linear), rtol=1e-4, atol=1e-6)
    assert distances[0] > distances[1] > 0.001 > 1e-12 > distances[2] >= 0
    assert (found['reference'], found['linear']) == (names[0], linear)
    assert unusable == (f'{photos / "text.jpg"}: not an image',)
    lines = text.splitlines()
    assert lines[0].split() == ['distance', 'from', names[0]]
    order = [str(photos / name) for name in ('same.png', 'near.png', 'far.png')]
    assert [line.split()[1] for line in lines[1:]] == order
    assert lines[1].split()[0] == '0.0000' and lines[3].split()[0] == f'{distances[0]:.4f}'


def test_compare_photos_refuses_what_cannot_be_compared(prepared_backend, network, source, photos, tmp_path):
    def refused(*names, **options):
        with pytest.raises(InputError) as caught:
            compare_photos([str(photos / name) for name in names], source, **options)
        return str(caught.value)

    assert refused() == 'no image is named: give one, and those that it is compared with'
    assert refused('a.png') == '1 of two photographs or more, the least to compare'
    bad = f'{photos / "text.jpg"}: not an image'
    assert refused('a.png', 'text.jpg') == f'1 of two photographs or more, the least to compare; {bad}'
    assert refused('text.jpg', 'a.png', 'far.png') == f'there is nothing to compare with: {bad}'
    layers = [np.ones(3, np.float32)] * 5
    write_torch_tensors(tmp_path / 'other.pth', lpips_tensors(layers), legacy=True)
    assert ' weighs 3, 3, 3, 3, 3 channels, and one_weird_trick has ' in refused(
        'a.png', 'far.png', linear=str(tmp_path / 'other.pth')
    )


@pytest.mark.slow
def test_compare_images_prints_json(source, photos, program_cache):
    names = [str(photos / name) for name in ('a.png', 'same.png')]
    done = cli.run('compare-images', *names, f'--weights={source.weights[0]}', '--json', cache=program_cache)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == {
        'reference': names[0],
        'distances': [{'image': names[1], 'distance': pytest.approx(0, abs=1e-12)}],
        'network': 'random',
        'linear': None,
    }
