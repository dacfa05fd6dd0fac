#!/usr/bin/env bash
# Keras 3.15.1 with h5py: load_weights of a .weights.h5 gives each layer the weights of the layer of its class that stood at its
# place, though the file holds the names; two towers that were joined in the other order have swapped weights.
#
# Guess: layers that were given names get the weights of these names, or load_weights raises; with skip_mismatch=True what has
#        no counterpart is left out.
# Seen: paths in the file are counted by class (conv2d, conv2d_1), in the order in which the graph is walked, and the names,
#       attributes of the file, are not read. AlexNet's two towers, joined as (lower, upper) where they were saved as (upper,
#       lower), are swapped without a word: outputs are wrong, shapes are right. skip_mismatch=True with a layer put in
#       front, as for fine-tuning: each layer gets its successor's weights and the last none. by_name=True is refused.
# What to do: compare the names in the file with those at the same places in the model, or copy layer by layer by name.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check keras==3.15.1 h5py==3.14.0 jax==0.10.2 jaxlib==0.10.2 \
    numpy==2.4.6
cd "$folder"
KERAS_BACKEND=jax KERAS_HOME=$folder JAX_PLATFORMS=cpu "$folder/venv/bin/python" -W ignore - <<'PYTHON'
import h5py
import keras
import numpy as np
from keras import layers

FILE = 'saved.weights.h5'


def towers(*order):
    image = keras.Input((8, 8, 3))
    made = {name: layers.Conv2D(4, 3, name=name)(image) for name in ('upper', 'lower')}
    return keras.Model(image, layers.Concatenate()([made[name] for name in order]))


def stack(*names):
    value = start = keras.Input((4,))
    for name in names:
        value = layers.Dense(4, name=name)(value)
    return keras.Model(start, value)


def origins(saved, model, **options):
    """Returns whose weights each layer of a model has after it has loaded those of another."""
    saved.save_weights(FILE)
    model.load_weights(FILE, **options)
    kernels = {layer.name: np.asarray(layer.kernel) for layer in saved.layers if layer.weights}
    found = {
        layer.name: next((name for name, kernel in kernels.items() if np.array_equal(kernel, layer.kernel)), None)
        for layer in model.layers
        if layer.weights
    }
    print('; '.join(f'{layer} has the weights of {name}' for layer, name in found.items()))
    return found


assert origins(towers('upper', 'lower'), towers('upper', 'lower')) == {'upper': 'upper', 'lower': 'lower'}
assert origins(towers('upper', 'lower'), towers('lower', 'upper')) == {'upper': 'lower', 'lower': 'upper'}
with h5py.File(FILE) as file:
    names = {path: file['layers'][path]['vars'].attrs['name'] for path in ('conv2d', 'conv2d_1')}
print('names in the file:', names)
assert names == {'conv2d': 'upper', 'conv2d_1': 'lower'}
found = origins(stack('one', 'two'), stack('new', 'one', 'two'), skip_mismatch=True)
assert found == {'new': 'one', 'one': 'two', 'two': None}
try:
    stack('one', 'two').load_weights(FILE, by_name=True)
    raise AssertionError('by_name=True was taken')
except ValueError as error:
    print('by_name=True:', error)
PYTHON
echo 'unchanged: Keras 3.15.1 loads .weights.h5 by the order of layers, not by their names'
