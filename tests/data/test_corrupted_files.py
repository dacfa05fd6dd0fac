"""Corrupted images as they are published: ImageNet-C's folders and CIFAR-10-C's arrays."""

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data.corrupted_files import CIFAR_10, open_corrupted
from alexnet_jax.errors import InputError


def save(path, side, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 256, (side, side, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def folder(tmp_path):
    """Two corruptions, three classes of two images; an empty severity."""
    pixels = {}
    for corruption in ('snow', 'fog'):
        for severity in (1, 4):
            for label, name in enumerate(('n01', 'n02', 'n03')):
                for i in range(2):
                    path = tmp_path / 'imagenet-c' / corruption / str(severity) / name / f'{i}.png'
                    value = hash((corruption, severity, label, i)) % 2**32
                    pixels[corruption, severity, 2 * label + i] = save(path, 224, value)
    (tmp_path / 'imagenet-c' / 'fog' / '5').mkdir()
    (tmp_path / 'imagenet-c' / 'saturate').mkdir()
    return tmp_path / 'imagenet-c', pixels


def test_open_corrupted_reads_folders(folder):
    path, pixels = folder
    files = open_corrupted(str(path))
    assert (files.name, files.classes, files.corruptions) == ('imagenet-c', ('n01', 'n02', 'n03'), ('snow', 'fog'))
    source = files.open('fog', 4, record_size=256)
    assert source.labels.tolist() == [0, 0, 1, 1, 2, 2]
    record, label = source[3]
    assert label == 1 and record.shape == (256, 256, 3)
    np.testing.assert_array_equal(record[16:240, 16:240], pixels['fog', 4, 3])  # what the centre view cuts out again
    np.testing.assert_array_equal(record[15, 16:240], record[16, 16:240])  # of networks that read 227
    crop = np.empty((8, 8, 3), np.uint8)
    source.read_crop(3, crop, top=20, left=30)
    np.testing.assert_array_equal(crop, record[20:28, 30:38])


def test_open_corrupted_reads_files_of_the_size_of_records(folder):
    path, _ = folder
    pixels = save(path / 'fog' / '1' / 'n01' / '0.png', 256, 9)
    np.testing.assert_array_equal(open_corrupted(str(path)).open('fog', 1, record_size=256).read(0), pixels)


def test_open_corrupted_refuses_folders_that_are_no_such(folder, tmp_path):
    path, _ = folder
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'flat' / 'fog').mkdir(parents=True)
    save(path / 'snow' / '1' / 'n01' / '0.png', 64)
    (path / 'snow' / '1' / 'n02' / '0.png').write_bytes(b'no image')
    save(path / 'snow' / '4' / 'n09' / '0.png', 224)
    for place, words in (
        ('none', 'none is not a folder: it takes ImageNet-C'),
        ('empty', 'empty holds none of the corruptions: it takes ImageNet-C'),
        ('flat', r'flat: fog/ holds no severities 1 to 5 of classes'),
    ):
        with pytest.raises(InputError, match=words):
            open_corrupted(str(tmp_path / place))
    files = open_corrupted(str(path))
    with pytest.raises(InputError, match=r'fog/2 is not there: give the --severities that are'):
        files.open('fog', 2, record_size=256)
    with pytest.raises(InputError, match=r'fog/5 holds no images in folders of classes'):
        files.open('fog', 5, record_size=256)
    with pytest.raises(InputError, match=r'n09 is a class that the folder of another severity lacks'):
        files.open('snow', 4, record_size=256)
    snow = files.open('snow', 1, record_size=256)
    with pytest.raises(InputError, match=r'n01/0.png: 64x64 pixels, where the network reads 256x256 or 224x224'):
        snow.read(0)
    with pytest.raises(InputError, match=r'n02/0.png: not an image'):
        snow.read(2)


@pytest.fixture
def arrays(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3)).astype(np.uint8)
    labels = np.tile(np.array([3, 0, 9, 1], np.uint8), 5)
    np.save(tmp_path / 'fog.npy', images)
    np.save(tmp_path / 'labels.npy', labels)
    return tmp_path, images


def test_open_corrupted_reads_arrays(arrays):
    path, images = arrays
    files = open_corrupted(str(path))
    assert (files.classes, files.corruptions, len(CIFAR_10)) == (CIFAR_10, ('fog',), 10)
    for severity in (1, 5):
        source = files.open('fog', severity, record_size=32)
        assert source.labels.tolist() == [3, 0, 9, 1]
        for index in range(4):
            np.testing.assert_array_equal(source.read(index), images[4 * (severity - 1) + index])


@pytest.mark.parametrize(
    ('name', 'content', 'words'),
    [
        ('labels.npy', None, 'labels.npy is no array that numpy.save wrote'),
        ('labels.npy', np.zeros(15, np.uint8), r'fog.npy is uint8 \(20, 32, 32, 3\): it must be'),
        ('labels.npy', np.zeros((20, 1), np.uint8), r'n that of labels.npy, five times the images'),
        ('labels.npy', np.full(20, 10), 'holds other labels than whole numbers 0 to 9'),
        ('labels.npy', np.zeros(20), 'holds other labels than whole numbers 0 to 9'),
        ('fog.npy', np.zeros((20, 32, 32, 3), np.float32), r'fog.npy is float32 \(20, 32, 32, 3\)'),
        ('fog.npy', np.array([{}], object), 'fog.npy is no array that numpy.save wrote'),
        ('fog.npy', b'\x93NUMPY\x01\x00\xff\xff{', 'fog.npy is no array that numpy.save wrote'),
        ('fog.npy', b'', 'fog.npy is no array that numpy.save wrote'),
    ],
)
def test_open_corrupted_refuses_arrays_that_are_no_such(arrays, name, content, words):
    path, _ = arrays
    if isinstance(content, bytes):
        (path / name).write_bytes(content)
    elif content is None:
        (path / name).unlink()
    else:
        np.save(path / name, content, allow_pickle=True)
    with pytest.raises(InputError, match=words):
        open_corrupted(str(path)).open('fog', 1, record_size=32)


def test_open_corrupted_refuses_a_network_of_other_records(arrays):
    path, _ = arrays
    with pytest.raises(InputError, match=r'it must be uint8 \(n, 256, 256, 3\)'):
        open_corrupted(str(path)).open('fog', 1, record_size=256)
