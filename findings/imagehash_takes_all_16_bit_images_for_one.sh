#!/usr/bin/env bash
# ImageHash 4.3.2 with Pillow 13.0.0: all 16-bit grey images have one and the same hash, so a search for duplicates by any of its
# hashes finds each of them to be a copy of every other.
#
# Guess: phash and its kin look at an image's structure, whatever its brightness: a 16-bit PNG has the hash of the same picture in
#        8 bits, or nearly, and two different pictures are some 32 bits apart.
# Seen: the image is first made grey by Pillow's convert('L'), which cuts 16-bit values at 255 and does not scale them. Nearly all
#       of a picture is then white: average_hash and dhash give 0000000000000000 and phash 8000000000000000 for any
#       16-bit image, at distance 0 of each other and about 30 of their own 8-bit versions. Depth maps, X-rays and scans that
#       are cleaned of near-duplicates before a split are thinned to one image. Nothing warns; 8-bit images beside are right.
# What to do: hash Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)) where image.mode begins with I.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ImageHash==4.3.2 pillow==13.0.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import imagehash
import numpy as np
from PIL import Image


def draw(seed):
    """Returns a smooth random picture of 64x64 in 16 bits, none of it near black."""
    coarse = Image.fromarray(np.random.default_rng(seed).uniform(3000, 62000, (8, 8)).astype(np.float32))
    values = np.asarray(coarse.resize((64, 64), Image.Resampling.BICUBIC)).clip(1000, 65535)
    name = f'{seed}.png'
    Image.fromarray(values.astype(np.uint16)).save(name)
    return Image.open(name)


pictures = [draw(seed) for seed in range(20)]
assert all(picture.mode == 'I;16' for picture in pictures)
shallow = [Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)) for picture in pictures]
for method in (imagehash.average_hash, imagehash.phash, imagehash.dhash):
    deep, plain = [method(picture) for picture in pictures], [method(picture) for picture in shallow]
    apart = [a - b for a, b in zip(deep, plain)]
    print(f'{method.__name__}: {len(set(map(str, deep)))} different of 20 in 16 bits ({deep[0]}),', end=' ')
    print(f'{len(set(map(str, plain)))} in 8 bits, {np.mean(apart):.0f} of 64 bits between the two')
    assert len(set(map(str, deep))) == 1 and len(set(map(str, plain))) == 20 and min(apart) > 10
PYTHON
echo 'unchanged: ImageHash 4.3.2 takes all 16-bit images for one'
