"""Any photograph becomes the same 256 x 256 RGB that Pillow, or arithmetic by hand, says it should."""

import io

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data import photo
from alexnet_jax.data.preparing.folder import file_to_jpeg


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


SIZES = [(500, 375), (256, 256), (100, 80)]
MORE_SIZES = [pytest.param(size, marks=pytest.mark.repeats) for size in [(375, 500), (403, 301), (2000, 1500)]]


@pytest.mark.parametrize('size', [*SIZES, *MORE_SIZES])
def test_square_image_equals_pillow_bicubic(size):
    image = scene(size=size)
    difference = np.abs(photo.square_image(encoded(image, 'PNG')) - pillow_square(image))
    assert difference.max() <= 8  # both round to 8 bits between the two directions, in another order
    assert difference.mean() < 0.5


def test_square_image_antialiases():
    """Stripes of one pixel, 8 to each pixel of the result: what aliases shows stripes, what averages shows grey."""
    stripes = np.zeros((2048, 2048, 3), np.uint8)
    stripes[:, ::2] = 255
    for data in (encoded(Image.fromarray(stripes), 'PNG'), encoded(Image.fromarray(stripes), quality=95)):
        assert np.ptp(photo.square_image(data)[:, 2:-2]) <= 2  # at the border half of the filter is missing


def test_square_image_decodes_jpeg_as_pillow_does():
    """4:4:4 leaves no choice; grey and colour."""
    for mode in ('RGB', 'L'):
        jpeg = encoded(scene().convert(mode), quality=95, subsampling=0)
        expected = pillow_square(Image.open(io.BytesIO(jpeg)).convert('RGB'))
        assert np.abs(photo.square_image(jpeg) - expected).mean() < 0.6, mode


def test_square_image_crop_equals_part_of_the_square():
    data = encoded(scene(size=(500, 375)))
    whole = photo.square_image(data).astype(np.int16)
    for top, left in [(0, 0), (32, 32), (5, 17)]:
        window = photo.square_image(data, top=top, left=left, side=224)
        assert window.shape == (224, 224, 3)
        difference = np.abs(window - whole[top : top + 224, left : left + 224])
        assert difference.max() <= 1, (top, left)
        assert difference.mean() < 0.05, (top, left)


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


def test_file_to_jpeg_reads_png_named_jpeg(tmp_path):
    path = tmp_path / 'n02105855_2933.JPEG'  # ImageNet has one
    path.write_bytes(encoded(scene(), 'PNG'))
    record = np.asarray(Image.open(io.BytesIO(file_to_jpeg(str(path), 95))), np.int16)
    assert np.abs(record - pillow_square(scene())).mean() < 3
