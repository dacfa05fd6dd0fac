"""Opens corrupted images as they are published: ImageNet-C's folders, CIFAR-10-C's arrays.

ImageNet-C is CORRUPTION/SEVERITY/<class>/<image>, of 224x224: the centre of 256x256, cut out before it was corrupted.
CIFAR-10-C is CORRUPTION.npy, uint8 (5 n, 32, 32, 3), the n test images at severity 1, then at 2, and so on, and
labels.npy, (5 n,).
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import numpy as np

from alexnet_jax.data.augment import CROP
from alexnet_jax.data.corrupted import PixelSource
from alexnet_jax.data.corruption_constants import CORRUPTIONS, SEVERITIES
from alexnet_jax.data.photo import UnusableImage, read_photo, read_size, square_image
from alexnet_jax.data.preparing.listing import Listing
from alexnet_jax.data.preprocessing import PAPER
from alexnet_jax.data.statistics import RECORD
from alexnet_jax.errors import InputError
from alexnet_jax.files import escape_name

# TFDS's names, in the order of the labels.
CIFAR_10 = ('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck')
_FORMS = 'it takes ImageNet-C (CORRUPTION/SEVERITY/CLASS/IMAGE) or CIFAR-10-C (CORRUPTION.npy and labels.npy)'


@dataclasses.dataclass(frozen=True)
class CorruptedFiles:
    """A folder of corrupted images.

    Attributes:
      name: the folder's.
      classes: names of the classes, in the order of the labels that `open` gives.
      corruptions: those of CORRUPTIONS that are there, in their order.
      arrays: whether they are arrays, of 32x32, and not files of images.
    """

    directory: pathlib.Path
    name: str
    classes: tuple[str, ...]
    corruptions: tuple[str, ...]
    arrays: bool

    def open(self, corruption: str, severity: int, *, record_size: int) -> PixelSource:
        """Opens the images of a corruption and severity, as records of a size.

        Raises:
          InputError: there are none, or they are no such.
        """
        if self.arrays:
            return _open_array(self.directory, corruption, severity, record_size=record_size)
        folder = self.directory / corruption / str(severity)
        if not folder.is_dir():
            raise InputError(f'{escape_name(folder)} is not there: give the --severities that are')
        label_of = {name: label for label, name in enumerate(self.classes)}
        listing, labels, paths = Listing(folder), [], []
        for class_folder in listing.list_folder(folder)[0]:
            found = listing.select_images(listing.list_files(class_folder))
            if class_folder.name not in label_of:
                raise InputError(f'{escape_name(class_folder)} is a class that the folder of another severity lacks')
            labels += [label_of[class_folder.name]] * len(found)
            paths += found
        if listing.unusable:
            path, reason = next(iter(listing.unusable.items()))
            raise InputError(f'{escape_name(folder / path)}: {reason}')
        if not paths:
            raise InputError(f'{escape_name(folder)} holds no images in folders of classes: {_FORMS}')
        return _FileSource(paths, np.array(labels, np.int32), record_size=record_size)


def open_corrupted(directory: str) -> CorruptedFiles:
    """Looks which corruptions are in a folder; `InputError` where there are none, or no labels with arrays."""
    root = pathlib.Path(directory)
    if not root.is_dir():
        raise InputError(f'--corrupted={directory} is not a folder: {_FORMS}')
    arrays = tuple(name for name in CORRUPTIONS if (root / f'{name}.npy').is_file())
    folders = tuple(name for name in CORRUPTIONS if (root / name).is_dir())
    if bool(arrays) == bool(folders):
        what = 'both arrays and folders' if arrays else 'none'
        raise InputError(f'--corrupted={directory} holds {what} of the corruptions: {_FORMS}')
    name = escape_name(root.absolute().name)
    if arrays:
        return CorruptedFiles(root, name, CIFAR_10, arrays, arrays=True)
    first = next((root / folders[0] / str(s) for s in SEVERITIES if (root / folders[0] / str(s)).is_dir()), None)
    classes = tuple(path.name for path in Listing(root).list_folder(first)[0]) if first else ()
    if len(classes) < 2:
        raise InputError(f'--corrupted={directory}: {folders[0]}/ holds no severities 1 to 5 of classes: {_FORMS}')
    return CorruptedFiles(root, name, classes, folders, arrays=False)


class _FileSource(PixelSource):
    """Images of files: of the record's size as they are, of the crops' in the middle of it, their edges repeated."""

    def __init__(self, paths: Sequence[pathlib.Path], labels: np.ndarray, *, record_size: int) -> None:
        super().__init__(labels, preprocessing=PAPER)
        self._paths, self._record_size = paths, record_size

    def read(self, index: int) -> np.ndarray:
        """Reads an image; `InputError` if it is none, or of another size."""
        path, side = self._paths[index], self._record_size
        sides = (side, CROP) if side == RECORD else (side,)
        try:
            width, height = read_size(data := read_photo(path))
            if width != height or width not in sides:
                sizes = ' or '.join(f'{allowed}x{allowed}' for allowed in sides)
                raise UnusableImage(f'{width}x{height} pixels, where the network reads {sizes}')
            image = square_image(data, record_size=width)
        except UnusableImage as error:
            raise InputError(f'{escape_name(path)}: {error}') from error
        edge = (side - width) // 2
        return np.pad(image, ((edge, edge), (edge, edge), (0, 0)), 'edge') if edge else image


class _ArraySource(PixelSource):
    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        super().__init__(labels, preprocessing=PAPER)
        self._images = images

    def read(self, index: int) -> np.ndarray:
        """Reads an image."""
        return self._images[index]


def _open_array(directory: pathlib.Path, corruption: str, severity: int, *, record_size: int) -> _ArraySource:
    labels, path = _load_array(directory / 'labels.npy'), directory / f'{corruption}.npy'
    images, count = _load_array(path), len(labels) // len(SEVERITIES) if labels.ndim == 1 else 0
    if images.dtype != np.uint8 or images.shape != (len(SEVERITIES) * count, record_size, record_size, 3) or not count:
        raise InputError(
            f'{escape_name(path)} is {images.dtype} {images.shape}: it must be uint8 (n, {record_size}, {record_size}, '
            '3), n that of labels.npy, five times the images'
        )
    rows = slice((severity - 1) * count, severity * count)
    chosen = np.asarray(labels[rows])
    if chosen.dtype.kind not in 'iu' or chosen.min() < 0 or chosen.max() >= len(CIFAR_10):
        raise InputError(f'{escape_name(directory / "labels.npy")} holds other labels than whole numbers 0 to 9')
    return _ArraySource(np.array(images[rows]), chosen.astype(np.int32))


@functools.lru_cache(maxsize=2)
def _load_array(path: pathlib.Path) -> np.ndarray:
    """Maps an array; `InputError` where the file is none."""
    try:
        array = np.load(path, mmap_mode='r', allow_pickle=False)
        if not isinstance(array, np.ndarray) or not array.ndim:
            raise ValueError('no array')
    except (ValueError, OSError, EOFError, SyntaxError, TypeError, MemoryError, OverflowError) as error:
        raise InputError(
            f'{escape_name(path)} is no array that numpy.save wrote: {str(error).splitlines()[0]}'
        ) from error
    return array
