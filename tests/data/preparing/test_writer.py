import fcntl
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zlib

import grain  # noqa: F401  its flags, defined inside flagsaver, would be deleted at flagsaver's end
import numpy as np
import pytest
import tensorflow_datasets as tfds
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from alexnet_jax.commands import prepare
from alexnet_jax.data import photo
from alexnet_jax.data.dataset import list_datasets, open_dataset
from alexnet_jax.data.decode import get_crop_decoder
from alexnet_jax.data.pipeline import EvaluationBatches
from alexnet_jax.data.preparing import demo, sources, workers, writer
from alexnet_jax.data.preparing import folder as folder_source
from alexnet_jax.errors import InputError
from alexnet_jax.logs import progress


def picture(seed=0, size=(80, 60), mode='RGB'):
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC).convert(mode)


def encoded(image, file_format='JPEG', **options):
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def pixels(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg)))


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """A good folder: 2 classes, 3 training and 1 validation images each."""
    root = tmp_path_factory.mktemp('images')
    for split, count in (('train', 3), ('validation', 1)):
        for label, name in enumerate(('cat', 'dog')):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                (root / split / name / f'{i}.jpg').write_bytes(encoded(picture(len(split) + 20 * label + i)))
    return root


@pytest.fixture
def folder(images, tmp_path):
    """The good folder, to be changed."""
    return shutil.copytree(images, tmp_path / 'images')


@pytest.fixture(scope='module')
def prepared(images, tmp_path_factory):
    """A data_dir with the dataset 'pets' of the good folder."""
    data_dir = tmp_path_factory.mktemp('data')
    writer.prepare(folder_source.make_folder_spec(images, name='pets'), data_dir=data_dir, workers=1)
    return data_dir


def command(capsys, **options):
    """Runs the command in this process; returns (what it left with, stdout, stderr)."""
    flags.FLAGS.mark_as_parsed()
    code = 0
    with flagsaver.flagsaver(**options):
        try:
            prepare.main(['prepare'])
        except SystemExit as exit_:
            code = exit_.code
        except InputError as error:
            code = f'error: {error}'  # as command_line.run_command prints it
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def read(dataset, split):
    records = dataset.records(split)
    return [records[i] for i in range(len(records))]


# Converting one photograph


def test_photo_to_jpeg_resizes_then_crops_the_centre():
    source = picture(size=(640, 400))
    expected = np.asarray(source.resize((410, 256), Image.Resampling.BICUBIC).crop((77, 0, 333, 256)), np.int16)

    result = pixels(photo.photo_to_jpeg(encoded(source, 'PNG')))
    assert result.shape == (256, 256, 3)
    assert np.abs(result - expected).mean() < 1.5


def test_photo_to_jpeg_of_large_jpeg_equals_that_of_bmp():
    detail = np.random.default_rng(0).integers(0, 256, (180, 240, 3), np.uint8)
    source = Image.fromarray(detail).resize((2400, 1800), Image.Resampling.BICUBIC)
    expected = pixels(photo.photo_to_jpeg(encoded(source, 'BMP'))).astype(np.int16)

    assert (
        np.abs(pixels(photo.photo_to_jpeg(encoded(source, quality=95))) - expected).mean() < 4
    )  # levels, of pure noise


def test_photo_to_jpeg_applies_exif_orientation():
    upright = picture(size=(300, 300))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned: to be shown after a quarter turn clockwise
    turned = encoded(upright.transpose(Image.Transpose.ROTATE_90), quality=95, exif=exif.tobytes())

    expected = np.asarray(upright.resize((256, 256), Image.Resampling.BICUBIC), np.int16)
    assert np.abs(pixels(photo.photo_to_jpeg(turned)) - expected).mean() < 2


@pytest.mark.parametrize(('mode', 'file_format'), [('L', 'JPEG'), ('1', 'PNG'), ('P', 'PNG'), ('LA', 'PNG')])
def test_photo_to_jpeg_converts_eight_bit_modes_to_rgb(mode, file_format):
    source = picture(mode=mode, size=(256, 256))

    result = pixels(photo.photo_to_jpeg(encoded(source, file_format)))
    assert np.abs(result.astype(np.int16) - np.asarray(source.convert('RGB'))).mean() < 12  # '1' is all edges
    assert result.shape == (256, 256, 3)


def test_photo_to_jpeg_lays_transparency_over_white():
    source = Image.new('RGBA', (64, 64), (0, 0, 0, 0))

    assert pixels(photo.photo_to_jpeg(encoded(source, 'PNG'))).min() == 255


