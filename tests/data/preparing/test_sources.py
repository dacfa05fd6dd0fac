"""Where the images are: folders of a user who has no home directory."""

import pwd

import pytest

from alexnet_jax.data.preparing.sources import SourceArgs, make_spec
from alexnet_jax.errors import InputError


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    """A user whom the system does not know, as in a container that runs under a number."""

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.delenv('HOME')
    monkeypatch.setattr(pwd, 'getpwuid', unknown)


@pytest.mark.parametrize('dataset', ['mnist', 'imagenet2012'])
def test_make_spec_without_a_home_asks_for_another_folder_and_takes_it(nobody, dataset, tmp_path):
    message = '--tfds_dir=~/tensorflow_datasets: there is no such home directory: give --tfds_dir without ~'
    with pytest.raises(InputError) as caught:
        make_spec(SourceArgs(dataset=dataset), make=False)
    assert str(caught.value) == message
    with pytest.raises(InputError, match=f'mnist is not in {tmp_path} yet|{tmp_path}/downloads/manual has no '):
        make_spec(SourceArgs(dataset=dataset, tfds_dir=tmp_path), make=False)


def test_make_spec_without_a_home_names_the_folder_of_archives_too(nobody, tmp_path):
    with pytest.raises(InputError, match=r'^--manual_dir=~/tars: there is no such home directory'):
        make_spec(SourceArgs(dataset='imagenet2012', tfds_dir=tmp_path, manual_dir='~/tars'), make=False)
