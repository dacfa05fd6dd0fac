"""What Caffe and torchvision make of a photograph, pixel by pixel from their formulas."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.dataset_manifest import read_dataset_manifest
from alexnet_jax.data.photo import photo_to_jpeg, square_image
from alexnet_jax.data.photo_files import open_photos
from alexnet_jax.data.pipeline import read_whole_image
from alexnet_jax.data.preparing import folder
from alexnet_jax.data.preparing.sources import SourceArgs, make_spec
from alexnet_jax.data.preparing.writer import prepare
from alexnet_jax.errors import InputError


def picture(width, height, seed=0):
    """Noise over a slope: it shows which pixels were read, and of which shape the square was."""
    slope = np.add.outer(np.linspace(0, 90, height), np.linspace(0, 90, width))[..., None] * [1, 0.5, 0.2]
    noise = np.random.default_rng(seed).integers(0, 100, (height, width, 3))
    return (slope + noise).astype(np.uint8)


def encoded(pixels, kind='PNG'):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def warped(pixels, size):
    """OpenCV's INTER_LINEAR: four neighbours of (i + 1/2) * scale - 1/2, held within the image."""
    height, width, _ = pixels.shape
    x, out = pixels.astype(np.float64), np.empty((size, size, 3))
    for i in range(size):
        for j in range(size):
            r, c = (min(max((k + 0.5) * n / size - 0.5, 0), n - 1) for k, n in ((i, height), (j, width)))
            top, left = int(r), int(c)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            above = x[top, left] * (1 - (c - left)) + x[top, right] * (c - left)
            below = x[bottom, left] * (1 - (c - left)) + x[bottom, right] * (c - left)
            out[i, j] = above * (1 - (r - top)) + below * (r - top)
    return out


def resized_rows(x, size):
    """A triangle as wide as two of the smaller grid's pixels over each place, where the picture shrinks."""
    scale, out = len(x) / size, np.empty((size, *x.shape[1:]))
    reach = max(scale, 1)
    for i in range(size):
        centre = (i + 0.5) * scale
        weights = np.maximum(0, 1 - np.abs(np.arange(len(x)) + 0.5 - centre) / reach)
        out[i] = np.tensordot(weights / weights.sum(), x, 1)
    return out


@pytest.mark.parametrize(('width', 'height'), [(70, 40), (40, 55), (21, 30), (32, 32)])
def test_square_image_of_caffe_is_warped(width, height):
    pixels = picture(width, height)
    found = square_image(encoded(pixels), record_size=32, preprocessing='caffe')
    assert found.shape == (32, 32, 3)
    assert np.abs(found - warped(pixels, 32)).max() <= 0.51
    part = square_image(encoded(pixels), top=3, left=5, side=9, record_size=32, preprocessing='caffe')
    np.testing.assert_array_equal(part, found[3:12, 5:14])


@pytest.mark.parametrize(
    ('width', 'height', 'size', 'top', 'left'),
    [  # int(32 * long / short), and round((long - 32) / 2), which goes to the even one
        (50, 37, (43, 32), 0, 6),  # 43.2; 5.5
        (37, 50, (32, 43), 6, 0),
        (41, 32, (41, 32), 0, 4),  # 4.5
        (64, 20, (102, 32), 0, 35),
    ],
)
def test_square_image_of_torchvision_has_whole_pixels(width, height, size, top, left):
    pixels = picture(width, height)
    whole = resized_rows(resized_rows(pixels.astype(np.float64), size[1]).swapaxes(0, 1), size[0]).swapaxes(0, 1)
    found = square_image(encoded(pixels), record_size=32, preprocessing='torchvision')
    assert np.abs(found - whole[top : top + 32, left : left + 32]).max() <= 1.1  # both directions are rounded
    assert np.abs(found - square_image(encoded(pixels), record_size=32).astype(float)).mean() > 1


def test_square_image_of_others_reads_all_pixels_of_a_large_jpeg():
    """Where 'paper' has the decoder leave out what 512 pixels do not need."""
    jpeg = encoded(picture(2100, 1500), 'JPEG')
    whole = np.asarray(Image.open(io.BytesIO(jpeg)))
    found = square_image(jpeg, preprocessing='caffe')
    r, c = ((k + 0.5) * n / 256 - 0.5 for k, n in ((100, 1500), (37, 2100)))
    near = whole[math.floor(r) : math.floor(r) + 2, math.floor(c) : math.floor(c) + 2].astype(float)
    weights = np.outer([1 - r % 1, r % 1], [1 - c % 1, c % 1])
    assert np.abs(found[100, 37] - np.tensordot(weights, near, 2)).max() <= 1.6  # the decoders differ by as much


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp('images')
    for split in ('train', 'validation'):
        for label, name in enumerate(('cat', 'dog')):
            (root / split / name).mkdir(parents=True)
            for index in range(2):
                content = encoded(picture(50, 37, seed=10 * label + index))
                (root / split / name / f'{index}.png').write_bytes(content)
    return root


def test_prepare_makes_records_as_it_is_told_and_says_so(images, tmp_path):
    spec = make_spec(SourceArgs(images=str(images), name='small', size=32, preprocessing='caffe'))
    prepare(spec, data_dir=tmp_path, workers=1)
    dataset = open_dataset('small', data_dir=tmp_path)
    assert dataset.preprocessing == 'caffe'
    paths = (images / 'train').rglob('*.png')
    expected = {photo_to_jpeg(path.read_bytes(), record_size=32, preprocessing='caffe') for path in paths}
    assert {jpeg for jpeg, _ in dataset.records('train')} == expected
    with pytest.raises(InputError, match=r'made by --preprocessing=caffe: .* with --preprocessing=paper'):
        dataset.records('validation', preprocessing='paper')
    with pytest.raises(InputError, match='demo is drawn as squares: leave --preprocessing out'):
        make_spec(SourceArgs(dataset='demo', preprocessing='caffe'))


def test_prepare_says_nothing_of_its_own_way(images, tmp_path):
    """So that datasets are the same files as before."""
    prepare(folder.make_folder_spec(images, name='small', record_size=32), data_dir=tmp_path, workers=1)
    dataset = open_dataset('small', data_dir=tmp_path)
    assert dataset.preprocessing == 'paper'
    assert 'preprocessing' not in read_dataset_manifest(dataset.directory, remedy='')


def test_get_crop_decoder_makes_a_photograph_s_square_by_its_source(images):
    paths = sorted((images / 'train').rglob('*.png'))
    photos = open_photos(list(map(str, paths)), ('cat', 'dog'), preprocessing='torchvision')
    found = read_whole_image(photos.records, 1, record_size=32)
    expected = square_image(paths[1].read_bytes(), record_size=32, preprocessing='torchvision')
    np.testing.assert_array_equal(found, expected)
