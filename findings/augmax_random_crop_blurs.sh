#!/usr/bin/env bash
# augmax 0.4.1 (image augmentation for JAX): RandomCrop is not a window of the image; it resamples it and so blurs it, and
# CenterCrop does so where image and crop differ by an odd number.
#
# Guess: with sizes in pixels and no rotation or scale beside it, a crop copies pixels, as in Albumentations, whose interface
#        augmax says it follows.
# Seen: RandomCrop draws its place as a real number and interpolates between the four neighbours. Noise of standard deviation
#       0.289 comes out with 0.16 to 0.24, another blur at each draw; hardly a value of the image is in the crop. CenterCrop
#       from 256 to 224 is exact, to 223 it leaves 0.14. So networks are trained on images that are softer than those they
#       are tested on, by the operation in the first example of augmax's own page.
# What to do: draw whole numbers and use augmax.Crop(x, y, width, height), which is exact, or jax.lax.dynamic_slice.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check augmax==0.4.1 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import augmax
import jax
import numpy as np

image = np.random.default_rng(0).random((256, 256, 1), np.float32)


def crop(name, transformation, seed=0):
    """Returns the crop's standard deviation and the share of its values that are values of the image."""
    found = np.asarray(augmax.Chain(transformation)(jax.random.key(seed), image))
    spread, kept = float(found.std()), float(np.isin(found, image).mean())
    print(f'{name}: {found.shape[0]}x{found.shape[1]}, standard deviation {spread:.3f}, values of the image {kept:.1%}')
    return spread, kept


for seed in range(4):
    spread, kept = crop('RandomCrop', augmax.RandomCrop(224, 224), seed)
    assert spread < 0.25 and kept < 0.01
assert crop('CenterCrop', augmax.CenterCrop(224, 224))[1] == 1
spread, kept = crop('CenterCrop', augmax.CenterCrop(223, 223))
assert spread < 0.15 and kept < 0.01
assert crop('Crop', augmax.Crop(5, 9, 224, 224))[1] == 1
assert abs(float(image.std()) - 0.289) < 0.001
PYTHON
echo 'unchanged: RandomCrop of augmax 0.4.1 resamples and blurs'
