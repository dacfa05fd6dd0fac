"""Every kind of file of weights, on photographs: logits here beside those of the program that wrote the file.

    PYTHONPATH=.:tests python experiments/file_kinds.py FOLDER [PHOTOS]     needs the extras `dev`, `bench`, `onnx`

Takes PHOTOS (100) photographs from all over FOLDER, made squares as each network's were, and networks of random weights
at 1/16 width, written as the tests write them; with torchvision installed also its own alexnet at full size. Prints by
how much logits differ at most, relative to the largest, and for how many photographs the five likeliest classes are the
same in the same order.
"""

import copy
import importlib.util
import pathlib
import sys
import tempfile

import numpy as np
import torch
from extras import test_keras as keras_files
from peers import test_torch_kinds as torch_files
from weights import test_caffe_dictionary as dictionaries
from weights import test_matconvnet as matlab
from weights.networks import compute_logits, network

from alexnet_jax.data.augment import centre_crop
from alexnet_jax.data.photo import square_image
from alexnet_jax.weights.open_weights import open_weights

CLASSES = tuple(map(str, range(10)))


def iter_kinds(folder, crops):
    """Yields (kind, file, variant to name, the writing program's logits), one after another, for crops by size."""
    for kind, write in torch_files.KINDS.items():
        model = copy.deepcopy(torch_files.make_model(10))
        write(copy.deepcopy(model), folder / 'w')
        yield kind, folder / 'w', None, torch_files.compute_torch_logits(model, crops[224])
    if importlib.util.find_spec('torchvision'):
        from torchvision.models import alexnet

        model = alexnet(weights=None).eval()
        torch.save(torch_files.reference_checkpoint(model), folder / 'w')
        yield (
            "torchvision's alexnet, full size",
            folder / 'w',
            None,
            torch_files.compute_torch_logits(model, crops[224]),
        )
    for kind in ('w.keras', 'w.h5', 'w.weights.h5'):
        model = keras_files.make_functional(keras_files.make_chain([None] * 8))
        x = (crops[224] - keras_files.MEAN) / keras_files.STD
        yield f'Keras, {kind}', keras_files.save(model, folder / kind), None, keras_files.compute_keras_logits(model, x)
    mean = np.float32([123, 117, 104])
    model = keras_files.make_sequential(keras_files.make_chain(keras_files.NAMES, size=227), 227)
    path, expected = keras_files.save(model, folder / 'towers.weights.h5'), crops[227] - mean
    yield 'Keras, two towers', path, 'caffe_alexnet', keras_files.compute_keras_logits(model, expected)
    for old in (False, True):
        layers = matlab.layers_of(network('caffe_alexnet', classes=CLASSES, scale=1.5).params, old=old)
        path = matlab.save(folder / 'w.mat', {'layers': layers})
        expected = np.stack([matlab.simulate(layers, np.float64(crop - mean)) for crop in crops[227]])
        yield f'MatConvNet, {"old" if old else "new"} names', path, None, expected
    arrays = dictionaries.make_dictionary(network('caffe_alexnet', classes=CLASSES, scale=1.5).params, named=False)
    dictionaries.WRITERS['numpy.save of Python 2'](folder / 'w.npy', arrays)
    yield 'NumPy dictionary, as MatConvNet computes it', folder / 'w.npy', 'caffe_alexnet', expected


def main(folder, count=100):
    """Compares."""
    paths = sorted(path for path in pathlib.Path(folder).rglob('*') if path.suffix.lower() in ('.jpg', '.jpeg'))
    photos = [path.read_bytes() for path in paths[:: max(1, len(paths) // int(count))][: int(count)]]
    crops = {}
    for size, preprocessing in ((224, 'torchvision'), (227, 'caffe')):
        squares = (square_image(photo, preprocessing=preprocessing) for photo in photos)
        crops[size] = np.stack([centre_crop(square, size) for square in squares]).astype(np.float32)
    with tempfile.TemporaryDirectory() as name:
        for kind, path, variant, expected in iter_kinds(pathlib.Path(name), crops):
            net = open_weights(path, variant=variant)
            logits = compute_logits(net, crops[net.variant.input_size])
            difference = np.abs(logits - expected).max() / np.abs(expected).max()
            five, theirs = (np.argsort(-values, axis=1, kind='stable')[:, :5] for values in (logits, expected))
            same = int((five == theirs).all(axis=1).sum())
            print(f'{kind:44} {difference:.1e} apart, the same top-5 for {same} of {len(photos)}', flush=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
