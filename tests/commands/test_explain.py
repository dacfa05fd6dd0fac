"""`explain` on photographs: what it prints, writes and draws, and what it refuses."""

import dataclasses
import json
import re

import cli
import numpy as np
import pytest
from PIL import Image
from random_networks import network_of

from alexnet_jax.data.photo import square_image
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation import explain_photos as explaining
from alexnet_jax.evaluation.attribution import METHODS
from alexnet_jax.evaluation.explain_photos import explain_photos
from alexnet_jax.evaluation.explain_picture import AGAINST, FOR, draw_explanations, paint_map, paint_signal
from alexnet_jax.evaluation.explainer import Settings
from alexnet_jax.evaluation.open_networks import NetworkArgs
from alexnet_jax.library import TrainedNetwork
from alexnet_jax.weights.safetensors_file import save_safetensors

CLASSES = ('n01440764 tench, Tinca tinca', 'green', 'red')
FEW = Settings(window=112, stride=112, steps=2)


@pytest.fixture(scope='module')
def network():
    return network_of(width=0.03125, classes=CLASSES)


@pytest.fixture(scope='module')
def weights(network, tmp_path_factory):
    path = tmp_path_factory.mktemp('weights') / 'w.safetensors'
    save_safetensors(network, path)
    return path


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """Three photographs, and a file that is none."""
    folder, random = tmp_path_factory.mktemp('photos'), np.random.default_rng(0)
    for name in ('a.png', 'b.jpg', 'c.webp'):
        small = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((400, 300), Image.Resampling.BICUBIC).save(folder / name)
    (folder / 'text.jpg').write_text('no image')
    return folder


@pytest.fixture
def prepared_backend(monkeypatch):
    """This process's backend is set up already."""
    monkeypatch.setattr(explaining, 'prepare_backend', lambda *_, **__: None)


@pytest.mark.slow
def test_explain_prints_json_draws_and_ends_in_1_for_bad_files(network, weights, photos, tmp_path, program_cache):
    names = [str(photos / name) for name in ('a.png', 'text.jpg', 'b.jpg')]
    options = [f'--weights={weights}', '--method=gradient,grad_cam', '--class=n01440764', '--json']
    done = cli.run('explain', *names, *options, f'--figure={tmp_path / "f.png"}', cache=program_cache)
    assert done.returncode == 1
    *progress, line = done.stderr.splitlines()
    assert line == f'error: {photos / "text.jpg"}: not an image'
    assert all(re.fullmatch(r'\w+: 2 of 2 images', line) for line in progress)  # where the machine is slow
    found = json.loads(done.stdout)
    crops = np.stack([square_image((photos / name).read_bytes())[16:240, 16:240] for name in ('a.png', 'b.jpg')])
    logits = np.asarray(TrainedNetwork(network).logits(crops))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert list(found) == ['explanations'] and len(found['explanations']) == 2
    for row, (entry, name) in enumerate(zip(found['explanations'], ('a.png', 'b.jpg'), strict=True)):
        methods = entry.pop('methods')
        assert list(methods) == ['gradient', 'grad_cam']
        assert all(list(one) == ['peak', 'half'] for one in methods.values())
        assert 0 < methods['gradient']['half'] < 0.5
        assert entry == {
            'image': str(photos / name),
            'index': 0,
            'class': CLASSES[0],
            'logit': pytest.approx(logits[row, 0], abs=1e-4),
            'probability': pytest.approx(probabilities[row, 0], abs=1e-4),
        }
    assert Image.open(tmp_path / 'f.png').format == 'PNG'


@pytest.mark.slow
@pytest.mark.repeats
def test_explain_photos_writes_all_methods_of_likeliest_classes(prepared_backend, network, weights, photos, tmp_path):
    """Three photographs are a batch of four; what is written is of three, and equal alone and together."""
    names, source = [str(photos / name) for name in ('a.png', 'b.jpg', 'c.webp')], NetworkArgs(weights=[str(weights)])
    options = {'methods': ['all'], 'settings': FEW, 'randomised': True}
    found, text, unusable = explain_photos(names, source, **options, output=str(tmp_path / 'f.npz'))
    assert unusable == ()
    crops = np.stack([square_image((photos / name).read_bytes())[16:240, 16:240] for name in names])
    logits = np.asarray(TrainedNetwork(network).logits(crops))
    with np.load(tmp_path / 'f.npz') as file:
        arrays = dict(file)
    own = {name for method in METHODS for name in (method, f'{method}_map')}
    assert set(arrays) == {'files', 'crops', 'index', 'logit', 'classes', 'network'} | own
    np.testing.assert_array_equal(arrays['crops'], crops)
    np.testing.assert_array_equal(arrays['index'], logits.argmax(axis=1))
    np.testing.assert_allclose(arrays['logit'], logits.max(axis=1), rtol=1e-4)
    assert arrays['files'].tolist() == names and tuple(arrays['classes']) == CLASSES
    for method in METHODS:
        assert arrays[f'{method}_map'].shape == (3, 224, 224) and len(arrays[method]) == 3
        for row, entry in enumerate(found['explanations']):
            one = arrays[f'{method}_map'][row]
            assert entry['methods'][method]['peak'] == [*map(int, np.unravel_index(one.argmax(), one.shape))]
    assert list(found['randomised']) == list(METHODS)
    layers = [f'conv{number}' for number in range(1, 6)] + ['fc6', 'fc7', 'fc8']
    for values in found['randomised'].values():
        assert list(values) == layers[::-1]
        assert all(value is None or -1 <= value < 0.99 for value in values.values())
    lines = text.splitlines()
    assert lines[0].split()[:4] == ['image', 'probability', 'class', 'method']
    assert [line.split()[0] for line in lines if line.startswith(METHODS)] == [*METHODS]
    assert lines[-1] == f'written: {tmp_path / "f.npz"}'
    alone, _, _ = explain_photos(names[2:], source, methods=['gradient'], class_name=str(logits.argmax(axis=1)[2]))
    assert (
        alone['explanations'][0]['methods']['gradient']['peak']
        == (found['explanations'][2]['methods']['gradient']['peak'])
    )


