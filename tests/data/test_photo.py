"""Any photograph becomes the same 256 x 256 RGB that Pillow, or arithmetic by hand, says it should."""

import concurrent.futures
import io

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data import photo
from alexnet_jax.data.preparing.folder import file_to_record


def scene(seed=0, size=(400, 300)):
    """Detail down to three pixels, as in a sharp photograph."""
    rng = np.random.default_rng(seed)
    fine = rng.integers(0, 256, (size[1] // 3, size[0] // 3, 3), np.uint8)
    return Image.fromarray(fine).resize(size, Image.Resampling.BICUBIC)


def encoded(image, file_format='JPEG', **options):
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def pillow_square(image):
    """The conversion by Pillow alone, on the central square."""
    square = min(image.size)
    left, top = (image.width - square) / 2, (image.height - square) / 2
    box = (left, top, left + square, top + square)
    return np.asarray(image.resize((256, 256), Image.Resampling.BICUBIC, box=box), np.int16)


SIZES = [(500, 375), (253, 400), (256, 256), (100, 80)]
MORE_SIZES = [pytest.param(size, marks=pytest.mark.repeats) for size in [(375, 500), (403, 301), (1000, 750)]]


def make_filter(length, image, record_size):
    """The weights of a line's pixels in each of the `record_size` pixels that its middle square becomes, float64.

    Keys' cubic convolution with a = -0.5, stretched by the scale where that is over 1, cut off at the picture's end and
    brought to a sum of 1.
    """
    square = min(image.size)
    scale = square / record_size
    centre = (length - square) / 2 + (np.arange(record_size) + 0.5) * scale
    x = np.abs(np.arange(length) + 0.5 - centre[:, None]) / max(scale, 1)
    inner, outer = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x < 1, inner, np.where(x < 2, outer, 0))
    return weights / weights.sum(axis=1, keepdims=True)


def numpy_square(image, record_size):
    """The conversion by the filter's formula: rows, rounded to 8 bits, then columns, rounded again."""
    pixels = np.asarray(image, np.float64)
    rows = np.clip(np.rint(np.einsum('xw,hwc->hxc', make_filter(image.width, image, record_size), pixels)), 0, 255)
    return np.clip(np.rint(np.einsum('yh,hxc->yxc', make_filter(image.height, image, record_size), rows)), 0, 255)


def integer_square(image, record_size):
    """The same in the whole numbers of Pillow's Resample.c: weights of 22 bits, half a level added, cut off."""
    across, down = (
        np.rint(make_filter(length, image, record_size) * 2**22).astype(np.int64)
        for length in (image.width, image.height)
    )
    rows = np.einsum('xw,hwc->hxc', across, np.asarray(image, np.int64)) + 2**21 >> 22
    return np.clip(np.einsum('yh,hxc->yxc', down, np.clip(rows, 0, 255)) + 2**21 >> 22, 0, 255)


@pytest.mark.parametrize('record_size', [256, 100, 32])
@pytest.mark.parametrize('size', [*SIZES, *MORE_SIZES])
def test_square_image_equals_the_filter_of_the_textbook(size, record_size):
    """Also of 253x400, whose columns Pillow 13 would take first in one call: it has more rows there than are wanted."""
    image = scene(size=size)
    square = photo.square_image(encoded(image, 'PNG'), record_size=record_size)
    difference = np.abs(square - numpy_square(image, record_size))
    assert difference.max() <= 1  # a sum in the middle between two levels is rounded up here, and to even there
    assert difference.mean() < 0.02
    np.testing.assert_array_equal(square, integer_square(image, record_size))


def test_square_image_gives_the_same_bytes_in_threads():
    images = [encoded(scene(seed, size), 'PNG') for seed, size in enumerate([(300, 200), (200, 700), (90, 80)] * 4)]
    alone = [photo.square_image(data) for data in images]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for square, expected in zip(pool.map(photo.square_image, images * 4), alone * 4, strict=True):
            np.testing.assert_array_equal(square, expected)


CROPS = [(0, 0, 224), (32, 32, 224), (5, 17, 224), (255, 0, 1), (100, 201, 55)]


@pytest.mark.parametrize(
    'record_size', [256, 100]
)  # 100 is no power of two: Pillow's float32 would not hold each place
@pytest.mark.parametrize(
    'size',
    [
        (500, 375),
        (375, 501),
        (253, 400),
        (3000, 300),
        (300, 3000),
        (256, 256),
        (257, 256),
        (90, 80),
        (33, 47),
        (1311, 977),
    ],
)
def test_square_image_crop_equals_part_of_the_square(size, record_size):
    """Byte for byte, at every phase: both directions, reduced and enlarged, whole and half pixels beside the square."""
    data = encoded(scene(size=size), 'PNG')
    whole = photo.square_image(data, record_size=record_size)
    for crop in CROPS:
        top, left, side = (number * record_size // 256 or 1 for number in crop)
        window = photo.square_image(data, top=top, left=left, side=side, record_size=record_size)
        np.testing.assert_array_equal(window, whole[top : top + side, left : left + side])


@pytest.mark.parametrize('orientation', range(2, 9))
def test_square_image_undoes_every_exif_orientation(orientation):
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # to be shown after a quarter turn clockwise: stored turned the other way
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = scene()
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = encoded(upright.transpose(turns[orientation]), quality=95, subsampling=0, exif=exif.tobytes())
    assert np.abs(photo.square_image(stored) - pillow_square(upright)).mean() < 3


INKS = (10, 100, 200, 50)  # c, m, y, k, each of 255


def test_square_image_converts_cmyk_by_the_formula():
    jpeg = encoded(Image.new('CMYK', (64, 64), INKS), quality=100)
    # r = (255 - c) * (255 - k) / 255: 245 * 205 / 255, 155 * 205 / 255, 55 * 205 / 255
    np.testing.assert_allclose(photo.square_image(jpeg).mean(axis=(0, 1)), [197.0, 124.6, 44.2], atol=1.5)


def test_square_image_converts_ycck_by_the_formula():
    jpeg = bytearray(encoded(Image.new('CMYK', (64, 64), INKS), quality=100))
    jpeg[jpeg.index(b'Adobe') + 11] = 2  # the same four stored numbers, now to be read as luma, two chroma and black
    y, cb, cr, k = (255 - ink for ink in INKS)  # Adobe stores what is left of white: 245, 155, 55, 205
    inks = [y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128)]
    expected = [(255 - min(max(ink, 0), 255)) * k / 255 for ink in inks]
    np.testing.assert_allclose(photo.square_image(bytes(jpeg)).mean(axis=(0, 1)), expected, atol=1.5)


def test_square_image_forgives_stray_bytes_and_refuses_lost_ones():
    """Pillow's judgement, though simplejpeg would refuse both: ImageNet has some of the first kind."""
    jpeg = encoded(scene(), quality=95, subsampling=0)
    scan = jpeg.index(b'\xff\xda')
    stray = jpeg[:scan] + b'\x00' * 5 + jpeg[scan:]
    assert np.array_equal(photo.square_image(stray), photo.square_image(jpeg))
    with pytest.raises(photo.UnusableImage, match='truncated'):
        photo.square_image(jpeg[: len(jpeg) // 2])


def test_photo_to_jpeg_encodes_with_the_given_quality():
    data = encoded(scene(), 'PNG')
    square = photo.square_image(data).astype(np.int16)
    records = [Image.open(io.BytesIO(photo.photo_to_jpeg(data, quality))) for quality in (60, 95)]
    errors = [np.abs(np.asarray(record) - square).mean() for record in records]
    assert errors[1] < 3 < errors[0]


def test_file_to_record_reads_png_named_jpeg(tmp_path):
    path = tmp_path / 'n02105855_2933.JPEG'  # ImageNet has one
    path.write_bytes(encoded(scene(), 'PNG'))
    record = np.asarray(Image.open(io.BytesIO(file_to_record(str(path), 95))), np.int16)
    assert np.abs(record - pillow_square(scene())).mean() < 3
