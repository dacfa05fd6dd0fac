"""What the tables say where images became squares otherwise than those of the published error."""

import dataclasses

import pytest
from weights.networks import network

from alexnet_jax.errors import InputError
from alexnet_jax.evaluation import evaluate_networks
from alexnet_jax.evaluation.evaluate_networks import EvaluationSettings
from alexnet_jax.evaluation.references import load_references

WARPED = 'warped to 256x256, whatever its shape, bilinear without antialiasing'
SQUARE = 'shorter side to 256, bicubic with antialiasing; centre 256x256'
ROWS = {row.variant: row for row in load_references() if row.variant}


@pytest.fixture
def caffenet():
    return dataclasses.replace(network('caffenet', width=1 / 64), preprocessing='caffe')


@pytest.mark.parametrize(
    ('changes', 'option', 'tested'),
    [
        ({}, None, 'paper'),  # prepared records are what they are
        ({'preprocessing': 'caffe'}, None, 'caffe'),
        ({'photos': True}, None, 'caffe'),  # photographs become the network's own squares
        ({'photos': True, 'preprocessing': 'caffe'}, 'paper', 'paper'),
    ],
)
def test_tables_name_other_squares(tiny, caffenet, monkeypatch, changes, option, tested):
    monkeypatch.setattr(type(ROWS['caffenet']), 'is_of', lambda row, networks: row.variant == networks[0].name)
    dataset, settings = dataclasses.replace(tiny, **changes), EvaluationSettings(preprocessing=option)
    arguments = ([caffenet], dataset, settings)
    assert evaluate_networks._get_preprocessing('caffe', dataset, settings) == tested
    other = evaluate_networks._describe_other_squares(ROWS['caffenet'], *arguments)
    assert other == (None if tested == 'caffe' else WARPED)
    assert evaluate_networks._describe_other_squares(ROWS['released'], *arguments) is None  # another network
    said = f'runs/some, step 7 was trained on squares made by caffe ({WARPED}), and these are made by paper ({SQUARE})'
    assert evaluate_networks._list_other_squares(*arguments) == ([] if tested == 'caffe' else [said])


def test_evaluate_refuses_squares_that_prepared_records_are_not(tiny, caffenet):
    settings = EvaluationSettings(preprocessing='caffe', batch_size=8)
    with pytest.raises(InputError, match='tiny were made by --preprocessing=paper: prepare its images with'):
        evaluate_networks._predict_all([caffenet], tiny, settings, quiet=True)
