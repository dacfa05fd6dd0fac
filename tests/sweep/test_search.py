"""A search's space, which needs no Optuna; the search itself is in tests/extras/test_search.py."""

import re
import sys

import pytest

from alexnet_jax.errors import InputError
from alexnet_jax.sweep.plan import Plan
from alexnet_jax.sweep.record import SweepRecord
from alexnet_jax.sweep.search import OptunaSearch, Range, format_space, parse_space
from alexnet_jax.training.config import make_config


def test_parse_space_reads_ranges_and_choices():
    texts = {
        'learning_rate': 'log:1e-4..1e-1',
        'momentum': '0.8..0.99',
        'batch_size': '16..64',
        'width': '.25..0.5',
        'variant': 'paper,released',
        'mesh': '1,1;1,2',
        'patience': '5',
    }
    space = parse_space(make_config(None), texts)
    assert space == {
        'learning_rate': Range(1e-4, 1e-1, log=True),
        'momentum': Range(0.8, 0.99, log=False),
        'batch_size': Range(16, 64, log=False),
        'width': Range(0.25, 0.5, log=False),
        'variant': ['paper', 'released'],
        'mesh': [(1, 1), (1, 2)],
        'patience': [5],
    }
    assert format_space(space)['learning_rate'] == 'log:0.0001..0.1'
    assert format_space(space)['mesh'] == '1x1,1x2'


@pytest.mark.parametrize(
    ('texts', 'line'),
    [
        ({'seed': '0,1'}, '--sweep.seed: a search over seeds finds luck'),
        ({'learning_rate': '0.1..0.01'}, '--sweep.learning_rate=0.1..0.01: LOW..HIGH needs LOW below HIGH'),
        (
            {'momentum': 'log:0..0.9'},
            '--sweep.momentum=log:0..0.9: LOW..HIGH needs LOW below HIGH, and with log: above',
        ),
        ({'momentum': '0.5..1.5'}, 'point momentum=1.5: config.momentum is 1.5: it must be at least 0 and below 1'),
        ({'batch_size': '16..6.4'}, '--sweep.batch_size=16,6.4: config.batch_size=6.4'),
        ({'learning_rat': '0.1..0.2'}, "unknown config key 'learning_rat': did you mean 'learning_rate'?"),
        ({'variant': 'paper..released'}, 'point variant=paper..released: config.variant is'),
        ({}, 'nothing to search'),
    ],
)
def test_parse_space_refuses_invalid_texts(texts, line):
    with pytest.raises(InputError, match=re.escape(line)):
        parse_space(make_config(None), texts)


def test_search_without_optuna_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'optuna', None)  # what makes its import fail
    base = make_config(None)
    space = parse_space(base, {'momentum': '0.1..0.2'})
    record = SweepRecord(Plan(tmp_path, 'x.py', (), base), [], search=format_space(space))
    with pytest.raises(InputError, match=r"needs Optuna: pip install 'alexnet-jax\[sweep\]'"):
        OptunaSearch(record, base, space, trials=1)
