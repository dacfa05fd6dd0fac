"""Run folders of earlier versions and damaged ones: taken over where the batches stay what they were."""

import errno
import json
import os
import re
import shutil
import socket
import threading
import time

import pytest
from builders import run_with

from alexnet_jax.errors import InputError
from alexnet_jax.files import hold_lock
from alexnet_jax.run.run_dir import claim_run_dir, hold_run_dir, open_or_render


@pytest.fixture
def earlier(tiny, tmp_path):
    """Claims a folder for a config and takes out of it what earlier versions did not write."""

    def make(config):
        claim_run_dir(tmp_path / 'run', config, tiny)
        path = tmp_path / 'run' / 'run.json'
        run = json.loads(path.read_text())
        assert run['identity'].pop('images_per_crop') is not None
        path.write_text(json.dumps(run))
        return tmp_path / 'run'

    return make


@pytest.mark.parametrize('values', [{'variant': 'paper'}, {'variant': 'released', 'images_per_crop': 1}])
def test_a_run_whose_images_had_crops_of_their_own_goes_on(earlier, tiny, values):
    folder = earlier(run_with(**values))

    claim_run_dir(folder, run_with(**values), tiny)
    assert json.loads((folder / 'run.json').read_text())['identity']['images_per_crop'] == 1


def test_a_run_that_would_share_its_crops_from_now_on_is_refused(earlier, tiny):
    folder = earlier(run_with(variant='released'))

    with pytest.raises(InputError, match=r'holds another run \(images_per_crop 1, not 32\)'):
        claim_run_dir(folder, run_with(variant='released'), tiny)


@pytest.mark.parametrize('text', ['', '{"seed": 0,', '[1, 2]'])
def test_a_damaged_config_is_said_and_written_anew(tiny, tmp_path, capsys, text):
    """run.json says whose run it is; config.json is for comparing settings."""
    claim_run_dir(tmp_path / 'run', run_with(), tiny)
    path = tmp_path / 'run/config.json'
    whole = path.read_text()
    path.write_text(text)
    claim_run_dir(tmp_path / 'run', run_with(), tiny)
    assert path.read_text() == whole
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f'{path} is damaged: whether settings have changed is not known, and it is written anew'


def test_a_folder_is_held_by_one_run_at_a_time(tmp_path, capsys):
    folder = tmp_path / 'runs/one'
    with hold_run_dir(folder), hold_run_dir(tmp_path / 'runs/two'):
        other = f'another process ({socket.gethostname()}, pid {os.getpid()}) trains in {folder}'
        says = f'^{re.escape(other)}: stop it, or .* gone, delete {folder}/.run.lock$'
        with pytest.raises(InputError, match=says), hold_run_dir(folder, patience=0.3):
            pytest.fail('two hold it')
        assert capsys.readouterr().err == f'{other}: waiting for its end, up to 0 s\n'
    with hold_run_dir(folder, patience=0.0):
        assert capsys.readouterr().err == ''


def test_a_folder_that_only_holds_a_lock_is_empty(tiny, tmp_path):
    with hold_run_dir(tmp_path / 'run'):
        claim_run_dir(tmp_path / 'run', run_with(), tiny)
    assert (tmp_path / 'run/run.json').exists()


def test_storage_without_locks_is_used_without(tmp_path, monkeypatch):
    def unknown(file, how):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr('fcntl.flock', unknown)
    with hold_run_dir(tmp_path / 'run'):
        assert (tmp_path / 'run').is_dir()


def test_who_comes_while_another_renders_the_embedded_dataset_waits_for_it(tiny_dir, tmp_path, capsys):
    """Another has the lock, makes the dataset (here a copy) and leaves; this one finds it."""
    opened = []
    waiting = threading.Thread(target=lambda: opened.append(open_or_render('demo', str(tmp_path))))
    with hold_lock(tmp_path, '.demo.first.lock', option='', busy='', patience=0.0):
        waiting.start()
        while 'renders the embedded dataset' not in (said := capsys.readouterr().err):
            assert waiting.is_alive()
            time.sleep(0.01)
        shutil.copytree(tiny_dir / 'tiny', tmp_path / 'demo')
    waiting.join()
    assert opened[0].examples('train') > 0
    assert said.endswith(f' in {tmp_path}: waiting for its end\n')
    assert 'rendering' not in capsys.readouterr().err
