"""Other labels, several of an image: files, names, and scores by trying every order of what is equal."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.evaluator import Predictions
from alexnet_jax.evaluation.measures import average_predictions, measure_errors, score_images
from alexnet_jax.evaluation.relabelling import format_summary, match_labels, read_relabelling

NAMES = [f'{"cat" if number % 2 else "dog"}/{number}.png' for number in range(13)]
CLASSES = ('n00000001 blue, azure', 'green', 'red')


@pytest.fixture
def named(tiny, tmp_path):
    """Makes 'tiny' of 13 files with these names."""

    def make(names):
        (tmp_path / 'validation_names.json').write_text(json.dumps(names))
        return dataclasses.replace(tiny, directory=tmp_path)

    return make


def write(tmp_path, content, name='labels.json'):
    (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return read_relabelling(str(tmp_path / name))


def score_slowly(scores, right, k):
    """The share of all orders of equal scores in which one of the first k classes is right."""
    orders = [
        order
        for order in itertools.permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    return np.mean([any(right[index] for index in order[:k]) for order in orders])


def test_score_images_of_several_labels_is_the_share_of_all_orders():
    random = np.random.default_rng(0)
    scores = random.integers(0, 3, (60, 6)) / 8  # with many ties
    right = random.random((60, 6)) < 0.4
    right[np.arange(60), random.integers(0, 6, 60)] = True
    found = Predictions(scores, np.zeros(60, np.int32), right)
    for k in (1, 2, 5):
        expected = [score_slowly(*pair, k) for pair in zip(scores, right, strict=True)]
        np.testing.assert_allclose(score_images(found, k), expected, atol=1e-12)


def test_measure_errors_of_several_labels_takes_their_probability_together():
    """By hand: wrong, right by its second label, right within five only."""
    rows = np.array(
        [[0.4, 0.3, 0.1, 0.1, 0.06, 0.04], [0.2, 0.5, 0.1, 0.1, 0.05, 0.05], [0.3, 0.25, 0.2, 0.15, 0.1, 0]]
    )
    right = np.zeros((3, 6), bool)
    right[[0, 1, 1, 2, 2], [5, 0, 1, 3, 5]] = True
    one = Predictions(rows, np.zeros(3, np.int32), right)
    found = measure_errors(one)
    assert (found.examples, found.top1_error, found.top5_error) == (3, pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert found.loss == pytest.approx(-(np.log(0.04) + np.log(0.7) + np.log(0.15)) / 3)
    single = dataclasses.replace(one, right=np.eye(6, dtype=bool)[[5, 0, 3]])
    plain = Predictions(rows, np.array([5, 0, 3], np.int32))
    assert measure_errors(single) == measure_errors(plain)
    assert average_predictions([one, one]).right is right


def test_read_relabelling_reads_reals_list_json_and_csv(tmp_path):
    real = write(tmp_path, [[0, 207], [], *[[999]] * 49_998])
    assert real.numbered and len(real.labels) == 50_000
    assert real.labels['ILSVRC2012_val_00000001'] == ['n01440764', 'n02099601']
    assert real.labels['ILSVRC2012_val_00000002'] == []
    assert real.labels['ILSVRC2012_val_00050000'] == ['n15075141']
    plain = write(tmp_path, {'a/1.png': ['red', 'green'], '2.png': 'blue', '3.png': [], '4.png': [1]})
    assert not plain.numbered and plain.sha256 != real.sha256
    assert plain.labels == {'a/1.png': ['red', 'green'], '2.png': ['blue'], '3.png': [], '4.png': ['n01443537']}
    table = write(tmp_path, 'a/1.png,red,green\n2.png,"tench, Tinca tinca"\n\n3.png\n4.png,\n', 'labels.csv')
    expected = {'a/1.png': ['red', 'green'], '2.png': ['tench, Tinca tinca'], '3.png': [], '4.png': []}
    assert (table.labels, table.numbered) == (expected, False)


@pytest.mark.parametrize(
    ('content', 'says'),
    [
        ([[0]] * 49_999, r'\(a list of 49,999\): give ReaL'),
        ([[1000]] * 50_000, r'\(1000 is no class\)'),
        ({'a.png': [True]}, r'\(True is no class\)'),
        ({'a.png': [['red']]}, 'is no class'),
        ('{"a.png": ', 'holds no labels'),
        ('a.png,red\na.png,blue\n', r'\(a\.png is there twice\)'),
        ('{"a.png": ["red"], "a.png": ["blue"]}', r'\(a\.png is there twice\)'),
    ],
)
def test_read_relabelling_refuses_what_holds_no_labels(tmp_path, content, says):
    with pytest.raises(InputError, match=says):
        write(tmp_path, content)
    with pytest.raises(InputError, match='cannot be read: No such file'):
        read_relabelling(str(tmp_path / 'none'))


def test_match_labels_goes_by_the_names_of_files(tmp_path, named):
    """In another order than the records', with a folder or without, classes by name, synset and synonym."""
    labels = {name if index % 3 else name.split('/')[1]: ['green'] for index, name in enumerate(NAMES)}
    labels |= {'dog/4.png': ['azure', 'red', 'n00000001'], 'cat/5.png': [], 'cat/other.png': ['red']}
    labels = dict(reversed(labels.items()))
    found = match_labels(write(tmp_path, labels), named(NAMES), 'validation', classes=CLASSES)
    expected = np.zeros((13, 3), bool)
    expected[:, 1] = True
    expected[4], expected[5] = (True, False, True), False
    np.testing.assert_array_equal(found.right, expected)
    assert (found.summary['left_out'], found.summary['unknown']) == (1, 1)
    assert format_summary(found.summary).endswith(
        '1 images without one are left out. 1 more that it labels are not in the split.'
    )
    kept = found.apply(Predictions(np.arange(39).reshape(13, 3), np.arange(13), None))
    assert kept.labels.tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12]
    np.testing.assert_array_equal(kept.right, np.delete(expected, 5, axis=0))


