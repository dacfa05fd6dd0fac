"""Photographs that the input benchmarks read: a folder of the user's, or artificial ones."""

import pathlib

import numpy as np
import simplejpeg
from PIL import Image

from alexnet_jax.errors import InputError

PHOTOS, PHOTO_SIZE = 64, (500, 375)  # of `write_photos`: as many as matter, and ImageNet's usual size


class PhotoFolder:
    """JPEGs in a folder, by index: encoded bytes and label 0, as `data.dataset.DataSource` gives them."""

    def __init__(self, folder: str) -> None:
        self.paths = sorted(p for p in pathlib.Path(folder).rglob('*') if p.suffix.lower() in ('.jpg', '.jpeg'))
        if not self.paths:
            raise InputError(f'--images={folder}: no .jpg or .jpeg in it; give a folder that holds some')

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        return self.paths[index].read_bytes(), 0


def write_photos(folder: pathlib.Path) -> None:
    """Writes PHOTOS JPEGs, 4:2:0, with detail of every size and about 100 kB each, as ImageNet's."""
    width, height = PHOTO_SIZE
    for number in range(PHOTOS):
        random = np.random.default_rng(number)
        picture = np.full((height, width, 3), 128.0, np.float32)
        for octave in range(8):
            coarse = random.uniform(0, 255, (3 << octave, 4 << octave, 3)).astype(np.uint8)
            fine = Image.fromarray(coarse).resize(PHOTO_SIZE, Image.Resampling.BICUBIC)
            picture += (np.asarray(fine, np.float32) - 128) * 0.85**octave / 2
        pixels = picture.clip(0, 255).astype(np.uint8)
        (folder / f'{number:03}.jpg').write_bytes(simplejpeg.encode_jpeg(pixels, 92, 'RGB', '420'))