def test_photo_to_jpeg_keeps_full_chroma():
    assert Image.open(io.BytesIO(photo.photo_to_jpeg(encoded(picture())))).layer[0][1:3] == (1, 1)


# A folder


def test_prepare_folder_writes_dataset_with_statistics(folder, tmp_path, capsys):
    code, out, _ = command(capsys, images=str(folder), name='pets', data_dir=str(tmp_path / 'data'), json=True)

    assert code == 0
    dataset = open_dataset('pets', data_dir=tmp_path / 'data')
    result = json.loads(out.splitlines()[-1])
    assert result.pop('seconds') > 0
    assert result == {
        'name': 'pets',
        'directory': str(tmp_path / 'data' / 'pets' / '2.0.0'),
        'classes': ['cat', 'dog'],
        'splits': {'train': 6, 'validation': 2},
        'skipped': 0,
        'fingerprint': dataset.fingerprint,
    }
    train = read(dataset, 'train')
    assert sorted(label for _, label in train) == [0, 0, 0, 1, 1, 1]
    batch = np.stack([pixels(jpeg) for jpeg, _ in train])
    np.testing.assert_allclose(dataset.mean_image, batch.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(dataset.rgb_covariance, np.cov(batch.reshape(-1, 3).T, bias=True), rtol=1e-9)
    with np.load(dataset.directory / 'statistics.npz') as stored:
        assert stored['class_counts'].tolist() == [3, 3]
        assert stored['pixel_count'] == 6 * 256 * 256
    assert os.listdir(tmp_path / 'data') == ['pets']  # no lock, no hidden folder


def test_folder_spec_ignores_hidden_files(folder, tmp_path):
    for name in ('train/cat/.ipynb_checkpoints/0-checkpoint.jpg', 'train/cat/._0.jpg', 'train/.cache/x.jpg'):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((folder / 'train/cat/0.jpg').read_bytes())
    (folder / 'train/cat/more').mkdir()
    (folder / 'train/cat/0.jpg').rename(folder / 'train/cat/more/0.jpg')  # folders that are not hidden count
    writer.prepare(folder_source.make_folder_spec(folder, name='pets'), data_dir=tmp_path / 'data')
    assert len(read(open_dataset('pets', data_dir=tmp_path / 'data'), 'train')) == 6


def test_prepare_folder_keeps_labels(images, prepared):
    expected = {
        (photo.photo_to_jpeg((images / 'train' / name / f'{i}.jpg').read_bytes()), label)
        for label, name in enumerate(('cat', 'dog'))
        for i in range(3)
    }
    assert set(read(open_dataset('pets', data_dir=prepared), 'train')) == expected


@pytest.mark.slow
def test_prepare_gives_the_same_bytes_for_any_number_of_processes(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, 'CHUNK', 1)
    alone = writer.prepare(folder_source.make_folder_spec(folder, name='pets'), data_dir=tmp_path / 'a', workers=1)
    together = writer.prepare(
        folder_source.make_folder_spec(folder, name='pets'), data_dir=tmp_path / 'b', workers=2
    )  # 6 chunks: more than wait at once

    assert alone.fingerprint == together.fingerprint
    for path in alone.directory.iterdir():
        assert path.read_bytes() == (together.directory / path.name).read_bytes(), path.name


def test_prepare_converts_test_split_and_notes_absent_classes(folder, tmp_path, capsys):
    (folder / 'test' / 'dog').mkdir(parents=True)
    (folder / 'test' / 'dog' / 'x.png').write_bytes(encoded(picture(), 'PNG'))
    (folder / 'train' / '.cache').mkdir()
    (folder / 'train' / 'cat' / '.DS_Store').write_bytes(b'')

    code, _, err = command(capsys, images=str(folder), name='pets', data_dir=str(tmp_path / 'data'))
    hidden = 'left out, hidden or kept by a system (2): train/.cache, train/cat/.DS_Store'
    assert (code, err.strip().splitlines()) == (0, [hidden, 'test/ has no images of cat'])
    dataset = open_dataset('pets', data_dir=tmp_path / 'data')
    assert [label for _, label in read(dataset, 'test')] == [1]


def deep(shape):
    header = bytearray(encoded(Image.fromarray(np.zeros((32, 32), np.uint16)), 'PNG'))
    if shape == 'RGB':  # Pillow cannot write 16-bit RGB; the header is all that is looked at
        header[25] = 2
        header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, 'big')
    return bytes(header)


