#!/usr/bin/env bash
# datasets 5.2.0 (Hugging Face): a `map` whose function only looks at an image writes that image anew, as JPEG of quality 75.
#
# Guess: `ds.map(lambda e: {'width': e['image'].width})` adds a column and leaves the files' bytes as they are, as it leaves
#        every other column; `filter` does.
# Seen: with images stored in the table, which is how the Hub's Parquet files hold them, each JPEG that the function read is
#       encoded again by Pillow's default: quality 75, halved colour. A file of quality 95 shrinks to half, pixels differ by
#       1.6 of 255 on average and 12 at most, and its path is gone. Batched or not; returning the image itself does so too.
#       The identity, `lambda e: e`, does not, as long as nothing reads the image; nor are PNGs changed.
# What to do: cast_column('image', Image(decode=False)) before such a map, and decode the bytes in the function.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0 pillow==13.0.0 numpy==2.4.6
cd "$folder"
HF_HOME=$folder/cache HF_DATASETS_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON'
import io

import datasets
import numpy as np
from PIL import Image

datasets.disable_progress_bars()
coarse = (255 * np.random.default_rng(0).random((8, 8, 3))).astype(np.uint8)
picture = Image.fromarray(coarse).resize((256, 256), Image.Resampling.BICUBIC)


def encode(image, **options):
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def open_table(name, data):
    """Writes one image into a Parquet file and opens that."""
    features = datasets.Features({'image': datasets.Image()})
    table = datasets.Dataset.from_dict({'image': [{'bytes': data, 'path': name}]}, features=features)
    table.to_parquet(f'{name}.parquet')
    return datasets.load_dataset('parquet', data_files=f'{name}.parquet', split='train')


def get_file(table):
    return table.cast_column('image', datasets.Image(decode=False))[0]['image']


def decode(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert('RGB')).astype(int)


jpeg = encode(picture, format='JPEG', quality=95)
table = open_table('photo.jpg', jpeg)
assert get_file(table) == {'bytes': jpeg, 'path': 'photo.jpg'}
for name, changed in {
    'identity': table.map(lambda example: example),
    'filter': table.filter(lambda example: example['image'].width > 0),
    'undecoded': table.cast_column('image', datasets.Image(decode=False)).map(lambda e: {'size': len(e['image']['bytes'])}),
}.items():
    assert get_file(changed) == {'bytes': jpeg, 'path': 'photo.jpg'}, name
for name, changed in {
    'width': table.map(lambda example: {'width': example['image'].width}),
    'width, batched': table.map(lambda batch: {'width': [image.width for image in batch['image']]}, batched=True),
    'image returned': table.map(lambda example: {'image': example['image'], 'seen': True}),
}.items():
    file = get_file(changed)
    apart = np.abs(decode(file['bytes']) - decode(jpeg))
    print(f'{name}: {len(jpeg)} bytes became {len(file["bytes"])}, pixels {apart.mean():.2f} of 255 apart, {apart.max()} at most')
    assert file == {'bytes': encode(Image.open(io.BytesIO(jpeg)), format='JPEG', quality=75), 'path': None}
    assert len(file['bytes']) < 0.6 * len(jpeg) and apart.max() > 5

png = open_table('drawing.png', encode(picture, format='PNG')).map(lambda example: {'width': example['image'].width})
assert (decode(get_file(png)['bytes']) == np.asarray(picture)).all()
PYTHON
echo 'unchanged: map of datasets 5.2.0 encodes the JPEGs that it shows'
