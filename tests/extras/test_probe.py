"""Probes: the classifiers against NumPy's formulas, the command on a run and on what it refuses."""

import csv
import json

import cli
import numpy as np
import pytest
from extras.conftest import extra
from random_networks import network_of

from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.probe_classifiers import ALPHAS, fit_classifier
from alexnet_jax.weights.safetensors_file import save_safetensors

extra('sklearn')


def make_problem(classes=3, images=40, numbers=6):
    random = np.random.default_rng(0)
    centres = random.normal(size=(classes, numbers))
    labels = np.arange(images) % classes
    return (centres[labels] + random.normal(size=(images, numbers))).astype(np.float32), labels


def ridge(x, labels, tested, alpha, classes):
    """Scores by the normal equations, of standardised features and targets of -1 and 1 about their means."""
    mean, std = x.mean(axis=0), x.std(axis=0)
    x, tested = (x - mean) / std, (tested - mean) / std
    targets = np.where(labels[:, None] == np.arange(classes), 1.0, -1.0)
    middle, centre = targets.mean(axis=0), x.mean(axis=0)
    weights = np.linalg.solve((x - centre).T @ (x - centre) + alpha * np.eye(x.shape[1]), (x - centre).T @ targets)
    return (tested - centre) @ weights + middle


def test_linear_classifier_is_the_ridge_whose_alpha_leaves_out_best():
    """Image by image left out, in loops: standardised by all, as the pipeline does."""
    features, labels = make_problem()
    x = features.astype(np.float64)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    errors = {}
    for alpha in ALPHAS:
        squares = []
        for out in range(len(x)):
            kept = np.arange(len(x)) != out
            targets = np.where(labels[:, None] == np.arange(3), 1.0, -1.0)
            centre, middle = x[kept].mean(axis=0), targets[kept].mean(axis=0)
            a = x[kept] - centre
            weights = np.linalg.solve(a.T @ a + alpha * np.eye(x.shape[1]), a.T @ (targets[kept] - middle))
            squares.append(((x[out] - centre) @ weights + middle - targets[out]) ** 2)
        errors[alpha] = np.mean(squares)
    best = min(errors, key=errors.get)
    found = fit_classifier('linear', features, labels, features[:7] + 1, num_classes=3)
    assert found.chosen == f'alpha {best:g}'
    assert found.held_out == pytest.approx(-errors[best], rel=1e-6)
    expected = ridge(features.astype(np.float64), labels, features[:7].astype(np.float64) + 1, best, 3)
    np.testing.assert_allclose(found.scores, expected, atol=1e-5)


def test_neighbours_vote_by_cosine_distance():
    features, labels = make_problem(images=60)
    found = fit_classifier('neighbours', features, labels, features[:10] * 3, num_classes=3)
    assert found.chosen.startswith('k ') and 0.5 < found.held_out <= 1
    np.testing.assert_array_equal(found.scores.argmax(axis=1), labels[:10])  # each is nearest to itself


@pytest.mark.parametrize('kind', ['linear', 'neighbours'])
def test_classes_without_training_images_are_never_said(kind):
    features, labels = make_problem(classes=2)
    found = fit_classifier(kind, features, labels * 3, features, num_classes=5)
    assert np.isinf(found.scores[:, [1, 2, 4]]).all()
    assert (found.scores.argmax(axis=1) == labels * 3).mean() > 0.8
    with pytest.raises(InputError, match='fewer than two classes'):
        fit_classifier(kind, features, labels * 0, features, num_classes=5)


@pytest.mark.slow
def test_probe_command_writes_the_table_of_all_layers(tiny_dir, tmp_path, program_cache):
    save_safetensors(network_of(), tmp_path / 'weights.safetensors')
    options = (f'--weights={tmp_path / "weights.safetensors"}', '--dataset=tiny', f'--data_dir={tiny_dir}')
    done = cli.run('probe', *options, f'--output={tmp_path / "probe"}', cache=program_cache)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / 'probe'
    names = {'layers.csv', 'per_class.csv', 'confusion.csv', 'layers.png', 'result.json', 'features'}
    assert {path.name for path in folder.iterdir()} == names
    result = json.loads((folder / 'result.json').read_text())
    layers = [row['layer'] for row in result['layers']]
    assert layers == ['conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7', 'fc8']
    assert result['images'] == {'train': 40, 'validation': 13}
    confusion = list(csv.DictReader((folder / 'confusion.csv').open()))
    for row in result['layers']:
        own = [cell for cell in confusion if cell['layer'] == row['layer']]
        wrong = sum(int(cell['images']) for cell in own if cell['class'] != cell['called'])
        assert sum(int(cell['images']) for cell in own) == 13
        assert row['top1_error'] == pytest.approx(wrong / 13)
        assert row['top5_error'] == 0  # of three classes
    assert min(row['top1_error'] for row in result['layers']) == 0  # colours are told apart by any features
    assert len(list(csv.DictReader((folder / 'per_class.csv').open()))) == 8 * 3
    assert done.stdout.splitlines()[1].startswith('layer  numbers  chosen')
    assert len(list((folder / 'features').iterdir())) == 16
    for more, message in (
        (('--layers=conv9',), 'error: --layer=conv9: the network released has no such layer; --layer=help lists them'),
        (('--classifier=forest',), 'error: --classifier=forest: give one of linear, neighbours'),
    ):
        done = cli.run('probe', *options, f'--output={tmp_path / "none"}', *more, cache=program_cache)
        assert (done.returncode, done.stderr.splitlines()[-1]) == (1, message)
        assert not (tmp_path / 'none').exists()
