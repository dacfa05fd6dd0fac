"""What others may have made on purpose is refused before it costs memory, runs, or leads out of its folder."""

import concurrent.futures
import io
import os
import pickle
import shutil
import struct
import sys
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from archives import SYNSETS, TRAIN, photograph, resum, tar, write_archives
from PIL import Image, ImageFile

from alexnet_jax.data import photo
from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.dataset_manifest import write_dataset_manifest
from alexnet_jax.data.photo import decode_photo_crop, square_image
from alexnet_jax.data.preparing import folder as folder_source
from alexnet_jax.data.preparing import imagenet
from alexnet_jax.data.preparing.writer import prepare
from alexnet_jax.errors import InputError

# Images whose headers claim what they do not hold


def png(width, height):
    chunks = [
        (b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)),
        (b'IDAT', zlib.compress(bytes(1000))),
        (b'IEND', b''),
    ]
    parts = (struct.pack('>I', len(d)) + t + d + struct.pack('>I', zlib.crc32(t + d)) for t, d in chunks)
    return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


def jpeg(width, height):
    data = bytearray(photograph(0))
    frame = data.index(b'\xff\xc0')
    data[frame + 5 : frame + 9] = struct.pack('>HH', height, width)
    return bytes(data)


def gif(width, height):
    data = bytearray(photograph(0, mode='P', file_format='GIF'))
    data[6:10] = struct.pack('<HH', width, height)
    return bytes(data)


def bmp(width, height):
    data = bytearray(photograph(0, file_format='BMP'))
    data[18:26] = struct.pack('<ii', width, height)
    return bytes(data)


def ppm(width, height):
    return b'P6 %d %d 255\n' % (width, height)


BOMBS = {
    'png': png(60_000, 60_000),
    'the largest png': png(2**31 - 1, 2**31 - 1),
    'a png just too large': png(9460, 9459),  # 89,482,140 pixels
    'jpeg': jpeg(60_000, 60_000),
    'a jpeg just too large': jpeg(9460, 9459),
    'gif': gif(60_000, 60_000),
    'bmp': bmp(60_000, 60_000),
    'ppm': ppm(60_000, 60_000),
}
TOO_LARGE = 'more than 89,478,485 pixels; make it smaller'


@pytest.fixture
def no_decoding(monkeypatch):
    """Lets no image of more than the photographs' 120x100 pixels be decoded."""
    load, decode = ImageFile.ImageFile.load, photo.simplejpeg.decode_jpeg

    def checked_load(image):
        assert image.size == (120, 100)
        return load(image)

    def checked_decode(data, *rest, **options):
        assert photo.simplejpeg.decode_jpeg_header(data)[:2] == (100, 120)
        return decode(data, *rest, **options)

    monkeypatch.setattr(ImageFile.ImageFile, 'load', checked_load)
    monkeypatch.setattr(photo.simplejpeg, 'decode_jpeg', checked_decode)


def write_folder(root):
    for place in ('train/cat', 'train/dog', 'validation/cat', 'validation/dog'):
        (root / place).mkdir(parents=True)
        (root / place / 'a.jpg').write_bytes(photograph(len(place)))
    return root


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / 'images')


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    """A data_dir with the dataset 'pets', to be copied before it is changed."""
    root = tmp_path_factory.mktemp('prepared')
    spec = folder_source.make_folder_spec(write_folder(root / 'images'), name='pets')
    prepare(spec, data_dir=root / 'data', workers=1)
    return root / 'data'


@pytest.mark.parametrize('kind', BOMBS)
def test_decode_photo_crop_refuses_absurd_size_without_decoding(kind, no_decoding):
    with pytest.raises(InputError, match=rf'^an image cannot be used \({TOO_LARGE}\): repair or remove it, or prepare'):
        decode_photo_crop(BOMBS[kind], np.empty((224, 224, 3), np.uint8))


def test_square_image_decodes_the_largest_allowed_image():
    with pytest.raises(photo.UnusableImage, match='truncated'):
        square_image(png(9459, 9459))  # 89,472,681 pixels, of which there are a few


