"""The DataLoader peer does the same work: crops of Pillow's pixels, at every place, half of them mirrored."""

import io

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.benchmark.photos import PhotoFolder
from alexnet_jax.benchmark.protocol import Setting
from alexnet_jax.data.photo import decode_photo_crop
from alexnet_jax.errors import InputError

torch = pytest.importorskip('torch')
from alexnet_jax.benchmark.peers import torch_loader  # noqa: E402 - it imports PyTorch


def encode(size, *, seed):
    blotches = np.random.default_rng(seed).integers(0, 256, (size[1] // 6, size[0] // 6, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(blotches).resize(size, Image.Resampling.BICUBIC).save(out, 'JPEG', quality=95, subsampling=0)
    return out.getvalue()


def find_window(image, whole):
    """(row, column, whether mirrored) of a (3, 224, 224) crop in the (256, 256, 3) pixels it is from."""
    upright = np.transpose(np.asarray(image), (1, 2, 0))
    windows = np.lib.stride_tricks.sliding_window_view(whole, (224, 224, 3))[:, :, 0]
    found = []
    for mirrored, crop in ((False, upright), (True, upright[:, ::-1])):
        close = np.argwhere((windows[:, :, 0, 0] == crop[0, 0]).all(axis=-1))  # the others differ in a corner already
        found += [(*map(int, at), mirrored) for at in close if np.array_equal(windows[tuple(at)], crop)]
    (place,) = found
    return place


def test_iter_batches_yields_crops_with_their_labels_from_two_processes(tmp_path):
    records = [(encode((256, 256), seed=seed), 10 + seed) for seed in range(4)]
    paths, labels = torch_loader.write_files(records, tmp_path / 'jpegs')
    with pytest.raises(InputError, match=r'no \.jpg'):
        PhotoFolder(str(tmp_path))  # they are not taken for photographs
    batches = torch_loader.iter_batches(torch_loader.JpegFiles(paths, labels), batch=12, processes=2)
    places = []
    for images, found in (next(batches) for _ in range(3)):
        assert (images.shape, images.dtype, found.shape) == ((12, 3, 224, 224), torch.uint8, (12,))
        for image, label in zip(images, found.tolist(), strict=True):
            whole = np.asarray(Image.open(io.BytesIO(records[label - 10][0])))
            places.append((*find_window(image, whole), label))
    rows, columns, mirrored, seen = map(set, zip(*places, strict=True))
    assert len(rows) > 8 and len(columns) > 8  # of 33: 36 draws give fewer once in 10^9
    assert (mirrored, seen) == ({False, True}, {10, 11, 12, 13})


@pytest.mark.parametrize('size', [(500, 376), (376, 500)])
def test_jpeg_files_gives_our_pixels_of_photographs(tmp_path, size, monkeypatch):
    """To within a rounding: Pillow resizes in one call, in an order of its own."""
    monkeypatch.setattr(torch_loader.torch, 'randint', lambda high, shape: torch.full(shape, high // 2))
    jpeg, ours = encode(size, seed=0), np.empty((224, 224, 3), np.uint8)
    decode_photo_crop(jpeg, ours, top=16, left=16)
    paths, labels = torch_loader.write_files([(jpeg, 7)], tmp_path / 'jpegs')
    found = [torch_loader.JpegFiles(paths, labels, square=256)[0] for _ in range(20)]
    crops = {np.transpose(image.numpy(), (1, 2, 0)).tobytes(): label for image, label in found}
    assert list(crops.values()) == [7, 7]  # as it is, and mirrored
    a, b = (np.frombuffer(crop, np.uint8).reshape(224, 224, 3).astype(np.int16) for crop in crops)
    assert np.array_equal(a, b[:, ::-1])
    assert min(np.abs(crop - ours).max() for crop in (a, b)) <= 2


def test_make_loader_programs_reads_records_and_photographs_of_one_folder(tiny_dir, tmp_path):
    """As `bench input` has them where it makes the photographs itself: here grey ones, and no record is grey."""
    Image.new('RGB', (300, 280), (90, 90, 90)).save(tmp_path / 'grey.jpg')
    names = {'dataset': 'tiny', 'data_dir': str(tiny_dir), 'photos': str(tmp_path), 'scratch': str(tmp_path)}
    programs, versions = torch_loader.make_loader_programs(Setting(8, 1.0, 3, 'default', **names))
    assert versions == {'torch': torch.__version__}
    for name, greys in (('pipeline', 0), ('photo_pipeline', 8)):
        images, labels = programs[name].call()
        assert (images.shape, labels.shape) == ((8, 3, 224, 224), (8,))
        assert sum(image.float().std() < 2 for image in images) == greys
        assert set(labels.tolist()) <= ({0, 1, 2} if name == 'pipeline' else {0})
