"""Hints at names: at what was misspelt, never at what is merely alike."""

import pytest

from alexnet_jax.__main__ import VERBS
from alexnet_jax.console import suggest
from alexnet_jax.training.config import KEYS


@pytest.mark.parametrize(
    ('word', 'meant'),
    [
        ('learning_rates', 'learning_rate'),
        ('learning_rat', 'learning_rate'),
        ('learningrate', 'learning_rate'),
        ('learning-rate', 'learning_rate'),
        ('Batch_Size', 'batch_size'),
        ('widht', 'width'),
        ('momentun', 'momentum'),
        ('epoch', 'epochs'),
        ('step', 'steps'),
        ('sheduel', None),  # two mistakes
        ('cooldown_epochs', None),
        ('min_drops', None),  # the opposite of max_drops
        ('min_non_finite', None),
        ('no_non_finite', None),
        ('grow_factor', None),
        ('colour', None),
        ('', None),
    ],
)
def test_suggest_names_a_key_that_is_misspelt_and_else_lists_them(word, meant):
    assert suggest(word, KEYS) == (f'did you mean {meant!r}?' if meant else f'known are {", ".join(sorted(KEYS))}')


@pytest.mark.parametrize(('word', 'meant'), [('trian', 'train'), ('benhc', 'bench'), ('export', None), ('test', None)])
def test_suggest_names_a_verb_that_is_misspelt(word, meant):
    assert suggest(word, VERBS).startswith(f'did you mean {meant!r}?' if meant else 'known are audit, bench, ')
