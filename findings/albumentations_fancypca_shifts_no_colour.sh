#!/usr/bin/env bash
# Albumentations 2.0.8: FancyPCA, "similar to the one used in the original AlexNet paper", adds no colour to an image: its mean
# stays, a flat image stays as it is, and at the default strength nearly every pixel does.
#
# Guess: one random RGB triple, along the principal components of colour, is added to every pixel of an image: so section 4.1
#        of the paper, and so every tutorial that names the class.
# Seen: the components are found in each image anew, and a matrix made of them multiplies the pixels less their mean: it
#       changes contrast, not light. With alpha=0.1, the paper's number and the default, 94 % of the values of a contrasty
#       picture are what they were (components of values in 0..1 are below 0.1, times 0.1); no channel's mean moves by 0.02
#       of 255 in 200 draws. alpha=1 gives a mean change of 1.5 of 255, and still no shift.
# What to do: draw a triple a image from the dataset's own components and add it; a few lines of NumPy.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check albumentations==2.0.8 albucore==0.0.24 numpy==2.4.6
cd "$folder"
NO_ALBUMENTATIONS_UPDATE=1 "$folder/venv/bin/python" - <<'PYTHON'
import albumentations
import numpy as np

ramp = np.add.outer(np.arange(256), np.arange(256)) / 510
picture = np.stack([255 * ramp, 20 + 200 * ramp, 255 - 120 * ramp], -1)
picture = (picture + np.random.default_rng(0).normal(0, 10, picture.shape)).clip(0, 255).astype(np.uint8)


def change(image, alpha):
    """Returns 200 draws' changes in levels: of the values, (draws, height, width, 3), in int16."""
    transform = albumentations.Compose([albumentations.FancyPCA(alpha=alpha, p=1)], seed=0)
    return np.array([transform(image=image)['image'].astype(np.int16) - image for _ in range(200)])


for alpha in (0.1, 1.0):
    changes = change(picture, alpha)
    shift, kept = np.abs(changes.mean((1, 2))).max(), (changes == 0).mean()
    print(f'alpha {alpha}: {kept:.0%} of values kept, mean change {np.abs(changes).mean():.2f}, largest shift {shift:.3f} of 255')
    assert shift < 0.2
assert (change(picture, 0.1) == 0).mean() > 0.9 and np.abs(change(picture, 1.0)).mean() > 1

flat = np.full((64, 64, 3), (100, 50, 150), np.uint8)
assert not change(flat, 1.0).any()
print('a flat image: never changed')

# The paper's way, with the same picture's components and strength: a shift, and the same one at every pixel.
values, vectors = np.linalg.eigh(np.cov(picture.reshape(-1, 3) / 255, rowvar=False))
expected = 255 * np.sqrt(((vectors * (0.1 * values)) ** 2).sum(1))
print('the paper would shift red, green, blue by', expected.round(2), 'of 255 (one standard deviation)')
assert expected.max() > 1
PYTHON
echo 'unchanged: FancyPCA of Albumentations 2.0.8 changes contrast and leaves colour'
