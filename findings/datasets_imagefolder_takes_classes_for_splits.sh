#!/usr/bin/env bash
# datasets 5.2.0 (Hugging Face): "imagefolder" takes a class's directory for a split where its name holds the word train, test,
# dev, valid or eval, and validation images are then in the training split.
#
# Guess: a folder of train/CLASS/IMAGE and validation/CLASS/IMAGE gives these two splits, whatever the classes are called; in a
#        folder of CLASS/IMAGE alone all is training data.
# Seen: split names are looked for in every part of the path, between any of " _-./0-9", and each split takes all that matches.
#       With ImageNet's class "bullet train" as bullet_train, that class's validation images are in "train" too, its training
#       images are there twice, and all that shows is a validation error that is too good. A class test_tube makes a third
#       split. Without the outer directories only bullet_train is read and all other classes are left out. CIFAR-100 has a
#       class that is called just "train".
# What to do: name the files of each split (data_files={'train': 'train/**', ...}), and count images against the folder.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0 pillow==13.0.0 numpy==2.4.6
cd "$folder"
HF_HOME=$folder/cache HF_DATASETS_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON'
import collections
import pathlib
import tempfile

import datasets
from PIL import Image

datasets.disable_progress_bars()
counts = {'train': 3, 'validation': 2}


def make(classes, splits):
    """Returns a folder of distinct images: 3 a class in train, 2 in validation, or 3 without splits."""
    root = pathlib.Path(tempfile.mkdtemp(dir='.')).resolve()
    level = 0
    for split in splits:
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for index in range(counts.get(split, 3)):
                level += 1
                Image.new('RGB', (8, 8), (level, 0, 0)).save(root / split / name / f'{index}.png')
    return root


def load(root, **options):
    found = datasets.load_dataset('imagefolder', data_dir=str(root), **options)
    return {split: collections.Counter(row['image'].getpixel((0, 0))[0] for row in rows) for split, rows in found.items()}


def show(title, found):
    sizes = {split: images.total() for split, images in found.items()}
    print(title, sizes)
    return sizes


plain = make(['bicycle', 'bus', 'car'], ['train', 'validation'])
assert show('bicycle, bus, car:', load(plain)) == {'train': 9, 'validation': 6}  # as one would expect

trains = make(['bullet_train', 'bus', 'car'], ['train', 'validation'])
found = load(trains)
assert show('bullet_train, bus, car:', found) == {'train': 14, 'validation': 6}
leaked = sorted(found['train'] & found['validation'])
twice = sorted(image for image, times in found['train'].items() if times == 2)
print('  validation images in train:', leaked, '; in train twice:', twice)
assert (leaked, twice) == ([10, 11], [1, 2, 3])

tubes = make(['beaker', 'test_tube'], ['train', 'validation'])
assert show('beaker, test_tube:', load(tubes)) == {'train': 6, 'validation': 4, 'test': 5}

flat = make(['bullet_train', 'bus', 'car'], ['.'])
assert show('the classes alone, without a directory of splits:', load(flat)) == {'train': 3}  # of nine

files = {'train': 'train/**', 'validation': 'validation/**'}
assert show('with data_files:', load(trains, data_files=files)) == {'train': 9, 'validation': 6}
PYTHON
echo 'unchanged: "imagefolder" of datasets 5.2.0 takes bullet_train for a split of its own'