def test_explain_photos_refuses_what_cannot_be_done(prepared_backend, network, weights, photos, tmp_path, monkeypatch):
    image, source = [str(photos / 'a.png')], NetworkArgs(weights=[str(weights)])

    def refused(names=image, source=source, methods=('gradient',), **options):
        with pytest.raises(InputError) as caught:
            explain_photos(names, source, methods=methods, **options)
        text = str(caught.value)
        assert '\n' not in text
        return text

    assert refused(methods=['gradcam']) == "--method=gradcam: did you mean 'grad_cam'?"
    known = 'all, deconvnet, grad_cam, gradient, guided, integrated_gradients, occlusion'
    assert refused(methods=['lime']) == f'--method=lime: known are {known}'
    assert refused(methods=[]).startswith('--method names none: known are all, occlusion')
    assert refused(names=[]) == 'no image is named: give one or more files or folders'
    text = refused(class_name='blue')
    assert text == f'--class=blue: random has no such class, known are green, {CLASSES[0]}, red'
    assert refused(class_name='3').startswith('--class=3: ')
    assert refused(class_name='gren').endswith("has no such class, did you mean 'green'?")
    assert refused(figure='f.jpg') == '--figure=f.jpg: the name must end in .png'
    assert refused(output='f.csv') == '--output=f.csv: the name must end in .npz'
    assert refused(output=str(tmp_path / 'none' / 'f.npz')).startswith('--output=')
    assert refused(methods=['occlusion'], settings=Settings(window=225)).startswith('--window=225 is larger')
    many = dataclasses.replace(network, classes=tuple(f'class {n}' for n in range(1000)))
    monkeypatch.setattr(NetworkArgs, 'open_one', lambda _: many)
    assert refused(class_name='x').endswith(
        'known are class 0, class 1, class 2 and 997 more, or their numbers, 0 to 999'
    )
    monkeypatch.setattr(
        NetworkArgs, 'open_one', lambda _: dataclasses.replace(network, untrained=('fc6', 'fc7', 'fc8'))
    )
    assert ' has no fc6: its layers up to conv5 give features' in refused()
    bounded = dataclasses.replace(network, name=dataclasses.replace(network.name, without=('relu',)))
    monkeypatch.setattr(NetworkArgs, 'open_one', lambda _: bounded)
    for method in ('guided', 'deconvnet'):
        assert refused(methods=[method]).startswith(f'--method={method} is a rule for ReLU')
    infinite = {'fc8': {'kernel': network.params['fc8']['kernel'] * np.nan, 'bias': network.params['fc8']['bias']}}
    damaged = dataclasses.replace(network, params=network.params | infinite)
    monkeypatch.setattr(NetworkArgs, 'open_one', lambda _: damaged)
    assert refused().endswith('its weights are damaged')


def test_paint_map_is_red_for_and_blue_against_over_a_grey_crop():
    crop = np.full((4, 4, 3), (10, 200, 30), np.uint8)
    numbers = np.zeros((4, 4))
    numbers[0, :2], numbers[3, 3] = 2, -2
    painted = paint_map(numbers, crop)
    grey = round(0.35 * (0.299 * 10 + 0.587 * 200 + 0.114 * 30) + 0.65 * 255)
    assert painted[1, 1].tolist() == [grey] * 3
    assert tuple(painted[0, 0]) == FOR and tuple(painted[3, 3]) == AGAINST
    assert (paint_map(0 * numbers, crop) == grey).all()


def test_paint_signal_keeps_colours_around_grey():
    signal = np.zeros((4, 4, 3))
    signal[0], signal[1, :, 2] = 3, -3
    painted = paint_signal(signal)
    assert painted[0, 0].tolist() == [255] * 3 and painted[1, 0].tolist() == [128, 128, 0]
    assert (painted[2:] == 128).all()


def test_draw_explanations_has_a_row_each_and_a_column_a_method(tmp_path, recwarn):
    crop = np.full((32, 32, 3), (10, 200, 30), np.uint8)
    maps = {'gradient': np.ones((2, 32, 32)), 'guided': np.ones((2, 32, 32))}
    signals = {'gradient': np.zeros((2, 32, 32, 3)), 'guided': np.full((2, 32, 32, 3), (1.0, -1.0, -1.0))}
    entries = [{'class': 'x$_$' * 20, 'probability': 0.5}, {'class': 'дом 鞋', 'probability': 0.25}]
    areas = {}
    for count in (1, 2):
        path = tmp_path / 'f.png'
        draw_explanations(path, *(x[:count] for x in (np.stack([crop] * 2), entries)), signals, maps)
        pixels = np.asarray(Image.open(path).convert('RGB'))
        colours = {'crop': (10, 200, 30), 'gradient': FOR, 'guided': (255, 0, 0)}
        areas[count] = {name: int((pixels == colour).all(axis=-1).sum()) for name, colour in colours.items()}
    assert min(areas[1].values()) > 150**2
    assert max(areas[1].values()) == pytest.approx(min(areas[1].values()), rel=0.05)
    for name, area in areas[1].items():
        assert areas[2][name] == pytest.approx(2 * area, rel=0.1)
    assert not [w for w in recwarn if 'Glyph' in str(w.message)]
