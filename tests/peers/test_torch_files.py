"""Files as PyTorch itself writes them: read, or refused with a line of Python that makes a file that is read."""

import argparse
import re

import numpy as np
import pytest

from alexnet_jax.errors import InputError
from alexnet_jax.weights.open_weights import open_weights

torch = pytest.importorskip('torch', reason="PyTorch is not installed: pip install 'alexnet-jax[torch]'")
from peers.torchvision_alexnet import Alexnet  # noqa: E402 - it imports torch


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    return Alexnet(width=0.03125, classes=7).eval()


def assert_read(path, model):
    found = open_weights(path).params
    weight = model.state_dict()['features.6.weight'].numpy()
    np.testing.assert_array_equal(found['conv3']['kernel'], weight.transpose(2, 3, 1, 0))
    assert found['fc8']['bias'].tolist() == model.state_dict()['classifier.6.bias'].tolist()


@pytest.mark.parametrize('legacy', [False, True])
def test_open_weights_reads_what_trainers_save(tmp_path, model, legacy):
    average = torch.optim.swa_utils.AveragedModel(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    beside = {
        'optimizer': optimizer.state_dict(),
        'epoch': 3,
        'best': np.float64(1),
        'args': argparse.Namespace(lr=0.1),
    }
    whole = beside | {'model_ema': average.state_dict(), 'model': model.state_dict(), 'rng': torch.get_rng_state()}
    parameters = dict(model.named_parameters())
    for value in (whole, average.state_dict(), {'net': model.state_dict(), 'seen': {1, 2}}, parameters):
        torch.save(value, tmp_path / 'w', _use_new_zipfile_serialization=not legacy)
        assert_read(tmp_path / 'w', model)
    torch.save(model.state_dict(), tmp_path / 'w', pickle_protocol=4, _use_new_zipfile_serialization=not legacy)
    assert_read(tmp_path / 'w', model)


def follow(path, target):
    """Runs the last line of Python that the refusal of a file names."""
    with pytest.raises(InputError) as refused:
        open_weights(path)
    line = re.findall(r'torch\.save\(.*, FILE\)', str(refused.value))[-1]
    exec(line, {'torch': torch, 'FILE': target})


@pytest.mark.parametrize('legacy', [False, True])
def test_open_weights_names_a_line_that_saves_a_models_weights(tmp_path, model, legacy):
    for value in (model, {'epoch': 3, 'model': model}, {'a': model.state_dict(), 'b': model.state_dict()}):
        torch.save(value, tmp_path / 'w', _use_new_zipfile_serialization=not legacy)
        follow(tmp_path / 'w', tmp_path / 'saved')
        assert_read(tmp_path / 'saved', model)


@pytest.mark.slow
def test_open_weights_names_a_line_that_saves_a_programs_weights(tmp_path, model):
    images = (torch.zeros(1, 3, 224, 224),)
    torch.jit.trace(model, images).save(tmp_path / 'w')
    follow(tmp_path / 'w', tmp_path / 'saved')
    assert_read(tmp_path / 'saved', model)
    torch.export.save(torch.export.export(model, images), tmp_path / 'w.pt2')
    follow(tmp_path / 'w.pt2', tmp_path / 'saved')
    assert_read(tmp_path / 'saved', model)
