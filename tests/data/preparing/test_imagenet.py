import io

import numpy as np
import pytest
from archives import (
    SYNSETS,
    TRAIN,
    VALIDATION,
    VALIDATION_SYNSETS,
    photograph,
    tar,
    validation_name,
    write_archives,
)
from PIL import Image

from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.photo import photo_to_jpeg, square_image
from alexnet_jax.data.preparing import imagenet, writer
from alexnet_jax.errors import InputError

CHOSEN = (3, 700, 5)  # classes, not in label order: the archive's order does not matter


@pytest.fixture
def contents():
    """{synset: {file name: bytes}} of three classes with three images each."""
    train = {}
    for label in CHOSEN:
        names = [f'{SYNSETS[label]}_{number}.JPEG' for number in (7, 40, 9)]
        train[SYNSETS[label]] = {name: photograph((label, name.encode()[-6])) for name in names}
    return train


@pytest.fixture
def validation():
    return [photograph((number,)) for number in range(6)]


def prepare(folder, tmp_path, **choices):
    writer.prepare(imagenet.make_imagenet_spec(folder), data_dir=tmp_path / 'data', workers=1, **choices)
    dataset = open_dataset('imagenet2012', data_dir=tmp_path / 'data')
    return {
        split: [dataset.records(split)[i] for i in range(dataset.examples(split))] for split in ('train', 'validation')
    }


def test_prepare_imagenet_keeps_images_and_labels(tmp_path, contents, validation):
    records = prepare(write_archives(tmp_path / 'tars', train=contents, validation=validation), tmp_path)

    expected = [(photo_to_jpeg(content), label) for label in CHOSEN for content in contents[SYNSETS[label]].values()]
    assert records['train'] == expected
    labels = [SYNSETS.index(synset) for synset in VALIDATION_SYNSETS[: len(validation)]]
    assert records['validation'] == [
        (photo_to_jpeg(image), label) for image, label in zip(validation, labels, strict=True)
    ]


def test_imagenet_records_are_raw_where_no_quality_is_given(tmp_path, contents, validation):
    spec = imagenet.make_imagenet_spec(write_archives(tmp_path, train=contents, validation=validation), quality=None)
    records = [spec.to_record(example.source) for example in spec.splits['validation'].iter_examples()]
    assert records == [square_image(image).tobytes() for image in validation]
    assert (spec.encoding, spec.decode(records[0]).shape) == ('raw', (256, 256, 3))


def test_imagenet_split_starts_at_any_index(tmp_path, contents, validation):
    spec = imagenet.make_imagenet_spec(write_archives(tmp_path, train=contents, validation=validation))
    keys = [example.key for example in spec.splits['train'].iter_examples()]

    assert keys == [name for files in contents.values() for name in files]
    for start in range(len(keys) + 1):
        assert [example.key for example in spec.splits['train'].iter_examples(start)] == keys[start:]


def test_prepare_imagenet_converts_cmyk_png_and_grey(tmp_path, contents, validation):
    synset = SYNSETS[CHOSEN[0]]
    contents[synset] = {
        f'{synset}_1.JPEG': photograph(1, mode='CMYK'),
        f'{synset}_2.JPEG': photograph(2, file_format='PNG'),
        f'{synset}_3.JPEG': photograph(3, mode='L'),
    }
    records = prepare(write_archives(tmp_path / 'tars', train=contents, validation=validation), tmp_path)

    pixels = [np.asarray(Image.open(io.BytesIO(jpeg)), np.float64) for jpeg, _ in records['train'][:3]]
    assert [image.shape for image in pixels] == [(256, 256, 3)] * 3
    for seed, image in ((1, pixels[0]), (2, pixels[1])):  # the colours that were put in, not their negative
        expected = np.asarray(Image.open(io.BytesIO(photo_to_jpeg(photograph(seed)))), np.float64)
        assert np.abs(image - expected).mean() < 6
    assert np.abs(pixels[2] - pixels[2].mean(axis=2, keepdims=True)).max() <= 1


def test_prepare_imagenet_names_or_skips_truncated_member(tmp_path, contents, validation):
    synset = SYNSETS[CHOSEN[1]]
    name = f'{synset}_40.JPEG'
    contents[synset][name] = contents[synset][name][:700]
    tars = write_archives(tmp_path / 'tars', train=contents, validation=validation)

    with pytest.raises(InputError, match=f'1 unusable files .train/{name}: .*truncated.*--on_error=skip'):
        prepare(tars, tmp_path)
    assert len(prepare(tars, tmp_path, skip_unusable=True)['train']) == 8