def test_match_labels_finds_reals_images_by_their_numbers(tmp_path, named):
    real = [[]] * 50_000
    numbers = [40_000, *range(1, 13)]
    for place, number in enumerate(numbers):
        real[number - 1] = [place, 500]
    names = [f'n01440764/ILSVRC2012_val_{number:08d}.JPEG' for number in numbers]
    synsets = [f'n{number:08d}' for number in range(2000)]
    relabelling = write(tmp_path, real)
    with pytest.raises(InputError, match=r"the class 'n01440764', which is none of the 2,000 that are scored on tiny"):
        match_labels(relabelling, named(names), 'validation', classes=synsets)
    classes = tuple(sorted({label for one in relabelling.labels.values() for label in one}, reverse=True))
    found = match_labels(relabelling, named(names), 'validation', classes=classes)
    # The synsets' order is that of the numbers: 0 to 12 and 500, here the other way round.
    assert [np.flatnonzero(row).tolist() for row in found.right] == [[0, 13 - place] for place in range(13)]


@pytest.mark.parametrize(
    ('labels', 'says'),
    [
        (dict.fromkeys(NAMES[1:], 'red'), r'has nothing of 1 of the 13 images of tiny, validation, such as dog/0\.png'),
        ({name: [] for name in NAMES}, 'leaves out all images of tiny, validation'),
        (dict.fromkeys([*NAMES, '3.png'], 'red'), r'labels cat/3\.png of tiny twice'),
        (dict.fromkeys(NAMES, 'pink'), "has the class 'pink', which is none of the 3 that are scored on tiny"),
        ([[]] * 50_000, r'has nothing of 13 of the 13 images'),
    ],
)
def test_match_labels_refuses_what_does_not_fit(tmp_path, named, labels, says):
    with pytest.raises(InputError, match=says):
        match_labels(write(tmp_path, labels), named(NAMES), 'validation', classes=CLASSES)


def test_match_labels_refuses_two_files_of_one_name_and_datasets_without_names(tmp_path, named, tiny):
    names = ['dog/1.png', 'cat/1.png', *NAMES[2:]]
    labels = dict.fromkeys(names, 'red')
    match_labels(write(tmp_path, labels), named(names), 'validation', classes=CLASSES)
    at_two_depths = ['1.png', *names[1:]]  # the whole name of one, which the other's is behind its folder
    labels_of_both = dict.fromkeys(at_two_depths, 'red') | {'1.png': 'green'}
    found = match_labels(write(tmp_path, labels_of_both), named(at_two_depths), 'validation', classes=CLASSES)
    assert found.right[:2].tolist() == [[False, True, False], [False, False, True]]
    named(names)
    labels['1.png'] = labels.pop('dog/1.png')
    with pytest.raises(InputError, match=r'1\.png may be cat/1\.png and dog/1\.png of tiny: name its folder too'):
        match_labels(write(tmp_path, labels), named(names), 'validation', classes=CLASSES)
    (tmp_path / 'validation_names.json').unlink()
    with pytest.raises(InputError, match='and tiny keeps none: prepare it again with --overwrite, from a folder'):
        match_labels(
            write(tmp_path, labels), dataclasses.replace(tiny, directory=tmp_path), 'validation', classes=CLASSES
        )
