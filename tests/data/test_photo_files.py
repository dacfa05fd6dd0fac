"""Photographs as a command line names them: files, folders, pipes, and what is none of them."""

import contextlib
import io
import os
import threading
import types
import unicodedata

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data import photo_files
from alexnet_jax.data.photo_files import open_photos
from alexnet_jax.data.pipeline import read_whole_image


def write_photo(path, colour):
    """Writes a PNG of one colour, so that a photograph is known by its first pixel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (32, 32), (colour, 0, 0)).save(path)
    return path


def read_colours(photos):
    """The red of each photograph, read as testing reads it."""
    return [
        int(np.asarray(Image.open(io.BytesIO(photos.records[index][0])))[0, 0, 0]) for index in range(len(photos.names))
    ]


def test_open_photos_labels_by_folder(tmp_path, monkeypatch):
    paths = [write_photo(tmp_path / name / 'photo.png', 1) for name in ('green', 'red', 'elsewhere')]
    found = open_photos([str(path) for path in paths], ('blue', 'green', 'red'))
    assert found.labels == (1, 2, None)
    assert [label for _, label in found.records] == [1, 2, 0]
    monkeypatch.chdir(tmp_path / 'green')
    assert open_photos(['photo.png'], ('blue', 'green', 'red')).labels == (1,)
    write_photo(paths[0], 9)  # testing reads files again: they are not kept
    assert read_colours(found) == [9, 1, 1]


def test_open_photos_takes_any_name(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, 'été') for form in ('NFC', 'NFD'))
    first = write_photo(tmp_path / decomposed / '0.png', 5)
    second = write_photo(tmp_path / 'cat/ascii.png', 6).rename(tmp_path / 'cat' / os.fsdecode(b'\xe9.png'))
    found = open_photos([str(first), str(second)], ['cat', composed])
    assert found.names == (str(first), rf'{tmp_path}/cat/\xe9.png')
    assert found.labels == (1, 0)
    assert read_colours(found) == [5, 6]
    composed_folder = write_photo(tmp_path / composed / '0.png', 5)
    assert open_photos([str(composed_folder)], ['cat', decomposed]).labels == (1,)


def test_open_photos_reads_folders_at_any_depth_and_says_what_is_left_out(tmp_path, capsys):
    top = tmp_path / 'photos'
    for colour, name in enumerate(('b.png', 'cat/2.jpg', 'cat/10.png', 'cat/old/a.bmp', '.thumbnails/small.png')):
        write_photo(top / name, colour)
    outside = write_photo(tmp_path / 'album/linked.png', 9).parent
    (top / 'album').symlink_to(outside)
    (top / 'circle').symlink_to(top)
    (top / 'cat/none.png').write_bytes(b'nothing that is an image')
    (top / 'notes.txt').write_text('where these were taken')
    found = open_photos([str(top), str(top / 'b.png')], ['cat', 'dog'])
    names = ['album/linked.png', 'b.png', 'cat/10.png', 'cat/2.jpg', 'cat/old/a.bmp', 'b.png']
    assert found.names == tuple(str(top / name) for name in names)
    assert found.labels == (None, None, 0, 0, None, None)
    assert sorted(found.unusable) == [f'{top}/cat/none.png: not an image', f'{top}/notes.txt: not an image extension']
    colours = read_colours(found)
    assert [colours[0], colours[1], colours[2], colours[4], colours[5]] == [9, 0, 2, 3, 0]  # a JPEG's are near
    told = capsys.readouterr().err
    assert 'hidden or kept by a system (1): .thumbnails' in told and 'read already (1): circle' in told


def test_open_photos_says_that_a_folder_has_no_image(tmp_path):
    assert open_photos([str(tmp_path)], ['cat']).unusable == (f'{tmp_path}: a folder without an image',)
    (tmp_path / 'notes.txt').write_text('where these were taken')
    assert open_photos([str(tmp_path)], ['cat']).unusable == (f'{tmp_path}/notes.txt: not an image extension',)


@pytest.fixture
def write_pipe(tmp_path):
    """Makes a pipe as bash names one for <(...), and a thread that writes to it until nobody reads any more."""
    pipe = tmp_path / 'pipe'
    os.mkfifo(pipe)

    def write(data):
        with contextlib.suppress(BrokenPipeError):
            pipe.write_bytes(data)

    def start(data):
        threading.Thread(target=write, args=[data], daemon=True).start()
        return pipe

    return start


@pytest.mark.timeout(30)  # a second reader would wait for ever
def test_open_photos_reads_a_pipe_once(tmp_path, write_pipe):
    """Its size is 0, and nothing is left for a second reader."""
    pipe = write_pipe(write_photo(tmp_path / 'photo.png', 77).read_bytes())
    found = open_photos([str(pipe)], ['cat'])
    assert found.names == (str(pipe),) and read_colours(found) == read_colours(found) == [77]


@pytest.mark.parametrize('standing', ['', 'file', 'folder'])
def test_open_photos_reads_standard_input(tmp_path, monkeypatch, standing):
    """Also where a file or a folder has that name."""
    monkeypatch.chdir(tmp_path)
    data = write_photo(tmp_path / 'photo.png', 88).read_bytes()
    if standing == 'file':
        write_photo(tmp_path / 'a.png', 1).rename(tmp_path / '-')
    elif standing == 'folder':
        (tmp_path / '-').mkdir()
    monkeypatch.setattr(photo_files.sys, 'stdin', types.SimpleNamespace(buffer=io.BytesIO(data)))
    found = open_photos(['-'], ['cat'])
    assert found.names == ('-',) and read_colours(found) == read_colours(found) == [88]


def test_open_photos_names_what_is_no_file(tmp_path):
    names = ['https://example.org/cat.jpg', '/dev/null', str(tmp_path / '*.jpg')]
    assert open_photos(names, ['cat']).unusable == (
        'https://example.org/cat.jpg: an address, and nothing is fetched here: download the image and name its file',
        '/dev/null: a device, not a file',
        f'{tmp_path}/*.jpg: No such file or directory',
    )


def test_open_photos_reads_a_file_whose_name_is_like_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_photo(tmp_path / 'c:/photo.png', 7)
    assert read_colours(open_photos(['c://photo.png'], ['cat'])) == [7]


def test_open_photos_makes_squares_as_it_is_told(tmp_path):
    """Red is the first eighth of a picture twice as wide as high: a centre square has none, a warped one an eighth."""
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[:, :16, 0] = 255
    Image.fromarray(picture).save(tmp_path / 'wide.png')
    for preprocessing, red in (('paper', 0), ('torchvision', 0), ('caffe', 255 / 8)):
        records = open_photos([str(tmp_path / 'wide.png')], ['cat'], preprocessing=preprocessing).records
        found = read_whole_image(records, 0, record_size=64)
        assert found.shape == (64, 64, 3) and abs(found[..., 0].mean() - red) < 3, preprocessing


@pytest.mark.timeout(30)
def test_open_photos_refuses_a_pipe_that_does_not_end(monkeypatch, write_pipe):
    monkeypatch.setattr(photo_files, 'MAX_BYTES', 1000)
    monkeypatch.setattr('alexnet_jax.data.photo.MAX_BYTES', 1000)
    monkeypatch.setattr(photo_files.sys, 'stdin', types.SimpleNamespace(buffer=io.BytesIO(bytes(5000))))
    pipe = write_pipe(bytes(5000))
    said = 'a file of 1,001 bytes; at most 1,000 are read'
    assert open_photos(['-', str(pipe)], ['cat']).unusable == (f'-: {said}', f'{pipe}: {said}')
