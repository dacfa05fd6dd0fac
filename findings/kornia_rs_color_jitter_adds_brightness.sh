#!/usr/bin/env bash
# kornia-rs 0.2.0: ColorJitter(brightness=0.4) adds up to 0.4 of white to each pixel or takes it away, where torchvision's, whose
# arguments it has, multiplies by 0.6 to 1.4; with SimCLR's 0.8 four of ten grey images come out as plain black or white.
#
# Guess: ColorJitter(brightness, contrast, saturation, hue) of a library with ImageNet's mean and std built in is torchvision's
#        augmentation, faster; a black image stays black and no value goes past 1 + brightness times itself.
# Seen: brightness is drawn from -0.4 to 0.4 and 255 times it is added and clipped: black becomes grey, dark colours lose their
#       hue, and contrast in shadows and lights is cut off for good. Contrast and saturation are factors around 1, as in torchvision.
#       hue turns colours about the grey axis and clips, which keeps the mean of the channels and not the largest: half a turn of
#       (200, 100, 50) is (33, 133, 183); in HSV, which torchvision has, it is (50, 150, 200). A recipe that is taken over with its
#       numbers trains on other, far harder images, and its loss only looks like stronger augmentation.
# What to do: brightness=0 here and a factor of one's own on the array; compare one draw with the formula before a recipe is moved.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check kornia-rs==0.2.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import colorsys

import numpy as np
from kornia_rs.augmentations import ColorJitter, set_seed
from kornia_rs.image import Image

set_seed(0)


def draw(image, times, **strengths):
    """Returns what ColorJitter makes of an image, and its own parameters, for a number of draws."""
    jitter, found = ColorJitter(**strengths), []
    for _ in range(times):
        pixels = np.asarray(jitter(Image.from_numpy(image)).numpy())
        found.append((pixels.astype(int), dict(jitter.last_params)))
    return found


black = np.zeros((1, 1, 3), np.uint8)
colour = np.array([[[40, 20, 10]]], np.uint8)
for image in (black, colour):
    found = draw(image, 500, brightness=0.4)
    for pixels, drawn in found:
        np.testing.assert_allclose(pixels, np.clip(image + 255 * drawn['brightness'], 0, 255), atol=1)
    most = max(pixels.max() for pixels, _ in found)
    print(f'{image.ravel().tolist()} with brightness=0.4: up to {most}; by a factor of 1.4 it is {1.4 * image.max():.0f}')
    assert most > 100

grey = np.full((4, 4, 3), 128, np.uint8)
flat = np.mean([pixels.max() == 0 or pixels.min() == 255 for pixels, _ in draw(grey, 2000, brightness=0.8)])
print(f'grey with brightness=0.8: {flat:.0%} of the draws are plain black or white')
assert 0.3 < flat < 0.45

pixels, drawn = draw(colour, 1, contrast=0.4, saturation=0.4)[0]
assert 0.6 <= drawn['contrast'] <= 1.4 and 0.6 <= drawn['saturation'] <= 1.4

colour = np.array([[[200, 100, 50]]], np.uint8)
turned = np.asarray(Image.from_numpy(colour).adjust_hue(0.5).numpy()).ravel()
hue, saturation, value = colorsys.rgb_to_hsv(*(colour.ravel() / 255))
expected = 255 * np.array(colorsys.hsv_to_rgb((hue + 0.5) % 1, saturation, value))
print(f'{colour.ravel().tolist()} with half a turn of hue: {turned.tolist()}; in HSV {np.round(expected).astype(int).tolist()}')
assert np.abs(turned - expected).max() > 15
assert abs(turned.mean() - colour.mean()) < 1
PYTHON
echo 'unchanged: ColorJitter of kornia-rs 0.2.0 adds brightness'
