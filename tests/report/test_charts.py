"""Tests charts by what Matplotlib will draw."""

import numpy as np
import pytest

from alexnet_jax.report.charts import Curve, draw_confusion_matrix, draw_curves, draw_layers, get_uniform_loss


def draw_axes(heights, **options):
    line = Curve('', range(len(heights)), heights, '#2b6cb0', strong=False)
    return draw_curves([line], title='', xlabel='updates', **options).figure.axes[0]


def test_draw_curves_labels_no_mean_over_a_drop():
    """A log's line that spans a drop has a rate between the two, close to one of them."""
    axes = draw_axes([0.003, 0.003, 0.0026625, 0.0003, 0.0003], log=True)
    assert axes.get_yticks().tolist() == [0.0003, 0.003]
    assert [label.get_text() for label in axes.get_yticklabels()] == ['0.0003', '0.003']


@pytest.mark.parametrize('log', [False, True])
def test_draw_curves_accepts_no_points(log):
    assert draw_axes([], log=log).get_lines()[0].get_xdata().size == 0


def test_draw_curves_dashes_a_dashed_curve_alone():
    lines = [Curve(str(dashed), [1, 2], [3, 4], '#2b6cb0', dashed=dashed) for dashed in (False, True)]
    axes = draw_curves(lines, title='', xlabel='updates').figure.axes[0]
    assert [(line.get_label(), line.get_linestyle()) for line in axes.get_lines()] == [('False', '-'), ('True', '--')]


def test_get_uniform_loss_is_of_equal_probabilities():
    height, label = get_uniform_loss(10)
    assert height == pytest.approx(-np.log(0.1)) and label == 'guessing, ln 10 = 2.30'


def test_draw_confusion_matrix_places_counts():
    texts = draw_confusion_matrix(np.array([[3, 1], [0, 5]]), ['a', 'b']).figure.axes[0].texts
    assert {(t.get_position(), t.get_text()) for t in texts} == {((0, 0), '3'), ((1, 0), '1'), ((1, 1), '5')}


def test_draw_layers_shades_by_the_logarithm_a_row_for_each_layer():
    rows = {'conv1': [1e-6, 1e-4], 'conv2': [1e-2, None], 'fc8': [0.0, 1e-6]}
    axes = draw_layers(rows, [1, 100], title='', log=True, description='').figure.axes[0]
    shades = {(round(box.get_x() + 0.5), round(box.get_y() + 0.46)): box.get_alpha() for box in axes.patches}
    assert shades == pytest.approx({(0, 0): 0.06, (1, 0): 0.51, (0, 1): 0.96, (0, 2): 0.06, (1, 2): 0.06})
    assert [text.get_position() for text in axes.texts if text.get_text() == '×'] == [(1, 1)]
    assert [label.get_text() for label in axes.get_yticklabels()] == ['conv1', 'conv2', 'fc8']
    assert [label.get_text() for label in axes.get_xticklabels()] == ['1', '100']


def test_draw_layers_shades_shares_from_nothing_to_all():
    axes = draw_layers({'fc6': [0.0, 0.5, 1.0]}, [1, 2, 3], title='', log=False, description='').figure.axes[0]
    assert [box.get_alpha() for box in axes.patches] == pytest.approx([0.06, 0.51, 0.96])
