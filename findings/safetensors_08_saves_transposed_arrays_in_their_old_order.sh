#!/usr/bin/env bash
# safetensors 0.8.0: a transposed NumPy array is saved with its new shape and the bytes of its old order; 0.7.0 saves it right.
#
# Guess: save_file writes what the array says, as np.save does and safetensors did for years, or refuses a view as
#        safetensors.torch does.
# Seen: since 0.8.0 the array's memory is written as it lies. A kernel that was transposed from (height, width, in, out) to
#       (out, in, height, width), the step between Flax or TensorFlow and PyTorch, has the right shape, dtype and mean in the
#       file and every weight in another place; so has all that scipy.io.loadmat reads, which is in Fortran's order. The
#       docstring has long asked for "contiguous" arrays; nothing checks it (issue 825 of safetensors).
# What to do: np.ascontiguousarray around every array that is saved, and compare a file with what it was made from.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >save.py <<'PYTHON'
import sys

import numpy as np
import scipy.io
from safetensors.numpy import load_file, save_file

kernel = np.arange(3 * 3 * 2 * 4, dtype=np.float32).reshape(3, 3, 2, 4)
scipy.io.savemat('weights.mat', {'kernel': kernel})
arrays = {
    'as it is': kernel,
    'transposed': kernel.transpose(3, 2, 0, 1),
    'transposed and copied': np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)),
    'read by loadmat': scipy.io.loadmat('weights.mat')['kernel'],
}
save_file(arrays, 'weights.safetensors')
loaded = load_file('weights.safetensors')
equal = {name: np.array_equal(loaded[name], array) for name, array in arrays.items()}
print(sys.argv[1], equal)
assert all(loaded[name].shape == array.shape and loaded[name].sum() == array.sum() for name, array in arrays.items())
old = sys.argv[1] == '0.7.0'
assert equal == {'as it is': True, 'transposed': old, 'transposed and copied': True, 'read by loadmat': old}
if not old:
    assert np.array_equal(loaded['transposed'].ravel(), kernel.ravel())  # the memory as it lay
PYTHON
python3 -m venv venv
for version in 0.7.0 0.8.0; do
    venv/bin/pip install --quiet --disable-pip-version-check "safetensors==$version" scipy==1.17.1 numpy==2.4.6
    venv/bin/python save.py "$version"
done
echo 'unchanged: safetensors 0.8.0 saves transposed arrays in their old order, 0.7.0 does not'