@pytest.mark.filterwarnings('ignore:Image size')
def test_square_image_refuses_absurd_size_in_many_threads():
    """Python's filters of warnings, by which Pillow tells of them, are one for all threads."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            found = [pool.submit(square_image, BOMBS['a png just too large']) for _ in range(2000)]
    finally:
        sys.setswitchinterval(interval)
    assert {str(future.exception()) for future in found} == {TOO_LARGE}


@pytest.mark.parametrize('kind', ['jpeg', *(pytest.param(k, marks=pytest.mark.repeats) for k in BOMBS if k != 'jpeg')])
def test_prepare_of_folder_names_or_skips_oversized_image(kind, no_decoding, folder, tmp_path):
    (folder / 'train/cat/bomb.png').write_bytes(BOMBS[kind])
    spec = folder_source.make_folder_spec(folder, name='pets')
    with pytest.raises(InputError, match=rf'1 unusable files \(train/cat/bomb.png: {TOO_LARGE}\); repair or remove'):
        prepare(spec, data_dir=tmp_path / 'data', workers=1)
    assert prepare(spec, data_dir=tmp_path / 'data', workers=1, skip_unusable=True).skipped == (
        f'train/cat/bomb.png: {TOO_LARGE}',
    )


@pytest.mark.parametrize('kind', ['png', pytest.param('jpeg', marks=pytest.mark.repeats)])
def test_prepare_of_archives_names_or_skips_oversized_image(kind, no_decoding, tmp_path):
    train = {SYNSETS[3]: {f'{SYNSETS[3]}_1.JPEG': photograph(1), f'{SYNSETS[3]}_2.JPEG': BOMBS[kind]}}
    spec = imagenet.make_imagenet_spec(write_archives(tmp_path / 'tars', train=train, validation=[photograph(2)]))
    with pytest.raises(InputError, match=rf'\(train/{SYNSETS[3]}_2.JPEG: {TOO_LARGE}\); repair or remove'):
        prepare(spec, data_dir=tmp_path / 'data', workers=1)
    assert prepare(spec, data_dir=tmp_path / 'data', workers=1, skip_unusable=True).splits['train'] == 1


@pytest.mark.parametrize('source', ['folder', 'archive'])
def test_check_file_size_refuses_file_that_fills_memory(source, tmp_path):
    path = tmp_path / 'large.jpg'
    with path.open('wb') as file:
        file.truncate(2**29 + 1)  # holes: no disk is taken
    read = {
        'folder': lambda: folder_source.file_to_jpeg(str(path), 95),
        'archive': lambda: imagenet.range_to_jpeg(imagenet.FileRange(str(path), 0, 2**29 + 1), 95),
    }
    with pytest.raises(photo.UnusableImage, match=r'^a file of 536,870,913 bytes; at most 536,870,912 are read$'):
        read[source]()


def test_square_image_does_not_run_postscript():
    """Pillow would have Ghostscript run it."""
    out = io.BytesIO()
    Image.new('RGB', (64, 64)).save(out, 'EPS')
    with pytest.raises(photo.UnusableImage, match='PostScript, which is not read here'):
        square_image(out.getvalue())


# Archives whose members are named after files elsewhere


@pytest.fixture
def opened():
    """Paths that Python opens while the test runs."""
    paths, on = [], [True]

    def audit(event, arguments):
        if on and event == 'open' and isinstance(arguments[0], str | bytes):
            paths.append(os.fsdecode(arguments[0]))

    sys.addaudithook(audit)  # for ever: Python cannot take it away
    yield paths
    on.clear()


def linked(name, target, kind):
    """Bytes of a tar whose only member is a link."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w') as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        archive.addfile(member)
    return out.getvalue()


@pytest.mark.parametrize('name', ['../../evil', '/etc/evil', f'../{SYNSETS[0]}.tar', f'/etc/{SYNSETS[0]}.tar'])
def test_imagenet_spec_refuses_class_named_as_a_path(name, tmp_path):
    write_archives(tmp_path, train={SYNSETS[0]: {'a.JPEG': photograph(0)}}, validation=[photograph(1)])
    (tmp_path / TRAIN).write_bytes(tar({name: tar({'a.JPEG': photograph(0)})}))
    with pytest.raises(InputError, match=f"holds '{name}', which is not an archive of one of the 1,000 classes"):
        imagenet.make_imagenet_spec(tmp_path)


SIZES = {'of less than no bytes': 2**96 - 512, 'endless': 2**80, 'larger than any file': 2**62}  # of 12 bytes, signed


