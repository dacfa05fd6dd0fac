"""Files as a whole: looked at before the work, and on a full disk the one that was there stays."""

import os
import resource

import numpy as np
import pytest
from random_networks import network_of, save_run

from alexnet_jax.checkpoints.inspect import export_npz
from alexnet_jax.data.preparing.contact_sheet import write_contact_sheet
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.extract_features import write_features
from alexnet_jax.evaluation.figure_4 import Predicted, draw_figure_4
from alexnet_jax.files import check_writable, write_file
from alexnet_jax.report.drawing import FigureCollection, Pixels


def test_check_writable_says_why_a_file_could_not_be_written_and_leaves_nothing(tmp_path):
    (tmp_path / 'file').write_text('kept')
    os.mkfifo(tmp_path / 'pipe')
    check_writable(tmp_path / 'new', option='--to')
    check_writable(tmp_path / 'file', option='--to')
    for path, message in (
        (tmp_path / 'none/a', '--to=.*/none/a: there is no folder .*/none$'),
        (tmp_path / 'file/a', '--to=.*/file/a: there is no folder .*/file$'),
        (tmp_path, '--to=.* is a folder: name a file in it'),
        (tmp_path / 'pipe', '--to=.*/pipe is a device or a pipe: name a file'),
        (tmp_path / ('x' * 300), 'cannot write .*: File name too long; choose another --to'),
    ):
        with pytest.raises(InputError, match=message):
            check_writable(path, option='--to')
    with pytest.raises(InputError, match='is a device or a pipe'):  # not replaced by a file
        write_file(tmp_path / 'pipe', 'x')
    assert (tmp_path / 'pipe').is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['file', 'pipe']
    assert (tmp_path / 'file').read_text() == 'kept'


def write_rows(path):
    about = {'layer': 'fc7', 'network': 'a', 'images': 'b'}
    batches = [(np.zeros((999, 4), np.float32), np.arange(999))]
    write_features(path, iter(batches), shape=(4,), classes=(), about=about)


@pytest.fixture
def full_disk():
    """Files take no more than 1,000 bytes, as on a disk with as many left."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope='module')
def run(tmp_path_factory, tiny, tiny_dir):
    workdir = tmp_path_factory.mktemp('run') / 'run'
    save_run(network_of(), workdir, tiny, tiny_dir)
    return workdir


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


@pytest.mark.parametrize('kind', ['figure.png', 'pages.png', 'sheet.png', 'features.npz', 'export.npz'])
def test_writers_keep_the_file_that_was_there_when_the_disk_is_full(tmp_path, tiny, run, full_disk, kind):
    path = tmp_path / kind
    path.write_text('before')
    collection = FigureCollection()
    collection.add('pages', Pixels(NOISE, 'noise'))
    write = {
        'figure.png': lambda: draw_figure_4(path, [Predicted(NOISE, None, [('a', 1.0)])]),
        'pages.png': lambda: collection.write(tmp_path),
        'sheet.png': lambda: write_contact_sheet(tiny, path, images=1),
        'features.npz': lambda: write_rows(path),
        'export.npz': lambda: export_npz(run, step=None, to=path),
    }[kind]
    with pytest.raises(InputError, match=f'cannot write .*{kind}: File too large'):
        write()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(kind, 'before')]
