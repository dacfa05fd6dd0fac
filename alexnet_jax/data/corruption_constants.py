"""How strong each corruption is at severities 1 to 5, and where the pictures of frost are.

The numbers are those of Hendrycks and Dietterich 2019, "Benchmarking neural network robustness to common corruptions
and perturbations": hendrycks/robustness 8190fe3, ImageNet-C/create_c/make_imagenet_c.py:249-544 for photographs, and
for records of 32x32 make_cifar_c.py:130-389, whose constants are others.
"""

import functools
import importlib.util
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from alexnet_jax.errors import InputError
from alexnet_jax.files import hash_file

SEVERITIES = (1, 2, 3, 4, 5)
IMAGENET_C, CIFAR_10_C = 'ImageNet-C', 'CIFAR-10-C'
SIZES = {256: IMAGENET_C, 32: CIFAR_10_C}  # whose constants records of a size get

# Of each corruption what data/corruptions.py gives its function, by severity. The order is the published one.
CONSTANTS: Mapping[str, Mapping[str, Sequence[Any]]] = {
    IMAGENET_C: {
        'gaussian_noise': (0.08, 0.12, 0.18, 0.26, 0.38),  # standard deviation, of pixels in 0..1
        'shot_noise': (60, 25, 12, 5, 3),  # photons of a pixel that is 1
        'impulse_noise': (0.03, 0.06, 0.09, 0.17, 0.27),  # share of the values
        'defocus_blur': ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),  # radius, sigma that smooths the disk
        'glass_blur': ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),  # sigma, reach, times
        'motion_blur': ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),  # radius, sigma
        'zoom_blur': ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),  # zoom below, step
        # The layer's mean and deviation, its zoom, what is less than this is none, radius, sigma, weight of the image.
        'snow': (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        'frost': ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),  # weights of image and frost
        'fog': ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),  # its weight, and how fast details fade
        'brightness': (0.1, 0.2, 0.3, 0.4, 0.5),  # added to the value of HSV
        'contrast': (0.4, 0.3, 0.2, 0.1, 0.05),  # what is left of it
        # Pixels that a displacement of 1 moves, the sigma that smooths it, how far three corners are moved: of 244
        # pixels, where the source itself remarks that 224 was meant.
        'elastic_transform': tuple(
            (244 * alpha, 244 * sigma, 244 * affine)
            for alpha, sigma, affine in (
                *((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02)),
                *((0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
            )
        ),
        'pixelate': (0.6, 0.5, 0.4, 0.3, 0.25),  # of the side
        'jpeg_compression': (25, 18, 15, 10, 7),  # quality
    },
    CIFAR_10_C: {
        'gaussian_noise': (0.04, 0.06, 0.08, 0.09, 0.10),
        'shot_noise': (500, 250, 100, 75, 50),
        'impulse_noise': (0.01, 0.02, 0.03, 0.05, 0.07),
        'defocus_blur': ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        'glass_blur': ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        'motion_blur': ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        'zoom_blur': ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        'snow': (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        'frost': ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        'fog': ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        'brightness': (0.05, 0.1, 0.15, 0.2, 0.3),
        'contrast': (0.75, 0.5, 0.4, 0.3, 0.15),
        'elastic_transform': tuple(
            (32 * alpha, 32 * sigma, 32 * affine)
            for alpha, sigma, affine in (
                *((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06)),
                *((0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
            )
        ),
        'pixelate': (0.95, 0.9, 0.85, 0.75, 0.65),
        'jpeg_compression': (80, 65, 58, 50, 40),
    },
}
CORRUPTIONS = tuple(CONSTANTS[IMAGENET_C])

_PACKAGE = 'imagecorruptions'  # of imagecorruptions-imaug 1.1.5
# The first five of its six, as make_imagenet_c.py:396 draws one of five; the same files as the source's own.
_FROST = {
    'frost1.png': 'ff9f907860bd7a835d459e32f9d588062b7f61ee267343cc7222b56753a14755',
    'frost2.png': 'fe211a89b336999c207a852ce05818d4545d0b57c5beadd824b4cc9d9a9b6137',
    'frost3.png': '2d0d50b4a9bb213f38b024ef7768731bb83cc08d2f26b5766bbc167cdfa0e504',
    'frost4.jpg': '3f8b91ca1a9fa7167b09e773da53f5ae60d0a1fd88f02a783f6e328a72887f6e',
    'frost5.jpg': '5fc6a19df4a429ba68abdcc8f8a4278d4c9f81c9ccafd2c92ab0c8cf8992ebd2',
}


@functools.cache
def load_frost() -> tuple[np.ndarray, ...]:
    """Loads the five pictures of frost, uint8 (h, w, 3) RGB; imports nothing of the package that brings them.

    Raises:
      InputError: the package is not installed, or its files are others.
    """
    found = importlib.util.find_spec(_PACKAGE)
    folders = [pathlib.Path(folder, 'frost') for folder in (found and found.submodule_search_locations) or ()]
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        raise InputError(
            "frost needs pictures of it: pip install 'alexnet-jax[corruptions]', or name other corruptions"
        )
    pictures = []
    for name, expected in _FROST.items():
        path = folder / name
        if not path.is_file() or hash_file(path) != expected:
            raise InputError(f'{path} is not the picture of imagecorruptions-imaug 1.1.5: install that again')
        pictures.append(np.asarray(Image.open(path).convert('RGB')))
    return tuple(pictures)
