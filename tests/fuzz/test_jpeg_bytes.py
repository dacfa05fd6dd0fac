"""Damaged images end as a full window or as one line that says so: no other error, no hang, no memory that grows."""

import io
import resource
import struct
import time

import hypothesis
import numpy as np
import pytest
import simplejpeg
from fuzzing import fuzzed, outcome
from hypothesis import strategies as st
from PIL import Image

from alexnet_jax.data.decode import decode_record_crop
from alexnet_jax.data.photo import UnusableImage, decode_photo_crop, photo_to_jpeg, square_image
from alexnet_jax.data.preparing.dataset_spec import DatasetSpec, Example, ListedSplit
from alexnet_jax.data.preparing.workers import convert_examples
from alexnet_jax.errors import InputError

pytestmark = pytest.mark.filterwarnings('ignore::UserWarning:PIL')  # of what it repairs
SECONDS = 2  # of CPU time, for one image
MEGABYTES = 1500  # by which the process may grow: what 89 million pixels take at the worst


def encoded(mode, size, file_format='JPEG', **options):
    coarse = np.random.default_rng(size).integers(0, 256, (5, 7, 3), np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


RECORDS = [
    encoded('RGB', (256, 256), quality=95, subsampling=0),
    encoded('RGB', (256, 256), subsampling=2),
    encoded('RGB', (256, 256), progressive=True, restart_marker_blocks=4),
    encoded('L', (256, 256)),
    encoded('CMYK', (256, 256)),
]
PHOTOS = [
    encoded('RGB', (120, 90)),
    encoded('RGB', (1300, 700), quality=30),
    encoded('RGB', (90, 120), exif=turned(6), comment=b'a note'),
    encoded('RGB', (120, 90), progressive=True),
    encoded('CMYK', (64, 80)),
    encoded('RGBA', (60, 40), 'PNG'),
    encoded('P', (60, 40), 'PNG', transparency=3),
    encoded('P', (60, 40), 'GIF'),
    encoded('RGB', (60, 40), 'WEBP'),
    encoded('RGB', (60, 40), 'TIFF', compression='tiff_lzw'),
    encoded('RGB', (60, 40), 'TIFF', compression='jpeg'),
    encoded('RGB', (60, 40), 'BMP'),
    encoded('RGB', (60, 40), 'PPM'),
]
PLACE = st.floats(0, 1) | st.floats(0, 0.05)  # in the file; more often in its headers
BYTES = st.binary(min_size=1, max_size=8)
SIDE = st.sampled_from([0, 1, 255, 256, 257, 9000, 65535]) | st.integers(0, 65535)
DAMAGE = st.one_of(
    st.tuples(st.just('flip'), PLACE, st.integers(0, 7)),
    st.tuples(st.just('set'), PLACE, BYTES),
    st.tuples(st.just('insert'), PLACE, BYTES),
    st.tuples(st.just('delete'), PLACE, st.integers(1, 300)),
    st.tuples(st.just('truncate'), PLACE, st.none()),
    st.tuples(st.just('swap'), PLACE, PLACE),
    st.tuples(st.just('repeat'), PLACE, st.integers(1, 300)),
    st.tuples(st.just('size'), SIDE, SIDE),
)


def sized(data, width, height):
    """A JPEG whose header claims another size."""
    data = bytearray(data)
    frame = max(data.find(b'\xff\xc0'), data.find(b'\xff\xc2'))
    if data.startswith(b'\xff\xd8') and 0 <= frame < len(data) - 9:
        data[frame + 5 : frame + 9] = struct.pack('>HH', height, width)
    return bytes(data)


def damaged(data, how):
    kind, first, second = how
    if kind == 'size':
        return sized(data, first, second)
    at = int(first * max(len(data) - 1, 0))
    changed = bytearray(data)
    if kind == 'truncate' or not data:
        return data[:at]
    if kind == 'flip':
        changed[at] ^= 1 << second
    elif kind == 'set':
        changed[at : at + len(second)] = second
    elif kind == 'insert':
        changed[at:at] = second
    elif kind == 'delete':
        del changed[at : at + second]
    elif kind == 'repeat':
        changed[at:at] = changed[at : at + second]
    elif kind == 'swap':
        other = int(second * (len(data) - 1))
        changed[at], changed[other] = changed[other], changed[at]
    return bytes(changed)


def images(sources):
    """Bytes of sources, damaged a few times; or any bytes, also behind the start of a JPEG."""

    def after(source, damages):
        for how in damages:
            source = damaged(source, how)
        return source

    wild = st.binary(max_size=400).flatmap(lambda data: st.sampled_from([data, b'\xff\xd8\xff' + data]))
    some = st.builds(after, st.sampled_from(sources), st.lists(DAMAGE, min_size=1, max_size=4))
    return st.one_of(some, some, some, wild)


def thrifty(run, images=1):
    """Runs it, and sees that it took neither long nor much memory for so many images."""
    memory, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        return run()
    finally:
        assert time.process_time() - started < SECONDS * images
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1e3 < MEGABYTES


def filled(window, data):
    """The window, of which every byte was written."""
    found = []
    for before in (0, 255):
        out = np.full((3, 224, 224, 3), before, np.uint8)
        thrifty(lambda here=out[1]: window(data, here, top=5, left=17))
        assert (out[::2] == before).all()  # its neighbours in the batch
        found.append(out[1])
    np.testing.assert_array_equal(*found)
    return found[0]


@fuzzed(150)
@hypothesis.given(data=images(RECORDS))
def test_decode_record_crop_of_damaged_jpeg_fills_or_raises_one_line(data):
    found = outcome('records', lambda: filled(decode_record_crop, data), InputError)
    if isinstance(found, np.ndarray):
        assert simplejpeg.decode_jpeg_header(data)[:2] == Image.open(io.BytesIO(data)).size == (256, 256)


@fuzzed(50)
@hypothesis.given(st.sampled_from(RECORDS), SIDE, SIDE)
def test_decode_record_crop_refuses_header_of_another_size(record, width, height):
    hypothesis.assume((width, height) != (256, 256))
    with pytest.raises(InputError, match=r'^a record is not a readable JPEG of 256x256 \(.*prepare it again$'):
        filled(decode_record_crop, sized(record, width, height))


@fuzzed(200)
@hypothesis.given(data=images(PHOTOS))
def test_decode_photo_crop_of_damaged_image_fills_or_raises_one_line(data):
    outcome('photographs', lambda: filled(decode_photo_crop, data), InputError)


GOOD = photo_to_jpeg(PHOTOS[0])


@fuzzed(60)
@hypothesis.given(data=images(PHOTOS), kept=st.booleans())
def test_convert_examples_names_damaged_and_converts_others(data, kept):
    """Both ways of `prepare`: into records, and of originals that stay where they are."""
    examples = [Example(str(place), 0, source) for place, source in enumerate([PHOTOS[0], data, PHOTOS[0]])]
    ways = {'to_record': bytes, 'decode': square_image, 'originals': object()} if kept else {'to_record': photo_to_jpeg}
    spec = DatasetSpec(
        name='birds', classes=('a',), splits={'train': ListedSplit('train', examples)}, recipe='', **ways
    )
    ((_, (results, _, statistics)),) = thrifty(
        lambda: list(convert_examples(spec, iter(examples), count=len(examples), with_statistics=True, workers=1)),
        images=len(examples),
    )

    def middle():
        if isinstance(results[1], str):
            raise UnusableImage(results[1])
        return results[1]

    found = outcome('prepare', middle, UnusableImage)
    assert results[0] == results[2] == (b'' if kept else GOOD)
    assert statistics.image_count == (2 if isinstance(found, UnusableImage) else 3)
    if not kept and isinstance(found, bytes):
        assert simplejpeg.decode_jpeg(found).shape == (256, 256, 3)