UNUSABLE = {
    'text': (lambda: b'not a picture', 'not an image'),
    'empty': (lambda: b'', 'not an image'),
    'truncated': (lambda: encoded(picture(size=(400, 300)))[:3000], 'truncated'),
    'lab': (lambda: encoded(Image.new('LAB', (32, 32)), 'TIFF'), 'colour mode LAB'),
    'deep grey': (lambda: deep('L'), 'more than 8 bits a channel'),
    'deep colour': (lambda: deep('RGB'), 'more than 8 bits a channel'),
    'thin': (lambda: encoded(Image.new('RGB', (1, 5000))), '1x5000 is smaller than 16 pixels'),
    'long': (lambda: encoded(Image.new('RGB', (20, 500))), '20x500 is longer than 10:1'),
}


@pytest.mark.parametrize('kind', UNUSABLE)
def test_photo_to_jpeg_names_what_makes_an_image_unusable(kind):
    make, reason = UNUSABLE[kind]
    with pytest.raises(photo.UnusableImage, match=reason) as error:
        photo.photo_to_jpeg(make())
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('split', ['train', 'validation'])
def test_prepare_names_unusable_image_and_leaves_nothing(folder, tmp_path, capsys, split):
    (folder / split / 'dog' / 'bad.jpg').write_bytes(encoded(Image.new('RGB', (20, 500))))

    code, out, _ = command(capsys, images=str(folder), name='pets', data_dir=str(tmp_path / 'data'))
    assert code.startswith(f'error: 1 unusable files ({split}/dog/bad.jpg: 20x500 is longer than 10:1)')
    assert '\n' not in code
    assert out == ''
    assert os.listdir(tmp_path / 'data') == []


def test_prepare_names_the_first_ten_unusable_files(folder, tmp_path, capsys):
    for i in range(11):
        (folder / 'train' / 'cat' / f'bad{i:02}.jpg').write_bytes(b'')
    (folder / 'validation' / 'dog' / 'notes.txt').write_text('')

    code, _, _ = command(capsys, images=str(folder), name='pets', data_dir=str(tmp_path / 'data'))
    assert '12 unusable files (validation/dog/notes.txt: not an image extension; train/cat/bad00.jpg' in code
    assert 'bad08' in code
    assert 'bad09' not in code
    assert 'and 2 more' in code


def test_prepare_on_error_skip_names_and_counts_skipped_files(folder, tmp_path, capsys):
    (folder / 'train' / 'cat' / 'bad.jpg').write_bytes(b'')
    (folder / 'train' / 'cat' / 'notes.txt').write_text('')

    code, out, err = command(
        capsys, images=str(folder), name='pets', data_dir=str(tmp_path / 'data'), on_error='skip', json=True
    )
    assert code == 0
    assert json.loads(out.splitlines()[-1])['skipped'] == 2
    assert 'skipped train/cat/notes.txt: not an image extension' in err
    assert 'skipped train/cat/bad.jpg: not an image' in err
    assert open_dataset('pets', data_dir=tmp_path / 'data').examples('train') == 6


@pytest.mark.parametrize(
    ('gone', 'message'),
    [
        ('train/dog', 'no usable image is left of train/dog'),
        ('validation/cat validation/dog', 'no usable image is left of validation'),
    ],
)
def test_prepare_on_error_skip_refuses_empty_classes_and_splits(folder, tmp_path, capsys, gone, message):
    for place in gone.split():
        for path in (folder / place).iterdir():
            path.write_bytes(b'')

    code, _, _ = command(capsys, images=str(folder), name='pets', data_dir=str(tmp_path / 'data'), on_error='skip')
    assert message in code
    assert os.listdir(tmp_path / 'data') == []


def empty(path):
    for file in path.iterdir():
        file.unlink()


def remove(path):
    empty(path)
    path.rmdir()


FOLDER_FAULTS = {
    'no folder': (lambda root: root.rename(root.with_name('elsewhere')), 'is not a folder'),
    'no train': (
        lambda root: (root / 'train').rename(root / 'exercise'),
        'has no train/ folder (found: exercise, validation); pass --validation_only',
    ),
    'no validation': (
        lambda root: (root / 'validation').rename(root / 'spare'),
        'has no validation/ folder (found: spare, train); pass --validation_share=0.1',
    ),
    'a test split only': (
        lambda root: (root / 'validation').rename(root / 'test'),
        'has no validation/ folder (found: test, train); pass --validation_share=0.1 to draw ',
    ),
    'one class': (lambda root: remove(root / 'train' / 'dog'), "only one class, 'cat'"),
    'no classes': (
        lambda root: [remove(root / 'train' / name) for name in ('cat', 'dog')],
        'has no class folders',
    ),
    'empty class': (lambda root: empty(root / 'train' / 'dog'), 'dog has no images'),
    'stranger': (
        lambda root: (root / 'validation' / 'dog').rename(root / 'validation' / 'wolf'),
        'has classes that train/ has not: wolf',
    ),
}


