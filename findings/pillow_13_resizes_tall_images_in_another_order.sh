#!/usr/bin/env bash
# Pillow 12.3.0 and 13.0.0: the same image, resized by the same call, has other bytes where it is tall; where it is wide not.
#
# Guess: Image.resize has given the same bytes for years, and those of images prepared with one version can be compared with
#        those of another.
# Seen: until 12.3.0 rows were always resized before columns, with a rounding to 8 bits between. 13.0.0 resizes columns first
#       where that is less work, 300x1000 to 256x256 but not 1000x300, and noise then differs by up to 7 levels of 255.
# What to do: pin Pillow where bytes matter, or resize in two calls, one direction each: these are equal in both versions.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >resize.py <<'PYTHON'
import sys

import numpy as np
from PIL import Image

cubic, results = Image.Resampling.BICUBIC, {}
for width, height in ((300, 1000), (1000, 300)):
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    image = Image.fromarray(noise)
    results[f'{width}x{height}'] = np.asarray(image.resize((256, 256), cubic))
    results[f'{width}x{height} in two calls'] = np.asarray(image.resize((256, height), cubic).resize((256, 256), cubic))
np.savez(sys.argv[1], **results)
PYTHON
for version in 12.3.0 13.0.0; do
    python3 -m venv "venv-$version"
    "venv-$version/bin/pip" install --quiet --disable-pip-version-check "pillow==$version" numpy==2.4.6
    "venv-$version/bin/python" resize.py "$version.npz"
done
venv-13.0.0/bin/python - <<'PYTHON'
import numpy as np

old, new = np.load('12.3.0.npz'), np.load('13.0.0.npz')
levels = {name: int(np.abs(old[name].astype(int) - new[name]).max()) for name in old}
print('largest difference in levels of 255:', levels)
assert levels['300x1000'] == 7
assert all(level == 0 for name, level in levels.items() if name != '300x1000')
assert np.array_equal(old['300x1000'], new['300x1000 in two calls'])
PYTHON
echo 'unchanged: Pillow 13.0.0 resizes tall images in another order than 12.3.0'
