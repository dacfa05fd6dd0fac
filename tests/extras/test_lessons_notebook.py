"""docs/lessons/lessons.ipynb, executed: its numbers beside NumPy's, and that its saved outputs are just these."""

import cli
import numpy as np
import pytest
from extras.notebooks import execute, get_text, read

from alexnet_jax.data.preparing.demo import render

pytestmark = pytest.mark.repeats
TARGETS = [0.7, 0.6, 0.5, 0.4]
NOTEBOOK = cli.ROOT / 'docs/lessons/lessons.ipynb'
ASKED = """
import json
print(json.dumps({
    'errors': errors, 'crossings': crossings, 'gradients': gradients, 'left': left, 'lines': lines,
    'before': before.tolist(), 'after': after.tolist(),
    'messages': {name: [(m.layer, m.direction, m.bytes) for m in own] for name, own in messages.items()},
}))
"""


@pytest.fixture(scope='module')
def executed(program_cache):
    """The notebook run anew, and what its variables hold at the end."""
    return execute(NOTEBOOK, ask=ASKED, cache=program_cache)


def test_relu_comes_to_an_error_that_tanh_does_not(executed):
    errors, crossings = executed[1]['errors'], executed[1]['crossings']
    means = {unit: [sum(own[end - 50 : end]) / 50 for end in range(50, 501)] for unit, own in errors.items()}
    for unit, found in crossings.items():
        ends = [next((50 + i for i, mean in enumerate(means[unit]) if mean <= target), None) for target in TARGETS]
        assert found == ends, unit
    assert means['relu'][-1] < means['tanh'][-1] - 0.1
    assert crossings['relu'][TARGETS.index(0.4)] is not None
    assert crossings['tanh'][TARGETS.index(0.4)] is None


def test_sigmoids_leave_the_first_layers_next_to_nothing(executed):
    found = executed[1]['gradients']
    layers = ['conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7', 'fc8']
    assert all(sorted(own) == layers for own in found.values())
    sigmoid = [found['sigmoid'][layer] for layer in layers]
    assert sigmoid == sorted(sigmoid)
    assert sigmoid[0] < 1e-5
    assert found['relu']['conv1'] > 0.05 > found['tanh']['conv1'] > 100 * sigmoid[0]


def pool(image, window, take):
    """NumPy's: windows every 2, those that reach over the edge left out."""
    return take(np.lib.stride_tricks.sliding_window_view(image, (window, window))[::2, ::2], axis=(2, 3))


FORMS = {
    'maximum, 3x3 every 2': (3, np.max),
    'maximum, 2x2 every 2': (2, np.max),
    'mean, 3x3 every 2': (3, np.mean),
    'mean, 2x2 every 2': (2, np.mean),
}


def test_a_maximum_keeps_edges_and_a_mean_dims_them(executed):
    luminance = render('train', 1)[0][16:240, 16:240] @ np.array((0.299, 0.587, 0.114))
    first = np.sqrt(np.sum(np.square(np.gradient(luminance)), axis=0))

    def strongest(image):
        return image[image >= np.percentile(image, 99)].mean()

    for name, (window, take) in FORMS.items():
        image, expected = first, [1.0]
        for _ in range(3):
            image = pool(image, window, take)
            expected.append(strongest(image) / strongest(first))
        assert executed[1]['left'][name] == pytest.approx(expected, rel=1e-3), name
        assert (expected[3] > 1) == (take is np.max)


@pytest.mark.parametrize(('window', 'places'), [(3, 7), (2, 4)])
def test_a_unit_behind_two_poolings_answers_to_as_many_places_as_the_answer_says(executed, window, places):
    assert sorted(executed[1]['lines'][f'maximum, {window}x{window} every 2']) == [0.0] * (16 - places) + [1.0] * places


def test_normalisation_is_the_papers_formula_in_each_tower(executed):
    before, after = (np.array(executed[1][name]).reshape(2, 12) for name in ('before', 'after'))
    assert np.count_nonzero(before) > 6
    for tower in range(2):
        for i in range(12):
            window = before[tower, max(0, i - 2) : i + 3]
            expected = before[tower, i] / (2 + 1e-4 * np.sum(window**2)) ** 0.75
            assert after[tower, i] == pytest.approx(expected, rel=1e-5)


def test_towers_send_what_the_lesson_says(executed):
    conv3, fc6, fc7 = 128 * 13 * 13 * 128 * 4, 128 * 6 * 6 * 128 * 4, 128 * 2048 * 4
    sent = {name: sum(size for *_, size in own) for name, own in executed[1]['messages'].items()}
    all_four = 2 * (conv3 + fc6 + fc7) + fc7
    assert sent == {'all four': all_four, 'not at conv3': all_four - 2 * conv3, 'at fc8 alone': fc7}
    (answer,) = (cell.source for cell in executed[0].cells if cell.id == 'towers_question')
    conv2, conv4 = 128 * 27 * 27 * 48 * 4, 128 * 13 * 13 * 192 * 4
    for number in (conv2, conv4, 2 * (conv2 + 2 * conv4), all_four):
        assert f'{number:,}' in answer


def test_notebook_holds_the_outputs_of_this_code(executed):
    fresh, same = {cell.id: cell for cell in executed[0].cells}, set()
    for cell in read(NOTEBOOK).cells:
        if cell.cell_type == 'code' and get_text(cell):
            same |= {cell.id} if get_text(cell) == get_text(fresh[cell.id]) else set()
    assert {'pooling', 'normalisation', 'towers'} <= same  # nothing is trained in them
