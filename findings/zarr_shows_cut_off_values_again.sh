#!/usr/bin/env bash
# zarr 3.1.6 and tensorstore 0.1.86: an array that is cut to n rows and grown again has its old values behind row n, up to the end
# of the chunk or, in zarr, of the shard; HDF5 has the fill value.
#
# Guess: resize drops what lies outside ("any chunks falling outside the new array shape will be deleted"), and what is grown
#        reads as fill_value.
# Seen: only whole chunks are deleted. The one that holds the new end stays as it is, and growing shows it again: so in formats
#       2 and 3, N5, and both libraries; with shards zarr keeps all of a shard, chunks that lie wholly outside as well. A table of
#       per-step metrics or per-image features that is cut to step n when a run is resumed, and grown for what is to come,
#       then holds the abandoned run's rows as though they had been computed; a reader that takes fill_value for "not there
#       yet" is deceived. append writes over them; resize and a write to a later place do not. (Issue 1017 of zarr-python; TensorStore's reference says it.)
# What to do: write fill_value over the rows before they are cut off.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check zarr==3.1.6 tensorstore==0.1.86 h5py==3.14.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import h5py
import numpy as np
import tensorstore
import zarr

ROWS, KEPT, FILL = 16, 9, -1
values = np.arange(ROWS, dtype=np.int32)


def expect(name, found, old):
    """Checks that rows KEPT to old have their old values and all behind have FILL."""
    print(f'{name}: {np.asarray(found).tolist()}')
    truth = np.where(np.arange(ROWS) < old, values, FILL)
    assert (np.asarray(found) == truth).all(), name


def cut_and_grow(array):
    array[:] = values
    array.resize((KEPT,))
    array.resize((ROWS,))
    return array[:]


for zarr_format in (2, 3):
    options = {'shape': (ROWS,), 'dtype': 'i4', 'fill_value': FILL, 'zarr_format': zarr_format}
    expect(f'zarr, format {zarr_format}', cut_and_grow(zarr.create_array(f'z{zarr_format}', chunks=(4,), **options)), 12)
expect('zarr, shards', cut_and_grow(zarr.create_array('shards', chunks=(4,), shards=(8,), **options)), 16)

regular = {'name': 'regular', 'configuration': {'chunk_shape': [4]}}
for driver, metadata in {
    'zarr': {'shape': [ROWS], 'chunks': [4], 'dtype': '<i4', 'fill_value': FILL},
    'zarr3': {'shape': [ROWS], 'data_type': 'int32', 'fill_value': FILL, 'chunk_grid': regular},
}.items():
    kvstore = {'driver': 'file', 'path': f'{driver}_tensorstore'}
    store = tensorstore.open({'driver': driver, 'kvstore': kvstore, 'metadata': metadata}, create=True).result()
    store[...] = values
    store = store.resize(exclusive_max=[KEPT]).result()
    store = store.resize(exclusive_max=[ROWS]).result()
    expect(f'tensorstore, {driver}', store.read().result(), 12)

with h5py.File('rows.h5', 'w') as file:
    dataset = file.create_dataset('rows', (ROWS,), 'i4', maxshape=(None,), chunks=(4,), fillvalue=FILL)
    expect('HDF5', cut_and_grow(dataset), KEPT)
PYTHON
echo 'unchanged: zarr 3.1.6 and tensorstore 0.1.86 show cut-off values again'
