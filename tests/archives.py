"""Small archives of the layout that image-net.org gives, and small photographs to put into them."""

import io
import tarfile

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

SYNSETS = tfds.core.tfds_path('datasets/imagenet2012/labels.txt').read_text().split()
VALIDATION_SYNSETS = tfds.core.tfds_path('datasets/imagenet2012/validation_labels.txt').read_text().split()
TRAIN, VALIDATION = 'ILSVRC2012_img_train.tar', 'ILSVRC2012_img_val.tar'


def photograph(seed, *, mode='RGB', size=(120, 100), file_format='JPEG'):
    """Bytes of an image; the colours follow from the seed."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    image = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).convert(mode)
    out = io.BytesIO()
    image.save(out, file_format, **({'quality': 95} if file_format == 'JPEG' else {}))
    return out.getvalue()


def tar(files):
    """Bytes of a tar of {name: bytes}."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w') as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def resum(data, start):
    """Corrects the sum by which a tar's header, of 512 bytes from `start`, is known to be one."""
    data[start + 148 : start + 156] = b' ' * 8
    data[start + 148 : start + 156] = b'%06o\0 ' % sum(data[start : start + 512])


def validation_name(number):
    """Name of validation image `number`, from 1."""
    return f'ILSVRC2012_val_{number:08d}.JPEG'


def write_archives(folder, *, train, validation):
    """Writes both archives: train is {synset: {file name: bytes}}, validation a list of bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TRAIN).write_bytes(tar({f'{synset}.tar': tar(files) for synset, files in train.items()}))
    images = {validation_name(number): content for number, content in enumerate(validation, 1)}
    (folder / VALIDATION).write_bytes(tar(images))
    return folder