@pytest.mark.parametrize('kind', [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
@pytest.mark.parametrize('size', SIZES)
def test_imagenet_spec_refuses_member_of_absurd_size(size, kind, tmp_path):
    """A negative one too, which not every Python refuses by itself."""
    write_archives(tmp_path, train={SYNSETS[0]: {'a.JPEG': photograph(0)}}, validation=[photograph(1)])
    data = bytearray((tmp_path / TRAIN).read_bytes())
    data[124:136] = SIZES[size].to_bytes(12, 'big')
    data[124] = 0xFF if SIZES[size] > 2**95 else 0x80  # how tar marks a binary number
    data[156:157] = kind
    resum(data, 0)
    (tmp_path / TRAIN).write_bytes(data)
    with pytest.raises(InputError, match=rf'{TRAIN}.* is not a whole tar archive \(.+\); download it again') as error:
        imagenet.make_imagenet_spec(tmp_path)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('kind', [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_imagenet_spec_does_not_follow_links(kind, tmp_path, opened):
    (tmp_path / 'elsewhere.tar').write_bytes(tar({'secret.JPEG': photograph(0)}))
    write_archives(tmp_path / 'tars', train={}, validation=[photograph(1)])
    (tmp_path / 'tars' / TRAIN).write_bytes(linked(f'{SYNSETS[0]}.tar', str(tmp_path / 'elsewhere.tar'), kind))
    opened.clear()
    with pytest.raises(InputError, match='holds nothing, not an archive'):
        imagenet.make_imagenet_spec(tmp_path / 'tars')
    assert any(path.endswith(TRAIN) for path in opened)  # so the fixture sees what is opened
    assert not any('elsewhere' in path for path in opened)


def test_prepare_reads_members_named_as_paths_from_the_archive(tmp_path, opened):
    secret, evil = tmp_path / 'secret.JPEG', tmp_path / 'evil.JPEG'
    secret.write_bytes(photograph(99))
    names = {'../../evil.JPEG': photograph(1), '/etc/evil.JPEG': photograph(2), str(evil): photograph(3)}
    links = {
        SYNSETS[1]: linked('link.JPEG', str(secret), tarfile.SYMTYPE),
        SYNSETS[2]: linked('link.JPEG', '../../secret.JPEG', tarfile.LNKTYPE),
    }
    tars = write_archives(tmp_path / 'tars', train={}, validation=[photograph(4)])
    classes = {SYNSETS[0]: tar(names), **links}
    (tars / TRAIN).write_bytes(tar({f'{name}.tar': content for name, content in classes.items()}))

    opened.clear()
    made = prepare(imagenet.make_imagenet_spec(tars), data_dir=tmp_path / 'data', workers=1)
    assert made.splits == {'train': 3, 'validation': 1}
    records = open_dataset('imagenet2012', data_dir=tmp_path / 'data').records('train')
    assert [records[i] for i in range(3)] == [(photo.photo_to_jpeg(image), 0) for image in names.values()]
    assert any(path.endswith(TRAIN) for path in opened)
    assert not any('evil' in path or 'secret' in path for path in opened)
    assert sorted(os.listdir(tmp_path)) == ['data', 'secret.JPEG', 'tars']
    assert not os.path.exists('/etc/evil.JPEG')


# statistics.npz


class Payload:
    """What creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def pickled_array(path, stem, payload):
    np.savez(path, **{stem: np.array([payload], object)})


def pickled_file(path, stem, payload):
    path.write_bytes(pickle.dumps(payload))


def pickled_header(path, stem, payload):
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr(f'{stem}.npy', pickle.dumps(payload))


def one_array(path, stem, payload):
    with path.open('wb') as file:
        np.save(file, np.zeros(3))


def another_shape(path, stem, payload):
    np.savez(path, mean_image=np.zeros((256, 256)), rgb_covariance=np.zeros((3, 3)))


def text(path, stem, payload):
    np.savez(path, mean_image=np.full((256, 256, 3), 'a'), rgb_covariance=np.zeros((3, 3)))


def huge(path, stem, payload):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {'descr': '<f8', 'fortran_order': False, 'shape': (2**40, 3)})
    with zipfile.ZipFile(path, 'w') as archive:
        for name in ('mean_image', 'rgb_covariance'):
            archive.writestr(f'{name}.npy', header.getvalue())


def cut(path, stem, payload):
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize('stem', ['mean_image', pytest.param('rgb_covariance', marks=pytest.mark.repeats)])
@pytest.mark.parametrize(
    'forge', [pickled_array, pickled_file, pickled_header, one_array, another_shape, text, huge, cut]
)
def test_open_dataset_never_unpickles_statistics(forge, stem, prepared, tmp_path):
    directory = shutil.copytree(prepared, tmp_path / 'data') / 'pets' / '2.0.0'
    forge(directory / 'statistics.npz', stem, Payload(str(tmp_path / 'executed')))
    write_dataset_manifest(directory)  # whoever forges the one, forges the other
    with pytest.raises(
        InputError, match=r'statistics.npz does not hold a mean image and an RGB covariance.*--overw'
    ) as e:
        open_dataset('pets', data_dir=tmp_path / 'data')
    assert '\n' not in str(e.value)
    assert not (tmp_path / 'executed').exists()


def test_payload_runs_when_unpickled(tmp_path):
    pickle.loads(pickle.dumps(Payload(str(tmp_path / 'executed'))))
    assert (tmp_path / 'executed').exists()


def test_input_error_escapes_control_characters():
    error = InputError('no image: a\nb\x1b[2J\udc80 \u00fc')
    assert str(error) == r'no image: a\nb\x1b[2J\udc80 \u00fc'.replace(r'\u00fc', '\u00fc')
