"""How far apart the three ways to make squares of photographs are, in pixels and in what a trained network sees.

    python -m experiments.preprocessings FOLDER [PHOTOS]        needs the extra `pretrained`

Takes PHOTOS (100) photographs from all over FOLDER. Prints how far the centre crops of each way lie from those of
torchvision's, on which the weights of `imagenet_trunk` were trained: pixels, conv5 relative to its length, and for how
many photographs the nearest of the others by conv5, or one of the nearest five, is another. Where torchvision is
installed, its own transforms are compared too.
"""

import importlib.util
import io
import pathlib
import sys

import numpy as np
from PIL import Image

import alexnet_jax
from alexnet_jax.data.augment import centre_crop
from alexnet_jax.data.photo import square_image
from alexnet_jax.data.preprocessing import PREPROCESSINGS

OWN = 'torchvision'


def make_crops(photos, preprocessing):
    """uint8 (n, 224, 224, 3)."""
    return np.stack([centre_crop(square_image(photo, preprocessing=preprocessing), 224) for photo in photos])


def make_torchvision_crops(photos):
    """By torchvision's Resize and CenterCrop themselves, as torchvision/transforms/_presets.py calls them."""
    from torchvision.transforms import functional as F

    images = (Image.open(io.BytesIO(photo)).convert('RGB') for photo in photos)
    return np.stack([np.asarray(F.center_crop(F.resize(image, [256], antialias=True), [224])) for image in images])


def find_nearest(features):
    """(n, 5) the nearest others by Euclidean distance, in order."""
    square = (features**2).sum(1)
    distances = square[:, None] + square - 2 * features @ features.T
    np.fill_diagonal(distances, np.inf)
    return np.argsort(distances, axis=1)[:, :5]


def main(folder, count=100):
    """Compares."""
    paths = sorted(path for path in pathlib.Path(folder).rglob('*') if path.suffix.lower() in ('.jpg', '.jpeg'))
    photos = [path.read_bytes() for path in paths[:: len(paths) // int(count)][: int(count)]]
    net = alexnet_jax.load('imagenet_trunk')
    crops = {name: make_crops(photos, name) for name in PREPROCESSINGS}
    if importlib.util.find_spec('torchvision'):
        crops["torchvision's own"] = make_torchvision_crops(photos)

    def compute_features(images):
        parts = [np.asarray(net.features(part, 'conv5')) for part in np.array_split(images, max(1, len(images) // 20))]
        return np.concatenate(parts).reshape(len(images), -1).astype(np.float64)

    features = {name: compute_features(images) for name, images in crops.items()}
    nearest = find_nearest(features[OWN])
    print(f'{len(photos)} photographs, beside {OWN}: pixels mean, max; conv5 mean, max; nearest, nearest five differ')
    for name in crops:
        pixels = np.abs(crops[name].astype(int) - crops[OWN])
        apart = np.linalg.norm(features[name] - features[OWN], axis=1) / np.linalg.norm(features[OWN], axis=1)
        other = find_nearest(features[name])
        first, five = (other[:, 0] != nearest[:, 0]).sum(), (np.sort(other) != np.sort(nearest)).any(1).sum()
        print(
            f'{name:17} {pixels.mean():6.2f} {pixels.max():4} {apart.mean():8.3f} {apart.max():6.3f} {first:4} {five:4}'
        )


if __name__ == '__main__':
    main(*sys.argv[1:])
