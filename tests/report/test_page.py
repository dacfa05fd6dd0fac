"""Tests what the templates say in cases that a small run does not reach."""

import dataclasses
import re
import types

import numpy as np
import pytest

from alexnet_jax.evaluation.measures import ClassRow
from alexnet_jax.report.drawing import FigureCollection, Photo, Pixels
from alexnet_jax.report.page import Section, format_megabytes, format_percent, format_standard_error, render_page
from alexnet_jax.report.pictures import Specialisation
from alexnet_jax.report.run_folder import RunFolder
from alexnet_jax.report.sections import make_result_section, make_speed_section

LOGGED = [
    {'step': 2, 'images_per_second': 1234.6, 'data_wait': 0.1},
    {'step': 4, 'images_per_second': 8.0, 'data_wait': 0.25},
]
PIXELS = Pixels(np.zeros((2, 3, 3), np.uint8), 'a "quoted" <description>')


def render(name, data, *, classes=3):
    """Renders a page with one section of a run that has no more than the templates read."""
    run = types.SimpleNamespace(
        name='run',
        index=0,
        workdir='runs/run',
        step=4000,
        has_towers=True,
        network_label='released',
        config=types.SimpleNamespace(dataset='tiny'),
        network=types.SimpleNamespace(classes=['c'] * classes),
        kernel=np.zeros((11, 11, 3, 96), np.float32),
    )
    return ' '.join(render_page([run], [Section(name, data, run)]).split())  # no-break spaces too


@pytest.mark.parametrize(
    ('p', 'test', 'verdict'),
    [
        (0.0001, 'p &lt; 0.001 (', 'Tower 1 is the one for colour.'),
        (0.03, 'p = 0.030 (', 'That hints at a specialisation, and is no proof of one.'),
        (0.5, 'p = 0.500 (', 'So these towers cannot be told apart'),
    ],
)
def test_filters_section_gives_verdict(p, test, verdict):
    stats = Specialisation(np.zeros((2, 48)), (0.25, 0.75), (0.2, 0.7), 0.5, p)
    sheets = {'sheets': [PIXELS] * 2, 'initial_sheets': [PIXELS] * 2}
    page = render(
        'filters',
        sheets | {'stats': stats, 'shares': PIXELS, 'history': PIXELS, 'initial_share': 0.2, 'noisy': p > 0.1},
    )
    assert test in page and verdict in page and '(medians 0.200 and 0.700), difference <b>0.500</b>' in page
    assert 'After 4,000 updates 20.0 % of a filter’s energy' in page
    assert ('So part of the noise above' in page) == (p > 0.1)
    assert 'alt="a &#34;quoted&#34; &lt;description&gt;"' in page


def test_mistakes_section_of_many_classes_names_its_selection():
    rows = [ClassRow(0, '<i>', 1200, 0.5, 0.1, 0.4, 700, 'b', 600), ClassRow(1, 'b', 3, 0.0, 0.0, 0.9, 603, '', 0)]
    photo = Photo(PIXELS.pixels, 'photo', side=4)
    data = {'images': 1203, 'protocol': 'ten-view', 'max_classes': 20, 'matrix': PIXELS, 'worst': rows}
    page = render('mistakes', data | {'surest': [(photo, 'b', '<i>', 0.987)]}, classes=1000)
    assert (
        '1,203 validation images, ten-view. Of 1,000 classes the 20 with the most mistakes are in the matrix.' in page
    )
    assert '<td>&lt;i&gt;</td> <td class="number">1,200</td>' in page and '<td>b (600)</td>' in page
    assert '<td>nothing</td>' in page and '<b>b</b> 99&nbsp;%<small>is: &lt;i&gt;</small>' in page
    assert 'Surest mistakes' in page and 'Surest mistakes' not in render('mistakes', data | {'surest': []})


@pytest.mark.parametrize(
    ('identities', 'same'),
    [
        ([{'dataset_fingerprint': 'a'}, {'dataset_fingerprint': 'a', 'rewritten_from': None}], True),
        ([{'dataset_fingerprint': 'a'}, {'dataset_fingerprint': 'b', 'rewritten_from': 'a'}], True),
        ([{'dataset_fingerprint': 'a'}, {'dataset_fingerprint': 'b', 'rewritten_from': 'c'}], False),
        ([{'dataset_fingerprint': 'a'}, {'dataset_fingerprint': 'b'}], False),
        ([{}, {}], True),  # of a version that recorded none: by their name
        ([{}, {'dataset_fingerprint': 'a'}], False),
    ],
)
def test_result_section_knows_the_same_images_in_either_encoding(identities, same):
    others = dict.fromkeys(field.name for field in dataclasses.fields(RunFolder))
    others['config'] = types.SimpleNamespace(dataset='tiny')
    runs = [RunFolder(**others | {'metadata': {'identity': identity}}) for identity in identities]
    assert make_result_section(runs).data == {'same_images': same}


def test_formats_of_numbers():
    assert (format_megabytes(280_000), format_megabytes(12_340_000)) == ('0.28 MB', '12.3 MB')
    assert (format_percent(None), format_percent(0.234)) == ('not measured', '23.4\N{NO-BREAK SPACE}%')
    assert format_standard_error(0.125, 13) == '± 9.2'


def test_speed_section_leaves_out_what_was_not_logged():
    logged, silent = (
        types.SimpleNamespace(
            name=name,
            index=index,
            workdir=name,
            train=train,
            startup={'total': 2.5, 'parts': {'step': 1.5}} if train else None,
            metadata={'devices': 'cpu', 'mesh': {'data': 1, 'tower': 2}} if train else {},
            images_per_second=10.04 if train else None,
            config=types.SimpleNamespace(dataset='tiny'),
        )
        for index, (name, train) in enumerate({'logged': LOGGED, 'silent': []}.items())
    )
    section = make_speed_section([logged, silent], FigureCollection())
    page = ' '.join(render_page([logged, silent], [section]).split())
    cells = [re.findall(r'<td[^>]*>(.*?)</td>', row)[1:] for row in re.findall(r'<tr><td>.*?</tr>', page)]
    assert cells[:2] == [['cpu', '1x2', '10.0', '621.3', '25.0 %', '2.5 s'], ['not recorded', *[''] * 5]]
    assert 'aria-label="Images a second over training"' in page
