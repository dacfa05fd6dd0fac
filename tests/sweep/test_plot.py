"""The picture: which settings are drawn where."""

import pytest
from matplotlib.figure import Figure
from PIL import Image

from alexnet_jax.sweep import plot
from alexnet_jax.sweep.results import Row, SweepSetting


def setting(centre, **overrides):
    results = [{'centre': {'top1_error': error}} for error in centre]
    return SweepSetting(overrides, [Row('', overrides, 'finished', '', 1, result, {}, False) for result in results])


@pytest.fixture
def rates():
    return [
        setting([rate, rate + 0.1], learning_rate=rate, momentum=m) for rate in (0.5, 0.01, 0.1) for m in (0.0, 0.9)
    ]


def test_choose_layout_draws_lines_over_three_numbers(rates):
    axis, lines = plot._choose_layout(rates)
    assert axis == 'learning_rate'
    assert {name: len(line) for name, line in lines.items()} == {'momentum 0.0': 3, 'momentum 0.9': 3}


@pytest.mark.parametrize(
    'settings',
    [
        [setting([0.1], width=w) for w in (0.5, 1.0)],  # two numbers
        [setting([0.1], variant=v) for v in ('paper', 'released')],
        [setting([0.1], lighting=v) for v in (True, False)],
        [setting([0.1])],
        [setting([0.1], width=w) for w in (0.25, 0.5, 1.0)] + [setting([0.1])],  # not all have one
        [setting([0.1], width=float(w), momentum=m / 10) for w in (1, 2, 3) for m in range(9)][::2],  # too many lines
    ],
)
def test_choose_layout_draws_rows_otherwise(settings):
    assert (plot._choose_layout(settings)[0] is None) == (len(settings) < 10)


def test_draw_lines_sorts_means_in_percent(rates):
    axes = Figure().subplots()
    plot._draw_lines(axes, *plot._choose_layout(rates))
    assert axes.get_xscale() == 'log'
    line = axes.containers[0].lines[0]
    assert list(line.get_xdata()) == [0.01, 0.1, 0.5]
    assert list(line.get_ydata()) == pytest.approx([6.0, 15.0, 55.0])
    assert axes.containers[0].has_yerr
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ['momentum 0.0', 'momentum 0.9']


def test_draw_rows_labels_means():
    axes = Figure().subplots()
    plot._draw_rows(axes, [setting([0.1, 0.2], variant='paper'), setting([0.3])])
    assert [label.get_text() for label in axes.get_yticklabels()] == ['variant paper', 'base']
    assert list(axes.containers[0].lines[0].get_xdata()) == pytest.approx([15.0, 30.0])
    assert axes.get_ylim() == (1.5, -0.5)  # the first above


def test_plot_sweep_draws_a_panel_for_each_searched_key(tmp_path):
    settings = [setting([0.1], learning_rate=0.5, mesh=[1, 2]), setting([0.4], learning_rate=0.001, mesh=[1, 1])]
    axes = Figure().subplots(2)
    plot._draw_panel(axes[0], 'learning_rate', settings)
    plot._draw_panel(axes[1], 'mesh', settings)
    trials, best = axes[0].lines
    assert axes[0].get_xscale() == 'log'
    assert (list(trials.get_xdata()), list(trials.get_ydata())) == ([0.5, 0.001], [10.0, 40.0])
    assert (list(best.get_xdata()), list(best.get_ydata())) == ([0.5], [10.0])
    assert [label.get_text() for label in axes[1].get_xticklabels()] == ['1x2', '1x1']
    plot.plot_sweep(settings, tmp_path / 'x.png', searched=['learning_rate', 'mesh'])
    with Image.open(tmp_path / 'x.png') as image:
        assert image.size == (770, 572)  # 7 x 5.2 inches at 110 dots
