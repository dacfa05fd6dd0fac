"""`predict` and `features` on photographs: what they print, write and draw, and what becomes of unusable files."""

import json

import cli
import numpy as np
import pytest
from PIL import Image
from random_networks import network_of, save_run, slow_probabilities

from alexnet_jax.data.photo import square_image
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation import extract_features as extracting
from alexnet_jax.evaluation import figure_4
from alexnet_jax.evaluation import predict_photos as predicting
from alexnet_jax.evaluation.extract_features import extract_features
from alexnet_jax.evaluation.open_networks import NetworkArgs
from alexnet_jax.evaluation.predict_photos import predict_photos
from alexnet_jax.weights.safetensors_file import save_safetensors

NAMES = ('green/photo.png', 'red/photo.jpg', 'elsewhere/photo.webp')


@pytest.fixture(scope='module')
def network():
    return network_of(classes=('blue', 'green', 'red', 'black', 'white', 'grey'))


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """Three photographs of other sizes than 256, two of them in a folder named like a class; and two that are none."""
    folder, random = tmp_path_factory.mktemp('photos'), np.random.default_rng(0)
    for name in NAMES:
        (folder / name).parent.mkdir()
        small = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((400, 300), Image.Resampling.BICUBIC).save(folder / name)
    (folder / 'text.jpg').write_text('no image')
    return folder


@pytest.fixture
def prepared_backend(monkeypatch):
    """This process's backend is set up already."""
    for module in (predicting, extracting):
        monkeypatch.setattr(module, 'prepare_backend', lambda *_, **__: None)


def expected(network, folder, names, protocol):
    """By the plain network, from the photographs' squares."""
    squares = [(square_image((folder / name).read_bytes()), 0) for name in names]
    return slow_probabilities(network, squares, protocol, decoded=True)


@pytest.mark.slow
def test_predict_prints_the_five_most_probable_and_ends_in_1_for_bad_files(network, photos, tmp_path, program_cache):
    save_safetensors(network, tmp_path / 'w.safetensors')
    names = [str(photos / name) for name in (NAMES[0], 'text.jpg', NAMES[1], 'nothing.jpg', NAMES[2])]
    given = [f'--weights={tmp_path / "w.safetensors"}', '--json', '--protocol=ten_view']
    done = cli.run('predict', *names, *given, cache=program_cache)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f'error: {photos / "text.jpg"}: not an image',
        f'error: {photos / "nothing.jpg"}: No such file or directory',
    ]
    assert done.stdout.count('\n') == 1
    found = json.loads(done.stdout)
    rows = expected(network, photos, NAMES, 'ten_view')
    assert list(found) == ['predictions'] and len(found['predictions']) == 3
    for entry, name, row in zip(found['predictions'], NAMES, rows, strict=True):
        best = sorted(range(6), key=lambda index: -row[index])[:5]
        assert entry == {
            'image': str(photos / name),
            'top5': [
                {'index': index, 'class': network.classes[index], 'probability': pytest.approx(row[index], abs=2e-5)}
                for index in best
            ],
        }


@pytest.fixture(scope='module')
def run(tmp_path_factory, tiny, tiny_dir):
    workdir = tmp_path_factory.mktemp('runs') / 'run'
    save_run(network_of(), workdir, tiny, tiny_dir)
    return NetworkArgs(workdir=[str(workdir)])


