"""What is read is read whatever it is called; what is not is named as what it is."""

import io
import struct

import numpy as np
import pytest
from archives import photograph
from PIL import Image

from alexnet_jax.data.image_formats import is_read, name_format
from alexnet_jax.data.photo import UnusableImage, square_image

DEEP = '^more than 8 bits a channel; convert it to 8$'


def encoded(file_format, image=None):
    out = io.BytesIO()
    (image or Image.new('RGB', (40, 40), (9, 200, 3))).save(out, file_format)
    return out.getvalue()


def jpeg(*, bits, marker=0xC0):
    """A JPEG whose frame claims so many bits a sample (ITU-T T.81, B.2.2: the byte behind the frame's length)."""
    data = bytearray(photograph(0))
    frame = data.index(b'\xff\xc0')
    data[frame + 1], data[frame + 4] = marker, bits
    return bytes(data)


def tiff(bits, *, photometric=2, sample_format=1, planes=1):
    """A plain TIFF of 20 x 20 pixels; the bits of each channel are one more list behind the directory (TIFF 6.0)."""
    count, size = len(bits), 400 * sum(bits) // 8
    directory = 8 + 2 + 12 * 10 + 4
    entries = [(256, 4, 1, 20), (257, 4, 1, 20), (258, 3, count, directory), (259, 3, 1, 1), (262, 3, 1, photometric)]
    entries += [(273, 4, 1, directory + 2 * count), (277, 3, 1, count), (278, 4, 1, 20), (279, 4, 1, size)]
    entries += [(284, 3, 1, planes)]
    head = b'II*\0' + struct.pack('<IH', 8, len(entries)) + b''.join(struct.pack('<HHII', *entry) for entry in entries)
    return head + bytes(4) + struct.pack(f'<{count}H', *bits) + bytes(size)


def pnm(kind, largest):
    samples = 400 * (3 if kind in (3, 6) else 1)
    body = b'7 ' * samples if kind < 4 else bytes(samples * (1 + (largest > 255)))
    return b'P%d\n# made by hand\n20 20\n%d\n' % (kind, largest) + body


@pytest.mark.parametrize(
    'data',
    [
        *(jpeg(bits=bits, marker=marker) for bits, marker in ((12, 0xC1), (12, 0xC2), (16, 0xC3))),
        *(tiff(bits) for bits in ((16, 16, 16), (16, 16, 16, 16), (12, 12, 12), (32, 32, 32))),
        tiff((16, 16), photometric=1),
        *(pnm(kind, largest) for kind in (2, 3, 5, 6) for largest in (256, 1023, 65535)),
        b'PF\n20 20\n-1.0\n' + bytes(4800),
    ],
)
def test_square_image_refuses_more_than_eight_bits(data):
    with pytest.raises(UnusableImage, match=DEEP):
        square_image(data)


SHALLOW = [tiff((8, 8, 8)), *(pnm(kind, largest) for kind in (2, 3, 5, 6) for largest in (7, 255))]


@pytest.mark.parametrize('data', SHALLOW)
def test_square_image_reads_at_most_eight_bits(data):
    # The TIFF is black; a 7 is white where it is the largest value.
    level = 0 if data.startswith(b'II') or data[1:2] in b'56' else (255 if b'\n7\n' in data else 7)
    assert np.all(square_image(data) == level)


READ = ['JPEG', 'PNG', 'BMP', 'DIB', 'GIF', 'WEBP', 'TIFF', 'PPM']


@pytest.mark.parametrize('file_format', READ)
def test_formats_that_are_read_are_known_by_their_content(file_format):
    data = encoded(file_format)
    assert np.abs(square_image(data).mean(axis=(0, 1)) - (9, 200, 3)).max() < 4
    assert is_read(data, '') or file_format == 'DIB'  # a DIB begins with a number


OTHERS = {
    'AVIF': lambda: encoded('AVIF'),
    'JPEG 2000': lambda: encoded('JPEG2000'),
    'an icon': lambda: encoded('ICO'),
    'Targa': lambda: encoded('TGA'),
    'PCX': lambda: encoded('PCX'),
    'SGI': lambda: encoded('SGI'),
    'DDS': lambda: encoded('DDS'),
    'PDF': lambda: encoded('PDF'),
    'PostScript': lambda: encoded('EPS'),
    'HEIC': lambda: b'\0\0\0\x18ftypheic\0\0\0\0mif1heic',
    'JPEG XL': lambda: b'\xff\x0a\xfa\x1f',
    'JPEG-LS': lambda: jpeg(bits=8, marker=0xF7),
    'SVG': lambda: b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    'Photoshop': lambda: b'8BPS\0\1',
    'DICOM': lambda: bytes(128) + b'DICM',
}


@pytest.mark.parametrize('name', OTHERS)
def test_square_image_names_a_format_that_is_not_read(name):
    """An EPS among them, which Pillow would have Ghostscript run."""
    with pytest.raises(UnusableImage, match=f'^{name}, which is not read here: convert it to JPEG or PNG$'):
        square_image(OTHERS[name]())


@pytest.mark.parametrize(
    ('data', 'reason'),
    [
        (b'<!DOCTYPE html>\n<html>', 'a web page in place of the file: download it again'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n', 'run `git lfs pull`'),
        (b'PK\3\4' + bytes(40), 'a zip archive, not an image: unpack it'),
        (b'\0\0\0\x18ftypmp42' + bytes(40), 'a video, not an image'),
        (b'some words', '^not an image$'),
    ],
)
def test_square_image_says_what_is_there_in_place_of_an_image(data, reason):
    with pytest.raises(UnusableImage, match=reason):
        square_image(data)


def test_name_format_takes_raw_images_by_their_extension():
    head = encoded('TIFF')[:512]  # as a DNG begins: Pillow would read its preview
    assert not is_read(head, '.dng')
    assert name_format(head, '.dng') == "a camera's raw image, which is not read here: convert it to JPEG or PNG"
    assert name_format(b'some words', '.txt') is None