def cut_off(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


FAULTS = {
    'no validation': (lambda tars: (tars / VALIDATION).unlink(), f'has no {VALIDATION}; register at https://'),
    'no training': (lambda tars: (tars / TRAIN).unlink(), f'has no {TRAIN}; register'),
    'training cut off': (lambda tars: cut_off(tars / TRAIN, 0.5), f'{TRAIN} is not a whole tar.*download it again'),
    'validation cut off': (lambda tars: cut_off(tars / VALIDATION, 0.5), f'{VALIDATION} is not a whole tar'),
    'no tar': (lambda tars: (tars / TRAIN).write_text('moved to the other disk'), 'is not a whole tar archive'),
    'class cut off': (
        lambda tars: (tars / TRAIN).write_bytes(tar({f'{SYNSETS[0]}.tar': tar({'a.JPEG': photograph(0)})[:1500]})),
        'archive at byte .* (is cut off within a.JPEG|is not a whole tar)',
    ),
    'a gap': (
        lambda tars: (tars / VALIDATION).write_bytes(tar({validation_name(number): b'x' for number in (1, 2, 4)})),
        r"holds 'ILSVRC2012_val_00000004.JPEG' in place of 'ILSVRC2012_val_00000003.JPEG': .* go by position",
    ),
    'a subset': (
        lambda tars: (tars / VALIDATION).write_bytes(tar({validation_name(number): b'x' for number in (501, 502)})),
        'go by position',
    ),
    'other names': (
        lambda tars: (tars / VALIDATION).write_bytes(tar({'cat.JPEG': b'x'})),
        "holds 'cat.JPEG' in place of",
    ),
    'nothing to validate': (lambda tars: (tars / VALIDATION).write_bytes(tar({})), 'holds 0 images: validation labels'),
    'images instead of classes': (
        lambda tars: (tars / TRAIN).write_bytes(tar({'n01440764_1.JPEG': b'x'})),
        "holds 'n01440764_1.JPEG', which is not an archive of one of the 1,000 classes",
    ),
    'another class': (
        lambda tars: (tars / TRAIN).write_bytes(tar({'n99999999.tar': tar({})})),
        "holds 'n99999999.tar', which is not",
    ),
    'no class': (lambda tars: (tars / TRAIN).write_bytes(tar({})), 'holds nothing, not an archive'),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_imagenet_spec_of_faulty_archive_is_one_line(tmp_path, contents, validation, fault):
    tars = write_archives(tmp_path, train=contents, validation=validation)
    damage, message = FAULTS[fault]
    damage(tars)

    with pytest.raises(InputError, match=message) as error:
        imagenet.make_imagenet_spec(tars)
    assert '\n' not in str(error.value)


def test_imagenet_spec_notes_part_of_imagenet(tmp_path, contents, validation):
    spec = imagenet.make_imagenet_spec(write_archives(tmp_path, train=contents, validation=validation))

    assert 'the official archive 147,897,477,120: a part of ImageNet' in spec.notes[0]
    assert (len(spec.classes), len(spec.splits['train']), len(spec.splits['validation'])) == (1000, 9, 6)


def test_prepare_imagenet_validation_archive_alone(tmp_path, contents, validation):
    tars = write_archives(tmp_path / 'tars', train=contents, validation=validation)
    (tars / TRAIN).unlink()
    with pytest.raises(
        InputError, match=f'has no {TRAIN}; register .* \\(--validation_only does without, to test weights'
    ):
        imagenet.make_imagenet_spec(tars)
    (tars / 'train').mkdir()
    with pytest.raises(InputError, match=f'; --images={tars} --name=imagenet2012 reads what is unpacked'):
        imagenet.make_imagenet_spec(tars)
    spec = imagenet.make_imagenet_spec(tars, validation_only=True)

    assert writer.prepare(spec, data_dir=tmp_path / 'data', workers=1).splits == {'validation': 6}
    dataset = open_dataset('imagenet2012', data_dir=tmp_path / 'data')
    assert [dataset.records('validation')[i][1] for i in range(6)] == [
        SYNSETS.index(synset) for synset in VALIDATION_SYNSETS[:6]
    ]
    with pytest.raises(InputError, match='prepared to test weights only'):
        dataset.examples('train')