@pytest.mark.parametrize('fault', FOLDER_FAULTS)
def test_prepare_of_faulty_folder_is_one_line_and_leaves_nothing(folder, tmp_path, capsys, fault):
    break_it, message = FOLDER_FAULTS[fault]
    break_it(folder)

    code, out, _ = command(capsys, images=str(folder), name='pets', data_dir=str(tmp_path / 'data'))
    assert code.startswith('error: ')
    assert message in code
    assert '\n' not in code
    assert out == ''
    assert not (tmp_path / 'data').exists()


@pytest.mark.parametrize('name', ['Pets', 'my-pets', '../pets', '', '1pets', 'pets\n'])
def test_prepare_refuses_bad_name(folder, tmp_path, capsys, name):
    code, _, _ = command(capsys, images=str(folder), name=name, data_dir=str(tmp_path / 'data'))

    assert 'lower-case letters, digits and underscores' in code
    assert not (tmp_path / 'data').exists()


def test_prepare_to_unwritable_data_dir_is_one_line(folder, tmp_path, capsys):
    (tmp_path / 'file').write_text('')

    code, _, _ = command(capsys, images=str(folder), name='pets', data_dir=str(tmp_path / 'file' / 'data'))
    assert code.startswith(f'error: cannot write to {tmp_path / "file" / "data"}')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({}, 'give --images=DIR --name=NAME, or --dataset=NAME'),
        ({'images': 'x', 'dataset': 'demo'}, 'give --images=DIR --name=NAME, or --dataset=NAME'),
        ({'images': 'x'}, '--images needs --name'),
        ({'dataset': 'demo', 'name': 'mine'}, '--dataset=demo keeps its name'),
        ({'images': 'x', 'name': 'demo'}, '--name=demo is the embedded dataset'),
        ({'dataset': 'mnist', 'name': 'demo'}, '--name=demo is the embedded dataset'),
        ({'dataset': 'demo', 'validation_share': 0.1}, '--validation_share is for --images'),
        ({'dataset': 'mnist', 'validation_only': True}, '--validation_only is for --images and --dataset=imagenet2012'),
        ({'dataset': 'demo', 'size': 32}, '--dataset=demo is drawn at 256x256: leave --size out'),
    ],
)
def test_prepare_refuses_conflicting_flags(tmp_path, capsys, options, message):
    code, _, _ = command(capsys, data_dir=str(tmp_path / 'data'), **options)

    assert message in code
    assert not (tmp_path / 'data').exists()


# Never half a dataset


def test_prepare_replaces_dataset_only_with_overwrite(folder, tmp_path, capsys):
    data_dir = tmp_path / 'data'
    first = writer.prepare(folder_source.make_folder_spec(folder, name='pets'), data_dir=data_dir)
    (folder / 'train' / 'cat' / '0.jpg').unlink()

    code, _, _ = command(capsys, images=str(folder), name='pets', data_dir=str(data_dir))
    assert f'{first.directory} exists already; pass --overwrite' in code
    assert open_dataset('pets', data_dir=data_dir).fingerprint == first.fingerprint

    code, _, _ = command(capsys, images=str(folder), name='pets', data_dir=str(data_dir), overwrite=True)
    assert code == 0
    assert open_dataset('pets', data_dir=data_dir).examples('train') == 5
    assert os.listdir(data_dir) == ['pets']


@pytest.mark.parametrize('kept', [False, True])
def test_prepare_replaces_first_version_which_opens_until_then(prepared, images, tmp_path, kept):
    """What was prepared when another library resized photographs."""
    data_dir = shutil.copytree(prepared, tmp_path / 'data')
    old, new = data_dir / 'pets' / '1.0.0', data_dir / 'pets' / '2.0.0'
    before = open_dataset('pets', data_dir=data_dir)
    new.rename(old)
    dataset = open_dataset('pets', data_dir=data_dir)
    assert (dataset.directory, dataset.fingerprint) == (old, before.fingerprint)
    assert read(dataset, 'train') == read(open_dataset('pets', data_dir=prepared), 'train')
    assert list_datasets(data_dir) == ['pets']

    spec = folder_source.make_folder_spec(images, name='pets', quality=50)
    with pytest.raises(InputError, match=r'1\.0\.0 exists already; pass --overwrite'):
        writer.prepare(spec, data_dir=data_dir, workers=1)
    if kept:  # a kill between two renames leaves both
        shutil.copytree(prepared / 'pets' / '2.0.0', new)
        assert open_dataset('pets', data_dir=data_dir).directory == new
        assert list_datasets(data_dir) == ['pets']
    done = writer.prepare(spec, data_dir=data_dir, workers=1, overwrite=True)
    assert done.directory == new
    assert os.listdir(data_dir / 'pets') == ['2.0.0']
    assert open_dataset('pets', data_dir=data_dir).fingerprint == done.fingerprint != before.fingerprint


