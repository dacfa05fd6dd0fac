"""The table's rows as text and its verdict; tests/extras/test_tpu.py makes rows."""

import json

import pytest

from alexnet_jax.communication import scaling
from alexnet_jax.errors import InputError
from alexnet_jax.training.config import make_config
from alexnet_jax.training.validation import validate_config

CONFIG = validate_config(make_config(None))


def rows(*, links, images, scaling_='weak'):
    """Of 1, 2, 4, ... chips: 10 ms of memory traffic and `links` ms of messages over 'data'."""
    made = []
    for index, (wait, size) in enumerate(zip(links, images, strict=True)):
        terms = {'compute': 1e-3, 'memory': 10e-3, 'links': wait * 1e-3, 'link_bytes': {'data': wait * 50e6}}
        step = (10 + wait) * 1e-3
        made.append(
            {
                'parallelism': 'data_parallel',
                'precision': 'float32',
                'scaling': scaling_,
                'chips': 2**index,
                'topology': 'v5e:?',
                'mesh': [2**index, 1],
                'batch_size': size,
                'cost': {'operations': 1.0, 'traffic': 1, 'arguments': 10**9, 'temporaries': 5 * 10**8, 'code': 0},
                'prediction': terms | {'step': step, 'bound': 'links' if wait > 10 else 'memory'},
                'images_per_second': size / step,
            }
        )
    return made


def test_format_scaling_says_what_a_step_takes_and_how_well_chips_are_used():
    text = scaling.format_scaling(rows(links=(0, 10), images=(100, 200)))
    title, _, one, two, _ = text.splitlines()
    assert title == 'data_parallel, float32, 100 images on each chip; predicted, in ms a step:'
    # 100 images in 10 ms; twice as many in 20 ms, so each chip does half as many.
    assert one.split() == [
        '1',
        'v5e:?',
        '1x1',
        '100',
        '1.00',
        '10.00',
        '0.00',
        '10.00',
        '10,000',
        '100%',
        'memory',
        '1.50',
    ]
    assert two.split() == [
        '2',
        'v5e:?',
        '2x1',
        '200',
        '1.00',
        '10.00',
        '10.00',
        '20.00',
        '10,000',
        '50%',
        'memory',
        '1.50',
    ]


def test_format_verdict_stops_where_twice_the_chips_never_give_half_as_much_again():
    # 10,000, 16,667, then 16,000 and 19,048 images/s: 1.67, 0.96 and 1.19 times.
    found = scaling.format_verdict(rows(links=(0, 2, 15, 32), images=(100, 200, 400, 800)))
    assert found == (
        'It stops scaling at 2: with 4 chips, 0.96 times the images/s. There 60% of a step are messages; '
        "most of what is said, 750 MB over each link, goes along 'data'."
    )


def test_format_verdict_does_not_stop_at_one_step_down():
    # 10,000, 10,000, then 20,000: the first word costs as much as the step, and more chips no more.
    found = scaling.format_verdict(rows(links=(0, 10, 10), images=(100, 200, 400)))
    assert found.startswith('It scales up to 4, at 50% of the efficiency of 1; the least is 50%, at 2. There ')


def test_format_verdict_counts_four_times_the_chips_as_doubling_twice():
    one, _, four = rows(links=(0, 0, 7), images=(100, 200, 400))  # 2.35 times, 1.53 for each doubling
    assert scaling.format_verdict([one, four]).startswith('It scales up to 4, at 59%')
    one, _, four = rows(links=(0, 0, 9), images=(100, 200, 400))  # 2.11 times, 1.45
    assert scaling.format_verdict([one, four]).startswith('It stops scaling at 1: with 4 chips, 2.11 times')


def test_format_verdict_says_what_binds_where_it_scales_to_the_end():
    made = rows(links=(0, 1, 1), images=(100, 200, 400))
    made[-1]['prediction']['link_bytes'] = {'tower': 1e6, 'data': 50e6}
    found = scaling.format_verdict(made)
    assert found == (
        'It scales up to 4, at 91% of the efficiency of 1; the least is 91%, at 2. There 91% of a step are reading and '
        "writing memory, 9% messages; most of what is said, 50 MB over each link, goes along 'data'."
    )


def test_format_scaling_shows_what_does_not_fit_and_leaves_it_out_of_the_comparison():
    made = rows(links=(0, 1, 1), images=(100, 200, 400))
    made[0] = {key: value for key, value in made[0].items() if key not in ('cost', 'prediction', 'images_per_second')}
    made[0]['too_large'] = 'why'
    text = scaling.format_scaling(made)
    assert 'does not fit into the memory of a chip' in text.splitlines()[2]
    assert '100%' in text.splitlines()[3]
    assert scaling.format_verdict(made[:1]) == 'It fits nowhere.'


def table(**options):
    options = {'scaling': 'weak', 'num_classes': 10, 'output': None} | options
    return scaling.report_scaling(CONFIG, 'v5e', ['1', '2'], **options)


@pytest.mark.parametrize(('kind', 'chips'), [('v5e', ['1', 'x']), ('v5e', ['-1']), ('v5e:2x2', ['1']), (None, ['1'])])
def test_report_scaling_wants_numbers_of_chips_of_a_kind(kind, chips):
    with pytest.raises(InputError, match='--chips takes numbers and needs a kind of chips'):
        scaling.report_scaling(CONFIG, kind, chips, scaling='weak', num_classes=10, output=None)


@pytest.mark.parametrize('content', ['{"a": {}}', '[1]', 'rows', json.dumps({'a': 3})])
def test_report_scaling_does_not_write_over_a_file_of_something_else(tmp_path, content):
    output = tmp_path / 'rows.json'
    output.write_text(content)
    with pytest.raises(InputError, match='holds no compiled programs'):
        table(output=str(output))
    assert output.read_text() == content


def test_report_scaling_finds_a_missing_folder_before_it_compiles(tmp_path):
    with pytest.raises(InputError, match='there is no folder'):
        table(output=str(tmp_path / 'none' / 'rows.json'))
