"""Damaged and forged files of weights are opened as what they were, or refused in one line; nothing of them is run."""

import resource
import struct
import time

import hypothesis
import jax
import numpy as np
import pytest
import safetensors.numpy
import scipy.io
from fuzzing import fuzzed, outcome
from hypothesis import strategies as st
from weights.foreign import (
    blob,
    bvlc_onnx,
    caffe_weights,
    caffemodel,
    items,
    save_torch,
    torch_tensor,
    torchvision_tensors,
    varint,
    write_legacy_file,
)
from weights.matlab import matconvnet_layers, matlab_cell
from weights.networks import network, write_npz

from alexnet_jax.errors import InputError
from alexnet_jax.weights import onnx_write, safetensors_file, torchvision
from alexnet_jax.weights.open_weights import open_weights

WIDTH = 0.02
SECONDS = 3  # of CPU time, for one file
MEGABYTES = 300  # by which the process may grow
ASKED = {'npy': 'caffenet'}  # --variant of files that do not say it
OWN = ('safetensors', 'onnx', 'npz', 'written for torchvision')


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """{kind: (the bytes of a file, the network in it)}."""
    folder = tmp_path_factory.mktemp('whole')
    one, two, caffe = (network(name, width=WIDTH) for name in ('one_weird_trick', 'released', 'caffenet'))
    safetensors_file.save_safetensors(two, folder / 'safetensors')
    onnx_write.save_onnx(two, folder / 'onnx')
    torchvision.save_torchvision(one, folder / 'written for torchvision')
    tensors = torchvision_tensors(one.params)
    save_torch(folder / 'pth', tensors)
    builds = {name: torch_tensor(str(key), x, legacy=True) for key, (name, x) in enumerate(tensors.items())}
    write_legacy_file(
        folder / 'pth, before the zip', items(builds), {str(i): x for i, x in enumerate(tensors.values())}
    )
    write_npz(folder / 'npz', two, {'config': {'variant': 'released', 'width': WIDTH}, 'classes': two.classes})
    safetensors.numpy.save_file(tensors, folder / 'torchvision')
    weights = caffe_weights(caffe.params)
    (folder / 'bvlc onnx').write_bytes(bvlc_onnx(caffe_weights(network('caffe_alexnet', width=WIDTH).params)))
    (folder / 'caffemodel').write_bytes(caffemodel(weights))
    (folder / 'caffemodel v1').write_bytes(caffemodel(weights, v1=True, legacy=True, norm_first=False))
    (folder / 'caffemodel, loose').write_bytes(caffemodel(weights, packed=False, double=True))
    layers = matconvnet_layers({title: (x['kernel'], x['bias']) for title, x in caffe.params.items()}, norm_first=False)
    for compressed in (False, True):
        values = {'layers': matlab_cell(layers), 'meta': {'classes': {'name': matlab_cell(['a', 'b', 'c'])}}}
        with (folder / f'mat, {"un" * (not compressed)}compressed').open('wb') as file:
            scipy.io.savemat(file, values, do_compression=compressed)
    with (folder / 'npy').open('wb') as file:
        np.save(file, {title: [x['kernel'], x['bias']] for title, x in caffe.params.items()})
    files = sorted(folder.iterdir())
    return {file.name: (file.read_bytes(), open_weights(file, variant=ASKED.get(file.name))) for file in files}


# Where: mostly near a beginning or an end, where the headers are, or where another chunk of a .pth begins.
PLACE = st.tuples(st.sampled_from(['start', 'end', 'anywhere', 'PK', 'sign']), st.integers(0, 2**32))
NUMBER = st.one_of(
    st.binary(min_size=1, max_size=8),
    st.integers(0, 2**64 - 1).map(varint),
    st.sampled_from([0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1]).map(lambda n: struct.pack('<Q', n)),
    st.sampled_from([b'cos\nsystem\n', b'R', b'Q', b'u', b'(', b'.', b'\x0a', b'\x2d', b'{', b'"', b'[1e999]']),
)
EDITS = st.lists(
    st.tuples(PLACE, st.sampled_from(['write', 'insert', 'remove', 'flip']), NUMBER), min_size=1, max_size=4
)
CUT = st.none() | st.none() | st.floats(0, 1)


def find_place(data, where, number):
    if where == 'start':
        return number % min(len(data), 3000)
    if where == 'end':
        return len(data) - 1 - number % min(len(data), 3000)
    if where in ('PK', 'sign'):
        found = data.find(b'PK' if where == 'PK' else b'/kernel', number % len(data))
        return max(found, 0)
    return number % len(data)


def forge(data, edits, cut):
    data = bytearray(data)
    for (where, number), how, value in edits:
        start = find_place(data, where, number)
        if how == 'flip':
            data[start] ^= 1 << value[0] % 8
        elif how == 'write':
            data[start : start + len(value)] = value[: len(data) - start]
        else:
            data[start : start + (len(value) if how == 'remove' else 0)] = value if how == 'insert' else b''
        data = data or bytearray(b'\0')
    return bytes(data if cut is None else data[: int(cut * len(data))])


def get_peak_megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def are_equal(found, expected):
    return all(map(np.array_equal, jax.tree.leaves(found), jax.tree.leaves(expected)))


@fuzzed(200)
@hypothesis.given(st.data(), EDITS, CUT)
def test_open_weights_reads_or_refuses_forged_files(whole, tmp_path, monkeypatch, data, edits, cut):
    monkeypatch.chdir(tmp_path)
    kind = data.draw(st.sampled_from(sorted(whole)))
    content, original = whole[kind]
    (tmp_path / 'w').write_bytes(forge(content, edits, cut))
    memory, clock = get_peak_megabytes(), time.process_time()
    found = outcome(f'weights, {kind}', lambda: open_weights(tmp_path / 'w', variant=ASKED.get(kind)), InputError)
    assert time.process_time() - clock < SECONDS
    assert get_peak_megabytes() - memory < MEGABYTES
    assert [file.name for file in tmp_path.iterdir()] == ['w']
    if isinstance(found, InputError):
        return
    if kind in OWN:  # their arrays have hashes
        assert found.name == original.name
        assert are_equal((found.params, found.mean_image), (original.params, original.mean_image))
    else:
        assert jax.tree.map(np.shape, found.params) == jax.tree.map(np.shape, original.params)
        assert all(x.dtype == np.float32 and np.isfinite(x).all() for x in jax.tree.leaves(found.params))


@fuzzed(50)
@hypothesis.given(EDITS, CUT)
def test_parse_mean_reads_or_refuses_forged_files(whole, tmp_path, edits, cut):
    (tmp_path / 'w').write_bytes(whole['caffemodel'][0])
    image = np.random.default_rng(0).uniform(0, 255, (1, 3, 256, 256))
    (tmp_path / 'mean').write_bytes(forge(blob(image, legacy=True), edits, cut))
    found = outcome('mean image', lambda: open_weights(tmp_path / 'w', mean=str(tmp_path / 'mean')), InputError)
    if not isinstance(found, InputError):
        assert found.mean_image.shape in ((256, 256, 3), (227, 227, 3)) and found.mean_image.dtype == np.float32
        assert found.mean_image.min() >= 0 and found.mean_image.max() <= 255
