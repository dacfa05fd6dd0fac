"""The names of image files beside the records: which record was which file, found by its colour."""

import json

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from alexnet_jax.data.dataset import open_dataset, verify_dataset
from alexnet_jax.data.preparing import folder, shards, workers, writer
from alexnet_jax.data.preparing.rewriting import make_rewriting_spec
from alexnet_jax.data.record_names import find_record_names
from alexnet_jax.errors import InputError

COUNTS = {'train': 7, 'validation': 5}


def make_colour(split, number):
    return 30 * number + 20, 200 if split == 'train' else 60, 90


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Plain images, each of a colour of its own, one of which is cut off."""
    monkeypatch.setattr(workers, 'CHUNK', 1)
    monkeypatch.setattr(shards, 'SHARD', 2)
    for split, count in COUNTS.items():
        for number in range(count):
            path = tmp_path / f'images/{split}/{"cat" if number % 2 else "dog"}/ü{number}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new('RGB', (40, 40), make_colour(split, number)).save(path)
    broken = tmp_path / 'images/train/dog/ü2.png'
    broken.write_bytes(broken.read_bytes()[:60])
    return tmp_path / 'images'


def prepare(spec, data_dir):
    return writer.prepare(spec, data_dir=data_dir, workers=1, skip_unusable=True)


def test_prepare_keeps_the_name_of_each_records_file(images, tmp_path):
    prepare(folder.make_folder_spec(images, name='plain', record_size=32), tmp_path)
    dataset = open_dataset('plain', data_dir=tmp_path)
    for split, count in COUNTS.items():
        names = find_record_names(dataset, split)
        left = [number for number in range(count) if (split, number) != ('train', 2)]
        assert sorted(names) == sorted(f'{"cat" if number % 2 else "dog"}/ü{number}.png' for number in left)
        for name, (jpeg, _) in zip(names, dataset.records(split), strict=True):
            colour = simplejpeg.decode_jpeg(jpeg).mean(axis=(0, 1))
            number = min(range(count), key=lambda one: np.abs(colour - make_colour(split, one)).sum())
            assert name.endswith(f'/ü{number}.png')
    prepare(make_rewriting_spec(dataset, name='plain_raw'), tmp_path)
    rewritten = open_dataset('plain_raw', data_dir=tmp_path)
    for split in COUNTS:
        assert find_record_names(rewritten, split) == find_record_names(dataset, split)


def test_record_names_are_checked_and_are_no_part_of_the_fingerprint(images, tmp_path):
    prepare(folder.make_folder_spec(images, name='plain', record_size=32), tmp_path)
    dataset = verify_dataset('plain', data_dir=tmp_path)
    path, manifest = dataset.directory / 'validation_names.json', dataset.directory / 'manifest.json'
    names = json.loads(path.read_text())
    path.write_text(path.read_text().replace('ü1', 'ü9'))
    with pytest.raises(InputError, match=r'validation_names\.json has changed since it was written'):
        open_dataset('plain', data_dir=tmp_path)
    stored = json.loads(manifest.read_text())
    for split in COUNTS:
        del stored['files'][f'{split}_names.json']
    manifest.write_text(json.dumps(stored))
    assert open_dataset('plain', data_dir=tmp_path).fingerprint == dataset.fingerprint  # as of earlier versions
    for wrong in (names[1:], dict.fromkeys(names), [1, 2, 3, 4, 5]):
        path.write_text(json.dumps(wrong))
        with pytest.raises(InputError, match='does not hold the names of the images'):
            find_record_names(dataset, 'validation')
    path.unlink()
    assert find_record_names(dataset, 'validation') is None
