"""Computes the two statistics that training needs: the mean image and the RGB covariance.

Krizhevsky et al. 2012, section 2: "we did not pre-process the images in any other way, except for subtracting
the mean activity over the training set from each pixel"; section 4.1: PCA "on the set of RGB pixel values
throughout the ImageNet training set". Both come from sums over all training pixels. Pixels are whole numbers,
so the sums are kept as whole numbers: they are exact, and the result is the same bytes in whatever order, and
over however many processes, the images were added.
"""

import pathlib
import zipfile
from typing import Self

import numpy as np

from alexnet_jax.errors import InputError

RECORD = 256  # side of a record where nothing else is asked for; section 2: every image is brought to 256 x 256 first

# What NumPy raises of a file that is no archive of arrays; the first three, of one array or none in place of several.
_NOT_ARRAYS = (KeyError, TypeError, AttributeError, ValueError, OSError, EOFError, MemoryError, zipfile.BadZipFile)


class Statistics:
    """Keeps running sums over images, mergeable between processes.

    int64 is wide enough: the largest sum is of squares, at most 256 * 256 * 255**2 an image, which fills 63
    bits after 2e9 images; of records of 1024 after 1e8.
    """

    def __init__(self, class_count: int, *, record_size: int = RECORD) -> None:
        self.image_sum = np.zeros((record_size, record_size, 3), np.int64)
        self.product_sum = np.zeros((3, 3), np.int64)  # over all pixels, of the outer product of RGB with itself
        self.class_counts = np.zeros(class_count, np.int64)  # images of each class

    def add(self, image: np.ndarray, label: int) -> None:
        """Adds one image, uint8 (record_size, record_size, 3) RGB, of class `label`."""
        if image.shape != self.image_sum.shape or image.dtype != np.uint8:
            raise ValueError(f'expected a uint8 image of {self.image_sum.shape}, got {image.dtype} {image.shape}')
        # Half the bytes of int64, and wide enough for one image of 256: 256 * 256 * 255**2 is under 2**32.
        width: type[np.integer] = np.uint32 if len(image) <= 256 else np.int64
        pixels = image.reshape(-1, 3).T.astype(width, order='C')
        self.image_sum += image
        self.product_sum += np.einsum('cn,dn->cd', pixels, pixels)
        self.class_counts[label] += 1

    def merge(self, other: Self) -> None:
        """Adds the sums of `other`."""
        for name, value in vars(other).items():
            vars(self)[name] += value

    @property
    def image_count(self) -> int:
        """Counts the images added."""
        return int(self.class_counts.sum())

    @property
    def pixel_count(self) -> int:
        """Counts the pixels of all images added."""
        return self.image_count * self.image_sum[..., 0].size

    def mean_image(self) -> np.ndarray:
        """Computes the mean image: float64 (record_size, record_size, 3), 0..255."""
        return self.image_sum / self.image_count

    def rgb_covariance(self) -> np.ndarray:
        """Computes the covariance of RGB over every pixel of every image: float64 (3, 3), 0..255 squared.

        Divides by the number of pixels, not by one less: this is the paper's description of the training set, not an
        estimate. Subtracts whole numbers, where nothing cancels.
        """
        channel_sum = self.image_sum.sum(axis=(0, 1)).astype(object)
        scaled = self.pixel_count * self.product_sum.astype(object) - np.outer(channel_sum, channel_sum)
        return (scaled / self.pixel_count**2).astype(np.float64)


def read_statistics(path: pathlib.Path, *, remedy: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads the mean image, float32, and the RGB covariance; unpickles nothing, whatever the file holds."""
    try:
        with np.load(path, allow_pickle=False) as statistics:
            mean_image, rgb_covariance = statistics['mean_image'], statistics['rgb_covariance']
            shapes, kinds = (mean_image.shape, rgb_covariance.shape), mean_image.dtype.kind + rgb_covariance.dtype.kind
            if shapes != ((*2 * mean_image.shape[:1], 3), (3, 3)) or not mean_image.size or kinds != 'ff':
                raise ValueError(f'it has {shapes} of {kinds}')
    except _NOT_ARRAYS as error:
        raise InputError(f'{path} does not hold a mean image and an RGB covariance; {remedy}') from error
    return mean_image.astype(np.float32), rgb_covariance
