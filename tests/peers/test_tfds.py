"""What only TensorFlow can do: TFDS's own ImageNet builder as the oracle of ours, and datasets stored as TFRecord.

Needs the extra `tensorflow`.
"""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from archives import SYNSETS, VALIDATION_SYNSETS, photograph, write_archives
from PIL import Image

from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.preparing import sources, writer

pytest.importorskip('tensorflow')
from tensorflow_datasets.datasets.imagenet2012 import imagenet2012_dataset_builder as official

CMYK, PNG = 'n01739381_1309.JPEG', 'n02105855_2933.JPEG'  # two of the files that TFDS knows to be so


@pytest.fixture(scope='module')
def tars(tmp_path_factory):
    """Small archives, with the forms that ImageNet's images have."""
    assert CMYK in official.CMYK_IMAGES
    assert PNG in official.PNG_IMAGES
    train = {}
    for synset in (CMYK[:9], PNG[:9], SYNSETS[0]):
        names = [f'{synset}_{number}.JPEG' for number in (1, 2)]
        train[synset] = {name: photograph((number, ord(synset[-1]))) for number, name in enumerate(names)}
    train[CMYK[:9]][CMYK] = photograph(5, mode='CMYK')
    train[PNG[:9]][PNG] = photograph(6, file_format='PNG')
    train[SYNSETS[0]][f'{SYNSETS[0]}_3.JPEG'] = photograph(7, mode='L')
    validation = [photograph((9, number)) for number in range(12)]
    return write_archives(tmp_path_factory.mktemp('tars'), train=train, validation=validation)


@pytest.fixture(scope='module')
def theirs(tars, tmp_path_factory):
    """The folder where TFDS's builder has made imagenet2012 from the same archives."""
    tfds_dir = tmp_path_factory.mktemp('tfds')
    config = tfds.download.DownloadConfig(manual_dir=tars)
    tfds.builder('imagenet2012', data_dir=tfds_dir).download_and_prepare(
        download_config=config, file_format='array_record'
    )
    return tfds_dir


def small(image):
    """What is left of a picture when detail and compression are averaged away: (8, 8, 3), 0..255."""
    return np.asarray(Image.fromarray(image).convert('RGB').resize((8, 8), Image.Resampling.BOX), np.float64)


def prepared(request, tmp_path):
    writer.prepare(sources.make_spec(request), data_dir=tmp_path, workers=1)
    return open_dataset('imagenet2012', data_dir=tmp_path)


@pytest.mark.parametrize('split', ['train', 'validation'])
def test_imagenet_spec_equals_tfds_builder(tars, theirs, tmp_path, split):
    records = prepared(sources.SourceArgs(dataset='imagenet2012', manual_dir=tars), tmp_path).records(split)
    builder = tfds.builder('imagenet2012', data_dir=theirs)
    keys = [
        example.key
        for example in sources.make_spec(sources.SourceArgs(dataset='imagenet2012', manual_dir=tars))
        .splits[split]
        .iter_examples()
    ]
    expected = {record['file_name']: record for record in builder.as_data_source(split)}

    assert sorted(keys) == sorted(name.decode() for name in expected)
    for key, (jpeg, label) in zip(keys, (records[i] for i in range(len(records))), strict=True):
        record = expected[key.encode()]
        assert label == record['label'], key
        theirs_small = small(tfds_square(record['image']))
        assert np.abs(small(np.asarray(Image.open(io.BytesIO(jpeg)))) - theirs_small).mean() < 2, (
            key
        )  # other images are 50 apart


def tfds_square(image):
    """TFDS's decoded image, shorter side cut to a square."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    return image[top : top + side, left : left + side]


def test_imagenet_spec_labels_are_official(tars, tmp_path):
    records = prepared(sources.SourceArgs(dataset='imagenet2012', manual_dir=tars), tmp_path).records('validation')

    assert [records[i][1] for i in range(12)] == [SYNSETS.index(synset) for synset in VALIDATION_SYNSETS[:12]]


def test_make_spec_takes_imagenet_from_tfds(tars, theirs, tmp_path):
    ours = prepared(sources.SourceArgs(dataset='imagenet2012', manual_dir=tars), tmp_path / 'ours')
    from_tfds = prepared(sources.SourceArgs(dataset='imagenet2012', tfds_dir=theirs), tmp_path / 'theirs')

    assert ours.classes == from_tfds.classes
    for split in ('train', 'validation'):
        sets = []
        for dataset in (ours, from_tfds):
            records = [dataset.records(split)[i] for i in range(dataset.examples(split))]
            sets.append([label for _, label in records])
        assert sorted(sets[0]) == sorted(sets[1])
    assert np.abs(ours.mean_image - from_tfds.mean_image).mean() < 1  # TFDS has encoded two images anew


class RecordDigits(tfds.core.GeneratorBasedBuilder):
    """Small pictures, stored as TFRecord, which TFDS does unless asked otherwise."""

    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        features = {
            'image': tfds.features.Image(shape=(None, None, 3)),
            'label': tfds.features.ClassLabel(num_classes=3),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples() for split in ('train', 'validation')}

    def _generate_examples(self):
        for i in range(9):
            yield i, {'image': np.full((40, 50, 3), 20 * i, np.uint8), 'label': i % 3}


def test_tfds_split_reads_tfrecord_with_tensorflow(tmp_path):
    RecordDigits(data_dir=tmp_path / 'tfds').download_and_prepare(file_format='tfrecord')
    spec = sources.make_spec(sources.SourceArgs(dataset='record_digits', tfds_dir=tmp_path / 'tfds'))
    writer.prepare(spec, data_dir=tmp_path / 'data', workers=1)

    records = open_dataset('record_digits', data_dir=tmp_path / 'data').records('train')
    found = [(round(np.asarray(Image.open(io.BytesIO(records[i][0]))).mean()), records[i][1]) for i in range(9)]
    assert sorted(found) == [(20 * i, i % 3) for i in range(9)]
    assert [example.key for example in spec.splits['train'].iter_examples(4)] == [f'{i:08d}' for i in range(4, 9)]