@pytest.mark.slow
def test_predict_photos_finds_neighbours_and_draws_them(prepared_backend, run, photos, tiny, tmp_path, monkeypatch):
    """A training image itself is among the photographs: nearest to it is its record."""
    jpeg, label = tiny.records('train')[7]
    known = tmp_path / tiny.classes[label] / 'known.png'
    known.parent.mkdir()
    whole = square_image(jpeg)
    Image.fromarray(whole).save(known)
    drawn = []
    monkeypatch.setattr(figure_4, 'draw_figure_4', lambda *given: drawn.append(given))
    names = [str(known), str(photos / NAMES[2])]
    found, text, _ = predict_photos(names, run, protocol='centre', neighbours='tiny', figure='f.png')
    near = found['predictions'][0]['neighbours']
    assert len(near) == 6
    assert near[0] == {'record': 7, 'class': tiny.classes[label], 'distance': 0}
    assert near[1]['distance'] > 0
    lines, top = text.splitlines(), found['predictions'][0]['top5']
    assert len(top) == 3  # of three classes
    assert lines[0].split() == ['image', 'probability', 'class']
    assert lines[1].split() == [names[0], f'{top[0]["probability"]:.1%}', top[0]['class']]
    assert lines[3].split() == [f'{top[2]["probability"]:.1%}', top[2]['class']]
    assert lines[4].split()[:4] == ['nearest', tiny.classes[label], '(7,', '0.0),']
    assert lines[-1] == 'drawn: f.png'
    ((path, shown),) = drawn
    assert path == 'f.png'
    assert [one.true for one in shown] == [tiny.classes[label], None]
    np.testing.assert_array_equal(shown[0].image, whole)
    assert [name for _, name in shown[0].neighbours] == [one['class'] for one in near]
    np.testing.assert_array_equal(shown[0].neighbours[0][0], whole)


@pytest.mark.slow
def test_predict_photos_refuses_what_cannot_be_done(prepared_backend, run, photos):
    image = [str(photos / NAMES[0])]
    with pytest.raises(InputError, match='no image is named'):
        predict_photos([], run, protocol='centre')
    with pytest.raises(InputError, match='several networks are named'):
        predict_photos(image, NetworkArgs(workdir=['a', 'b']), protocol='centre')
    with pytest.raises(InputError, match="no dataset 'nix'"):
        predict_photos(image, run, protocol='centre', neighbours='nix')
    with pytest.raises(InputError, match=r'--figure=nix/x.png: there is no folder nix$'):
        predict_photos(image, run, protocol='centre', figure='nix/x.png')
    with pytest.raises(InputError, match='--figure draws at most 400 images, and 401 are given'):
        predict_photos(image * 401, run, protocol='centre', figure='x.png')
    found, text, unusable = predict_photos([str(photos / 'text.jpg'), str(photos / 'nothing')], run, protocol='centre')
    assert (found, text) == ({'predictions': []}, '')
    assert [line.split(': ')[1] for line in unusable] == ['not an image', 'No such file or directory']


def test_extract_features_of_a_dataset_and_of_files_agree(prepared_backend, run, photos, tiny, tmp_path):
    """The same image as a record and as a file has the same features."""
    text, unusable = extract_features([], run, layer='fc7', dataset='tiny', output=str(tmp_path / 'f.npz'))
    assert text.startswith(f'{tmp_path / "f.npz"}: fc7/dropout of 13 images, 256 each') and unusable == ()
    record = tmp_path / 'green' / 'record.jpg'
    record.parent.mkdir()
    record.write_bytes(tiny.records('validation')[5][0])
    names = [str(photos / 'text.jpg'), str(record), str(photos / NAMES[2])]
    _, unusable = extract_features(names, run, layer='fc7', output=str(tmp_path / 'g.npz'))
    assert unusable == (f'{photos / "text.jpg"}: not an image',)
    with np.load(tmp_path / 'f.npz') as of_dataset, np.load(tmp_path / 'g.npz') as of_files:
        np.testing.assert_allclose(of_files['features'][0], of_dataset['features'][5], rtol=1e-4, atol=1e-4)
        assert of_files['files'].tolist() == names[1:]
        assert of_files['labels'].tolist() == [1, -1]
        assert of_dataset['labels'].tolist() == [label for _, label in tiny.records('validation')]
        assert str(of_dataset['images']) == 'tiny, validation'


def test_extract_features_refuses_an_unknown_layer(prepared_backend, run):
    with pytest.raises(InputError, match='--layer=pool5: the network released has no such layer'):
        extract_features(['a.jpg'], run, layer='pool5', output='f.npz')


def test_extract_features_lists_layers_without_images(prepared_backend, run):
    text, _ = extract_features([], run, layer='help')
    assert 'fc7/dropout' in text and text.endswith('= fc8')
