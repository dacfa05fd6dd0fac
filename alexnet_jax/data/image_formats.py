"""Tells by a file's content or extension which images are read, and names the others as what they are."""

import io
import struct

from PIL import Image, PpmImagePlugin, TiffImagePlugin

# By content, not by name. Pillow knows more, and hands some to other programs: an EPS is run by Ghostscript.
FORMATS = ('BMP', 'DIB', 'GIF', 'JPEG', 'PNG', 'PPM', 'TIFF', 'WEBP')
# What files of these formats are called.
_SUFFIXES = 'jpg jpeg jpe jif jfif pjp pjpeg png apng bmp dib gif webp tif tiff ppm pgm pbm pnm'
EXTENSIONS = frozenset(f'.{suffix}' for suffix in _SUFFIXES.split())
DEEP = 'more than 8 bits a channel; convert it to 8'
HEAD = 512  # bytes of a file that its format is known by

_CONVERT = '{}, which is not read here: convert it to JPEG or PNG'
_UNPACK = '{}, not an image: unpack it'
_RAW = "a camera's raw image"
# Where it stands in the file, the bytes, what they are.
_READ = [
    *((0, magic) for magic in (b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n', b'GIF87a', b'GIF89a', b'BM', b'II*\0', b'MM\0*')),
    *((0, b'P%d\n' % number) for number in range(1, 7)),
    (8, b'WEBP'),
]
_OTHERS = [
    *((4, b'ftyp' + brand, 'AVIF') for brand in (b'avif', b'avis')),
    *((4, b'ftyp' + brand, 'HEIC') for brand in (b'hei', b'hev', b'mif', b'msf')),
    (4, b'ftypcrx', _RAW),
    (0, b'\xff\x0a', 'JPEG XL'),
    (4, b'JXL \r\n\x87\n', 'JPEG XL'),
    (4, b'jP  \r\n\x87\n', 'JPEG 2000'),
    (0, b'\xff\x4f\xff\x51', 'JPEG 2000'),
    *((0, magic, 'JPEG XR') for magic in (b'II\xbc\x01', b'II\xbc\x00')),
    (0, b'8BPS', 'Photoshop'),
    (0, b'%PDF', 'PDF'),
    *((0, magic, 'PostScript') for magic in (b'%!PS', b'\xc5\xd0\xd3\xc6')),
    *((0, b'\0\0' + kind + b'\0\0\0\0\0', 'Targa') for kind in (b'\2', b'\3', b'\x0a')),
    *((0, magic, 'an icon') for magic in (b'\0\0\1\0', b'\0\0\2\0', b'icns')),
    (0, b'DDS ', 'DDS'),
    (0, b'\x76\x2f\x31\x01', 'OpenEXR'),
    (0, b'#?R', 'Radiance HDR'),
    (0, b'gimp xcf', 'GIMP'),
    (0, b'SIMPLE  =', 'FITS'),
    (128, b'DICM', 'DICOM'),
    (0, b'qoif', 'QOI'),
    (0, b'P7\n', 'PAM'),
    *((0, magic, 'PCX') for magic in (b'\x0a\x02\x01', b'\x0a\x03\x01', b'\x0a\x05\x01')),
    (0, b'\x01\xda', 'SGI'),
    (0, b'\x59\xa6\x6a\x95', 'Sun raster'),
    *((0, magic, 'MNG or JNG') for magic in (b'\x8aMNG', b'\x8bJNG')),
    *((0, magic, 'a Windows metafile') for magic in (b'\xd7\xcd\xc6\x9a', b'\x01\0\0\0\x58')),
    (0, b'FUJIFILMCCD-RAW', _RAW),
    (0, b'BPG\xfb', 'BPG'),
    (0, b'/* XPM', 'XPM'),
]
_SUFFIXES_OF_OTHERS = {
    _RAW: 'dng cr2 cr3 crw nef nrw arw srf sr2 orf rw2 raf pef srw x3f 3fr raw',
    'HEIC': 'heic heif hif',
    'AVIF': 'avif',
    'JPEG XL': 'jxl',
    'JPEG XR': 'jxr wdp hdp',
    'JPEG 2000': 'jp2 j2k jpf jpx j2c',
    'SVG': 'svg svgz',
    'PDF': 'pdf',
    'PostScript': 'eps ps ai',
    'Photoshop': 'psd psb',
    'GIMP': 'xcf',
    'Targa': 'tga icb vda vst',
    'an icon': 'ico cur',
    'DDS': 'dds',
    'OpenEXR': 'exr',
    'Radiance HDR': 'hdr',
    'DICOM': 'dcm',
    'PCX': 'pcx',
    'SGI': 'sgi',
    'QOI': 'qoi',
    'PAM': 'pam',
    'XPM': 'xpm',
    'XBM': 'xbm',
}
_BY_EXTENSION = {f'.{suffix}': name for name, suffixes in _SUFFIXES_OF_OTHERS.items() for suffix in suffixes.split()}
_ARCHIVES = [(0, b'PK\3\4', 'a zip archive'), (0, b'\x1f\x8b', 'a gzip archive'), (257, b'ustar', 'a tar archive')]


def is_read(head: bytes, extension: str) -> bool:
    """Tells by a file's first HEAD bytes and its extension in lower case whether it is of a format that is read."""
    # A raw image begins like a TIFF, whose first picture is a small preview.
    return _BY_EXTENSION.get(extension) != _RAW and any(head.startswith(magic, at) for at, magic in _READ)


def name_format(head: bytes, extension: str = '') -> str | None:
    """Says what a file is and what to do with it, for one that is not read; None where it is not known."""
    text = head.lstrip(b'\xef\xbb\xbf \t\r\n').lower()
    if text.startswith(b'version https://git-lfs'):
        return 'a Git LFS pointer in place of the file: run `git lfs pull`'
    if text.startswith((b'<svg', b'<?xml', b'<!doctype svg')) and b'<svg' in text:
        return _CONVERT.format('SVG')
    if text.startswith((b'<!doctype html', b'<html')):
        return 'a web page in place of the file: download it again'
    for at, magic, name in _OTHERS:
        if head.startswith(magic, at):
            return _CONVERT.format(name)
    if head.startswith(b'PF\n'):  # the Portable Float Map in colour; Pillow knows the grey one
        return DEEP
    if head[4:8] == b'ftyp' or head[8:12] == b'AVI ' or head.startswith(b'\x1aE\xdf\xa3'):
        return 'a video, not an image: save its frames as images'
    for at, magic, name in _ARCHIVES:
        if head.startswith(magic, at):
            return _UNPACK.format(name)
    return _CONVERT.format(_BY_EXTENSION[extension]) if extension in _BY_EXTENSION else None


def explain_unidentified(data: bytes) -> str:
    """Says why Pillow cannot tell what an image is, `data` being all of its file."""
    if data.startswith(b'\xff\xd8'):
        marker, bits = _read_jpeg_frame(data)
        if bits > 8:
            return DEEP
        if marker == 0xF7:
            return _CONVERT.format('JPEG-LS')
    if data.startswith((b'II', b'MM')) and _read_tiff_bits(data) > 8:
        return DEEP
    return name_format(data[:HEAD]) or 'not an image'


def is_deep(image: Image.Image, data: bytes) -> bool:
    """Tells whether an opened image, `data` being all of its file, has more than eight bits in some channel."""
    if image.mode.startswith(('I', 'F')):
        return True
    # Pillow hides the depth of colour, and would take the upper eight bits.
    if image.format == 'PNG':
        return data[24] > 8  # IHDR
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))) > 8
    if isinstance(image, PpmImagePlugin.PpmImageFile):
        decoder, _, _, arguments = image.tile[0]  # (mode, largest value) where this is not 1 or 255
        return decoder.startswith('ppm') and isinstance(arguments, tuple) and arguments[1] > 255
    return False


def _read_jpeg_frame(data: bytes) -> tuple[int, int]:
    """Reads a JPEG's kind, the second byte of its frame's marker, and its bits a sample; (0, 0) where it has none."""
    at = 2
    while at + 5 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xF7 or (marker in range(0xC0, 0xD0) and marker not in (0xC4, 0xC8, 0xCC)):
            return marker, data[at + 4]
        if marker == 0xDA:  # the picture begins
            break
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], 'big')
    return 0, 0


def _read_tiff_bits(data: bytes) -> int:
    """Reads a TIFF's bits a sample, the most of its channels; 0 where it cannot be read."""
    try:
        file = io.BytesIO(data)
        directory = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
        file.seek(directory.next)
        directory.load(file)
        return max(directory.get(TiffImagePlugin.BITSPERSAMPLE, (0,)))
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):
        return 0
