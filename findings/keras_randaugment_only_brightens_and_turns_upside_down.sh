#!/usr/bin/env bash
# Keras 3.15.1: RandAugment turns images by up to 180 degrees and moves them by up to half their size, each in one direction only,
# makes them brighter and never darker, and gives all images of a batch the same operations; AugMix ignores its seed.
#
# Guess: the defaults are near the paper's (rotation to 30 degrees, a sign drawn at random for each geometric operation), and
#        "num_ops: operations to apply to each image" are drawn for each image; AugMix(seed=7) is reproducible as RandomFlip is.
# Seen: factor=0.5 becomes (0, 0.5) of every operation's own unit: of a whole turn for rotation, of the image for translation, of
#       the range for brightness. Nothing is ever turned or moved the other way, darkened or given less contrast; one batch
#       in six is rotated, by 90 degrees on average. The two operations are one draw a batch; strengths are drawn for each
#       image. AugMix chooses operations by Python's random module: two layers of one seed choose differently, unless
#       random.seed is called as well.
# What to do: factor=0.08 for the paper's 30 degrees, with random flips around it; random.seed before AugMix.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check keras==3.15.1 jax==0.10.2 \
    jaxlib==0.10.2 numpy==2.4.6 scipy==1.17.1
cd "$folder"
KERAS_BACKEND=numpy KERAS_HOME=$folder "$folder/venv/bin/python" -W ignore - <<'PYTHON'
import random

import keras
import numpy as np

BATCH = 64
images = np.random.default_rng(0).integers(0, 256, (BATCH, 16, 16, 3)).astype(np.float32)

augment = keras.layers.RandAugment(seed=0)
augment.build(images.shape)
draws = [augment.get_random_transformation(images, training=True) for _ in range(8)]


def collect(operation, key):
    """Returns what was drawn for an operation, of all images of all batches."""
    return np.concatenate([np.asarray(draw['transforms'][operation][key]).reshape(BATCH, -1) for draw in draws])


degrees, pixels = collect('random_rotation', 'angle'), collect('random_translation', 'translations')
levels, contrast = collect('random_brightness', 'rgb_delta'), collect('random_contrast', 'contrast_factor')
for name, values in {'degrees': degrees, 'pixels of 16': pixels, 'levels of 255': levels, 'contrast': contrast}.items():
    print(f'{name}: {values.min():.2f} to {values.max():.2f}, mean {values.mean():.2f}')
assert 0 <= degrees.min() and 170 < degrees.max() <= 180
assert 0 <= pixels.min() and 7 < pixels.max() <= 8
assert 0 <= levels.min() and 120 < levels.max() <= 127.5
assert 1 <= contrast.min() and contrast.max() <= 1.5
operations = [np.asarray(draw['layer_idxes']).tolist() for draw in draws]
print('operations of each batch of', BATCH, 'images:', operations)
assert all(len(chosen) == 2 for chosen in operations)

# The same in pixels: of grey images none gets darker, whatever was drawn for brightness.
grey = np.full((BATCH, 8, 8, 3), 128, np.float32)
brighter = np.asarray(keras.layers.RandomBrightness(augment.factor, seed=1)(grey, training=True)).mean((1, 2, 3))
assert augment.factor == (0, 0.5) and (brighter >= 128).all() and brighter.max() > 200


def choose():
    layer = keras.layers.AugMix(seed=7)
    layer.build(images.shape)
    chains = layer.get_random_transformation(images, training=True)['chain_transforms']
    return [[step['layer_name'] for step in chain] for chain in chains]


chosen = [choose() for _ in range(6)]
print('AugMix(seed=7):', *chosen[:2])
assert any(other != chosen[0] for other in chosen)
for number in range(2):
    random.seed(0)
    chosen[number] = choose()
assert chosen[0] == chosen[1]
flips = [np.asarray(keras.layers.RandomFlip('horizontal', seed=7)(images, training=True)) for _ in range(2)]
assert np.array_equal(*flips)
PYTHON
echo 'unchanged: RandAugment of Keras 3.15.1 goes one way only; AugMix ignores its seed'
