"""Charts, read back from what Matplotlib will draw."""

import numpy as np
import pytest

from alexnet_jax.figures.charts import Curve, confusion_chart, curves, guessing


def chart_of(heights, **options):
    line = Curve('', range(len(heights)), heights, '#2b6cb0', tested=False)
    return curves([line], title='', xlabel='updates', says='', **options).figure.axes[0]


def test_a_mean_over_a_drop_gets_no_label_of_its_own():
    """A log's line that spans a drop has a rate between the two, close to one of them."""
    axes = chart_of([0.003, 0.003, 0.0026625, 0.0003, 0.0003], log=True)
    assert axes.get_yticks().tolist() == [0.0003, 0.003]
    assert [label.get_text() for label in axes.get_yticklabels()] == ['0.0003', '0.003']


@pytest.mark.parametrize('log', [False, True])
def test_a_chart_of_nothing_can_be_drawn(log):
    assert chart_of([], log=log).get_lines()[0].get_xdata().size == 0


def test_a_guess_has_the_loss_of_equal_probabilities():
    height, words = guessing(10)
    assert height == pytest.approx(-np.log(0.1)) and words == 'guessing, ln 10 = 2.30'


def test_a_confusion_matrix_writes_its_counts_where_they_belong():
    texts = confusion_chart(np.array([[3, 1], [0, 5]]), ['a', 'b']).figure.axes[0].texts
    assert {(t.get_position(), t.get_text()) for t in texts} == {((0, 0), '3'), ((1, 0), '1'), ((1, 1), '5')}