def test_prepare_keeps_old_dataset_when_overwrite_fails(folder, tmp_path):
    first = writer.prepare(folder_source.make_folder_spec(folder, name='pets'), data_dir=tmp_path / 'data')
    (folder / 'train' / 'cat' / 'bad.jpg').write_bytes(b'')

    with pytest.raises(InputError):
        writer.prepare(folder_source.make_folder_spec(folder, name='pets'), data_dir=tmp_path / 'data', overwrite=True)
    assert open_dataset('pets', data_dir=tmp_path / 'data').fingerprint == first.fingerprint


def test_prepare_refuses_second_process_on_the_same_dataset(folder, tmp_path):
    (tmp_path / 'data').mkdir()
    with (tmp_path / 'data' / '.pets.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match=r'another process \(.*\) is preparing pets in '):
            writer.prepare(folder_source.make_folder_spec(folder, name='pets'), data_dir=tmp_path / 'data')


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can become another user')
@pytest.mark.parametrize('stranger', ['dataset', 'version folder', 'sticky folder', 'lock', 'unfinished work'])
def test_prepare_of_another_users_dataset_is_refused_before_it_begins(images, stranger, request):
    data_dir = pathlib.Path(tempfile.mkdtemp())  # pytest keeps its own folders to one user
    request.addfinalizer(lambda: shutil.rmtree(data_dir))
    data_dir.chmod(0o1777)
    spec = folder_source.make_folder_spec(images, name='pets', record_size=32)
    if stranger.endswith(('dataset', 'folder')):
        first = writer.prepare(spec, data_dir=data_dir, workers=1)
        (data_dir / 'pets').chmod({'dataset': 0o755, 'version folder': 0o777, 'sticky folder': 0o1777}[stranger])
        first.directory.chmod(0o777 if stranger == 'sticky folder' else 0o755)
    else:
        path = data_dir / ('.pets.lock' if stranger == 'lock' else '.pets.partial')
        path.touch() if stranger == 'lock' else path.mkdir()
    before = sorted(os.listdir(data_dir))
    os.seteuid(54321)
    try:
        with pytest.raises(InputError, match='belongs to root, and you may not replace it: choose another --name'):
            writer.prepare(
                spec, data_dir=data_dir, workers=1, overwrite=True, progress=lambda *_: pytest.fail('it began')
            )
    finally:
        os.seteuid(0)
    assert sorted(os.listdir(data_dir)) == before
    if stranger == 'dataset':
        assert writer.prepare(spec, data_dir=data_dir, workers=1, overwrite=True).fingerprint == first.fingerprint


def test_prepare_counts_images_that_are_in_two_splits(folder, tmp_path):
    shutil.copy(folder / 'train/cat/0.jpg', folder / 'validation/cat/copy.jpg')
    same = Image.open(folder / 'train/dog/1.jpg').convert('RGB')
    same.save(folder / 'validation/dog/the same.png')  # other bytes, equal pixels
    (folder / 'validation/dog/bad.jpg').write_bytes(b'')
    (folder / 'train/dog/bad.jpg').write_bytes(b'')
    spec = folder_source.make_folder_spec(folder, name='pets', record_size=80)

    (note,) = (
        n for n in writer.prepare(spec, data_dir=tmp_path, workers=1, skip_unusable=True).notes if 'skip' not in n
    )
    assert note.startswith('2 of 4 validation images are in train too (validation/')
    pairs = ('validation/cat/copy.jpg is train/cat/0.jpg', 'validation/dog/the same.png is train/dog/1.jpg')
    assert any(pair in note for pair in pairs)
    assert note.endswith('): their errors say nothing of new images')


# The embedded dataset and TFDS


def test_prepare_demo_reports_progress(tmp_path):
    seen = []
    done = writer.prepare(
        demo.make_demo_spec(train=10, validation=10),
        data_dir=tmp_path,
        workers=1,
        progress=lambda *state: seen.append(state),
    )

    assert done.splits == {'train': 10, 'validation': 10}
    assert seen == [('train', 10, 10), ('validation', 10, 10)]
    assert open_dataset('demo', data_dir=tmp_path).fingerprint == done.fingerprint


def prepare_tfds(dataset, tmp_path, **request):
    spec = sources.make_spec(sources.SourceArgs(dataset=dataset, tfds_dir=tmp_path / 'tfds', **request))
    return writer.prepare(spec, data_dir=tmp_path / 'data')


class SmallDigits(tfds.core.GeneratorBasedBuilder):
    """Like MNIST: grey PNG of 28 x 28, train and test; a feature more than needed."""

    VERSION = tfds.core.Version('3.0.1')
    SPLITS = ('train', 'test')
    FIRST_TEST_LABEL = 0

    def _info(self):
        features = {
            'image': tfds.features.Image(shape=(28, 28, 1), encoding_format='png'),
            'label': tfds.features.ClassLabel(num_classes=3),
            'comment': tfds.features.Text(),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in self.SPLITS}

    def _generate_examples(self, split):
        for i in range(6):
            label = self.FIRST_TEST_LABEL if split == 'test' else i % 3
            png = io.BytesIO(encoded(Image.new('L', (28, 28), 40 * i), 'PNG'))  # TFDS encodes arrays with TensorFlow
            yield i, {'image': png, 'label': label, 'comment': 'x'}


class SecretDigits(SmallDigits):
    """Its test labels are not known."""

    SPLITS = ('train', 'validation', 'test')
    FIRST_TEST_LABEL = -1


class TrainingDigits(SmallDigits):
    """Nothing to validate on."""

    SPLITS = ('train',)


class RareDigits(SmallDigits):
    """Names three classes and has images of two, as ImageNet does when made from part of its archives."""

    def _generate_examples(self, split):
        return ((i, example) for i, example in super()._generate_examples(split) if example['label'] != 1)


class TensorflowDigits(SmallDigits):
    """Needs TensorFlow to be made, as most of TFDS does."""

    def _generate_examples(self, split):
        raise ModuleNotFoundError("No module named 'tensorflow'", name='tensorflow')
        yield


def test_prepare_makes_and_converts_tfds_dataset(tmp_path, capsys):
    code, _, err = command(
        capsys, dataset='small_digits', tfds_dir=str(tmp_path / 'tfds'), data_dir=str(tmp_path / 'data')
    )

    assert code == 0, code
    assert 'has no validation split: its test split is used as validation' in err
    dataset = open_dataset('small_digits', data_dir=tmp_path / 'data')
    assert dataset.classes == ('0', '1', '2')
    train = sorted((round(pixels(jpeg).mean()), label) for jpeg, label in read(dataset, 'train'))
    assert train == [(40 * i, i % 3) for i in range(6)]
    assert dataset.examples('validation') == 6


def test_prepare_writes_raw_records_of_tfds_dataset(tmp_path):
    SmallDigits(data_dir=tmp_path / 'tfds', file_format='array_record').download_and_prepare()
    prepare_tfds('small_digits', tmp_path, encoding='raw', size=28)
    directory = open_dataset('small_digits', data_dir=tmp_path / 'data').directory
    images, labels = (np.load(directory / name) for name in ('train-00000-of-00001.npy', 'train_labels.npy'))
    found = [(image.min(), image.max(), label) for image, label in zip(images, labels, strict=True)]
    assert (images.shape, sorted(found)) == ((6, 28, 28, 3), [(40 * i, 40 * i, i % 3) for i in range(6)])


def test_prepare_leaves_tfds_dataset_on_disk_unchanged(tmp_path):
    SmallDigits(data_dir=tmp_path / 'tfds', file_format='array_record').download_and_prepare()
    before = sorted(pathlib.Path(tmp_path / 'tfds').rglob('*'))

    done = prepare_tfds('small_digits', tmp_path, name='digits')
    assert done.splits == {'train': 6, 'validation': 6}
    assert done.name == 'digits'
    assert sorted(pathlib.Path(tmp_path / 'tfds').rglob('*')) == before


def test_prepare_allows_tfds_classes_without_images(tmp_path):
    done = prepare_tfds('rare_digits', tmp_path)
    assert (done.classes, done.splits['train']) == (('0', '1', '2'), 4)


def test_prepare_leaves_out_test_split_without_labels(tmp_path):
    done = prepare_tfds('secret_digits', tmp_path)

    assert done.splits == {'train': 6, 'validation': 6}
    assert 'secret_digits keeps the labels of its test split secret: left out' in done.notes


@pytest.mark.parametrize(
    ('dataset', 'message'),
    [
        ('no_such_dataset', "TFDS has no dataset 'no_such_dataset'"),
        ('small_digits:9.9.9', 'cannot be loaded at version 9.9.9'),
        ('training_digits', 'has splits train; train and validation (or test) are needed'),
        ('tensorflow_digits', 'needs tensorflow, which is not installed: run `pip install tensorflow'),
        ('imagenet2012', 'ILSVRC2012_img_train.tar'),
    ],
)
def test_prepare_of_impossible_tfds_dataset_is_one_line(tmp_path, capsys, dataset, message):
    code, out, _ = command(capsys, dataset=dataset, tfds_dir=str(tmp_path / 'tfds'), data_dir=str(tmp_path / 'data'))
    assert code.startswith('error: ')
    assert message in code
    assert '\n' not in code
    assert out == ''
    assert not (tmp_path / 'data').exists()


class BrokenDigits(SmallDigits):
    """Its fourth training image is no image, nor is its first test image."""

    def _generate_examples(self, split):
        for i, example in super()._generate_examples(split):
            broken = {'image': io.BytesIO(b'lost')} if (split, i) in (('train', 3), ('test', 0)) else {}
            yield i, example | broken


def keep_originals(dataset, tmp_path, capsys, **options):
    return command(
        capsys,
        dataset=dataset,
        tfds_dir=str(tmp_path / 'tfds'),
        data_dir=str(tmp_path / 'data'),
        keep_originals=True,
        **options,
    )


def test_keep_originals_reads_tfds_images_with_their_statistics(tmp_path, capsys):
    code, _, _ = keep_originals('small_digits', tmp_path, capsys)

    assert code == 0, code
    dataset = open_dataset('small_digits', data_dir=tmp_path / 'data')
    assert sorted(path.name for path in dataset.directory.iterdir()) == ['manifest.json', 'statistics.npz']
    records = dataset.records('train')
    assert records.photos
    assert sorted((pixels(png).mean(), label) for png, label in (records[i] for i in range(6))) == [
        (40 * i, i % 3) for i in range(6)
    ]
    np.testing.assert_allclose(dataset.mean_image, 100)  # the mean of 0, 40, ..., 200, of plain images
    np.testing.assert_allclose(dataset.rgb_covariance, np.var(40 * np.arange(6)))
    assert dataset.examples('validation') == len(dataset.records('validation')) == 6  # its test split


def test_keep_originals_allows_another_size(tmp_path, capsys):
    code, _, _ = keep_originals('small_digits', tmp_path, capsys, size=32)

    assert code == 0, code
    dataset = open_dataset('small_digits', data_dir=tmp_path / 'data')
    assert dataset.record_size == 32
    np.testing.assert_allclose(dataset.mean_image, 100)
    records = dataset.records('train')
    (batch,) = EvaluationBatches(records, 6, get_crop_decoder(records), record_size=32).read()
    assert batch.images.shape == (6, 32, 32, 3)
    assert sorted(batch.images[:, 31, 31, 0].tolist()) == [0, 40, 80, 120, 160, 200]


def test_keep_originals_names_or_skips_unusable_images(tmp_path, capsys):
    code, _, _ = keep_originals('broken_digits', tmp_path, capsys)
    assert '2 unusable files (train/' in code
    assert 'validation/' in code
    assert 'not an image' in code

    code, _, _ = keep_originals('broken_digits', tmp_path, capsys, on_error='skip')
    assert code == 0, code
    dataset = open_dataset('broken_digits', data_dir=tmp_path / 'data')
    records = dataset.records('train')
    assert dataset.examples('train') == len(records) == 5
    assert dataset.examples('validation') == len(dataset.records('validation')) == 5
    assert sorted(pixels(records[i][0]).mean() for i in range(5)) == [0, 40, 80, 160, 200]


def test_open_dataset_says_where_originals_were_resized_otherwise(tmp_path, capsys):
    keep_originals('small_digits', tmp_path, capsys)
    new = open_dataset('small_digits', data_dir=tmp_path / 'data')
    assert capsys.readouterr().err == ''
    new.directory.rename(new.directory.with_name('1.0.0'))
    old = open_dataset('small_digits', data_dir=tmp_path / 'data')
    assert old.fingerprint == new.fingerprint
    line = capsys.readouterr().err
    assert line.count('\n') == 1
    assert 'small_digits was prepared when photographs were resized by another library' in line
    assert '--overwrite' in line


def test_open_dataset_refuses_missing_or_changed_originals(tmp_path, capsys):
    keep_originals('small_digits', tmp_path, capsys)
    (where,) = (tmp_path / 'tfds' / 'small_digits').iterdir()

    info = where / 'dataset_info.json'
    whole = info.read_text()
    info.write_text(whole.replace('"6"', '"5"'))
    with pytest.raises(InputError, match='has 5 images and had 6; prepare it again'):
        open_dataset('small_digits', data_dir=tmp_path / 'data')
    where.rename(tmp_path / 'elsewhere')
    with pytest.raises(InputError, match='which holds the images, is gone; prepare it again'):
        open_dataset('small_digits', data_dir=tmp_path / 'data')


# What it will take


def test_check_writes_nothing_and_prints_the_estimate(folder, tmp_path, capsys):
    code, out, _ = command(
        capsys, images=str(folder), name='pets', data_dir=str(tmp_path / 'data'), check=True, json=True
    )

    assert code == 0
    found = json.loads(out.splitlines()[-1])
    assert found['images'] == {'train': 6, 'validation': 2}
    records = [photo.photo_to_jpeg(path.read_bytes()) for path in (folder / 'train').rglob('*.jpg')]
    assert found['needed'] == pytest.approx(4e6 + 8 * np.mean([len(record) for record in records]), rel=0.01)
    assert found['seconds'] == pytest.approx(8 / found['images_per_second'])
    assert ' GB needed, ' in out
    assert not (tmp_path / 'data').exists()


def test_check_and_prepare_refuse_too_small_disk(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(writer.shutil, 'disk_usage', lambda path: shutil._ntuple_diskusage(9e6, 8e6, 1e6))
    monkeypatch.setattr(writer, 'MANY', 5)
    options = {'images': str(folder), 'name': 'pets', 'data_dir': str(tmp_path / 'data')}

    code, _, _ = command(capsys, check=True, **options)
    assert code == f'error: about 0.0 GB are needed in {tmp_path / "data"} and 0.0 GB are free; ' + (
        'free some, or choose another --data_dir'
    )
    code, _, _ = command(capsys, **options)
    assert 'free some, or choose another --data_dir' in code


def test_check_does_not_make_tfds_dataset(tmp_path, capsys):
    code, _, _ = command(
        capsys, dataset='small_digits', tfds_dir=str(tmp_path / 'tfds'), data_dir=str(tmp_path / 'data'), check=True
    )

    assert 'small_digits is not in' in code
    assert 'without --check TFDS makes it first' in code
    assert not (tmp_path / 'tfds' / 'small_digits').exists()


# The command itself


def test_show_draws_contact_sheet(prepared, tmp_path, capsys):
    shutil.copytree(prepared, tmp_path / 'data')

    code, out, _ = command(capsys, show='pets', data_dir=str(tmp_path / 'data'))
    path = tmp_path / 'data' / 'pets' / 'contact_sheet.png'
    assert (code, out) == (0, f'drawn: {path}\n')
    assert min(Image.open(path).size) > 1000
    assert open_dataset('pets', data_dir=tmp_path / 'data').examples('train') == 6  # it is not in the way


def test_verify_reads_dataset_again(prepared, tmp_path, capsys):
    shutil.copytree(prepared, tmp_path / 'data')
    done = open_dataset('pets', data_dir=tmp_path / 'data')

    code, out, _ = command(capsys, verify='pets', data_dir=str(tmp_path / 'data'))
    assert (code, out) == (0, f'{done.directory} is whole; fingerprint {done.fingerprint}\n')
    shard = next(done.directory.glob('*-validation*'))
    shard.write_bytes(shard.read_bytes()[:-1] + b'?')
    code, _, _ = command(capsys, verify='pets', data_dir=str(tmp_path / 'data'))
    assert code.startswith(f'error: {done.directory} is damaged: {shard.name}; prepare it again')


@pytest.mark.slow
def test_prepare_command_exits_with_code_1_and_one_line(folder, tmp_path):
    (folder / 'train' / 'cat' / 'bad.jpg').write_bytes(b'')
    run = subprocess.run(
        [
            sys.executable,
            '-m',
            'alexnet_jax',
            'prepare',
            f'--images={folder}',
            '--name=x',
            f'--data_dir={tmp_path}',
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert run.stderr.count('\n') == 1
    assert run.stderr.startswith('error: 1 unusable files (train/cat/bad.jpg: not an image)')
    assert run.stdout == ''


def test_prepare_help_imports_nothing_heavy():
    program = """
import sys
from alexnet_jax.commands import prepare
print(sorted({'tensorflow_datasets', 'numpy', 'jax', 'PIL'} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == '[]'


def test_show_progress_without_terminal_prints_lines(monkeypatch, capsys):
    monkeypatch.setattr(progress, 'PLAIN_INTERVAL', 0.0)
    with progress.show_progress() as report:
        report('train', 1200, 3000)
    assert capsys.readouterr().err == 'train: 1,200 of 3,000 images\n'
