#!/usr/bin/env bash
# pyarrow 26.0.1: FixedShapeTensorArray.from_numpy_ndarray of a batch that was flipped by a negative stride gives back images of the
# right shape with their pixels in other places; single tensors of a transposed batch come back wrong as well.
#
# Guess: an array that cannot be kept as it lies is copied or refused (reversing the batch itself is), and what is accepted comes back.
# Seen: the axes are sorted by stride, and a negative one counts as the smallest. images[:, :, ::-1], the horizontal flip of
#       (n, height, width, 3), is recorded as (height, 3, width) with the last two axes swapped, over values in another
#       order: to_numpy_ndarray, each element's to_numpy and a Parquet file all give colours for columns. [..., ::-1], BGR to
#       RGB, is right, because the last axis is the smallest anyway. A batch of (n, 3, height, width) seen as channels-last comes
#       back as (n, width, 3, height). Of a transposed (n, rows, columns) the array comes back right, and array[i] is wrong with
#       the right shape, or raises, by the sizes.
# What to do: np.ascontiguousarray before from_numpy_ndarray.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import pyarrow as pa
import pyarrow.parquet

images = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 3), np.uint8)


def store(name, batch):
    """Returns the tensor array of a batch, and the batch as NumPy has it again."""
    array = pa.FixedShapeTensorArray.from_numpy_ndarray(batch)
    found = array.to_numpy_ndarray()
    print(f'{name}: {batch.shape} comes back as {found.shape}, equal: {np.array_equal(found, batch)}')
    return array, found


flipped = images[:, :, ::-1]
array, found = store('flipped left to right', flipped)
assert found.shape == flipped.shape and not np.array_equal(found, flipped)
assert all(array[i].to_numpy().shape == (5, 4, 3) and not np.array_equal(array[i].to_numpy(), flipped[i]) for i in range(3))
assert np.array_equal(found, flipped.reshape(3, 5, 3, 4).swapaxes(2, 3))  # what became of the pixels
pa.parquet.write_table(pa.table({'image': array}), 'images.parquet')
again = pa.parquet.read_table('images.parquet')['image'].combine_chunks().to_numpy_ndarray()
assert np.array_equal(again, found)

assert np.array_equal(store('BGR to RGB', images[..., ::-1])[1], images[..., ::-1])
assert np.array_equal(store('flipped and copied', np.ascontiguousarray(flipped))[1], flipped)
try:
    store('the batch in reverse', images[::-1])
    raise SystemExit('was accepted')
except ValueError as error:
    print('the batch in reverse:', error)

channels_first = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
assert store('channels-last view of channels-first', channels_first.transpose(0, 2, 3, 1))[1].shape == (3, 4, 3, 5)

matrices = np.arange(24).reshape(2, 3, 4).transpose(0, 2, 1)
array, found = store('transposed matrices', matrices)
assert np.array_equal(found, matrices)
for i in range(2):
    single = array[i].to_numpy()
    assert single.shape == (4, 3) and not np.array_equal(single, matrices[i])
print('transposed matrices, one by one:', array[0].to_numpy().tolist(), 'for', matrices[0].tolist())
PYTHON
echo 'unchanged: tensor arrays of pyarrow 26.0.1 scramble flipped images'
