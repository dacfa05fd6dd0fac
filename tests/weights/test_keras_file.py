"""What is said where h5py's own process dies, hangs or reports an error; tests/extras has files of Keras itself."""

import importlib.util
import subprocess

import pytest

from alexnet_jax.errors import InputError
from alexnet_jax.weights.open_weights import open_weights


def hang(command, **options):
    raise subprocess.TimeoutExpired(command, options['timeout'])


def end(code, text=''):
    return lambda command, **_: subprocess.CompletedProcess(command, code, '', text)


@pytest.mark.parametrize(
    ('run', 'says'),
    [
        (end(-11), 'h5py dies of it; copy it again'),
        (hang, 'h5py does not come to an end with it'),
        (end(1, 'Traceback ...\nOSError: truncated file\n\n'), 'OSError: truncated file; copy it again'),
        (end(0), 'No such file or directory'),
    ],
)
def test_load_keras_survives_what_kills_h5py(tmp_path, monkeypatch, run, says):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda _: True)
    monkeypatch.setattr(subprocess, 'run', run)
    (tmp_path / 'w').write_bytes(b'\x89HDF\r\n\x1a\n' + b'\0' * 99)
    with pytest.raises(InputError, match=says) as refused:
        open_weights(tmp_path / 'w')
    assert '\n' not in str(refused.value)
