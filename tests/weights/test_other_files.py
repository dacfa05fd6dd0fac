"""Files that people take for weights: each is called by its name, with what to do; and the export of a checkpoint."""

import importlib.util
import io
import pathlib
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from weights.networks import assert_same_params, network, write_npz

from alexnet_jax.errors import InputError
from alexnet_jax.weights.open_weights import open_weights


def pack(**files):
    data = io.BytesIO()
    with zipfile.ZipFile(data, 'w') as archive:
        for name, content in files.items():
            archive.writestr(name.replace('__', '.').replace('_s_', '/'), content)
    return data.getvalue()


def make_tar():
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode='w') as archive:
        archive.addfile(tarfile.TarInfo('w.pth'))
    return data.getvalue()


def make_npy():
    data = io.BytesIO()
    np.save(data, np.zeros(3))
    return data.getvalue()


@pytest.mark.parametrize(
    ('name', 'content', 'says'),
    [
        ('w.npy', make_npy(), r'no dictionary of bvlc_alexnet.*it is one array.*safetensors\.numpy\.save_file'),
        ('w.mat', b'MATLAB 5.0 MAT-file, Platform: GLNXA64', 'is the beginning of a MATLAB file.*copy it again'),
        ('w.mat', b'MATLAB 7.3 MAT-file, Platform: GLNXA64'.ljust(512) + b'\x89HDF\r\n\x1a\n', r'7\.3.*save\(.*-v7'),
        ('w.pkl', pickle.dumps({'conv1': [1.0]}, 0), r'a pickle of protocol 0.*protocol=2'),
        ('w.pkl', pickle.dumps({'conv1': [1.0]}, 1), r'a pickle of protocol 1.*protocol=2'),
        ('w.tflite', b'\x1c\0\0\0TFL3' + b'\0' * 99, 'is a TensorFlow Lite model'),
        ('w.pth.gz', b'\x1f\x8b\x08' + b'\0' * 99, r'is compressed \(gzip\).*unpack it'),
        ('w.tar', make_tar(), 'is a tar archive.*unpack it'),
        ('w.pth', b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n', 'Git LFS.*git lfs pull'),
        ('w.pth', b'\n<!DOCTYPE html><html>Not found</html>', 'is a page of text.*download it again'),
        ('w.json', b'{"architectures": ["AlexNet"], "x": 1}', 'is JSON, .*give the file of weights'),
        ('model.safetensors.index.json', b'{"metadata": 1}', r'give the \.safetensors file beside it'),
        ('deploy.prototxt', b'name: "AlexNet"\nlayer {\n', r'is a \.prototxt.*give the \.caffemodel'),
        ('model.ckpt.data-00000-of-00001', b'\0' * 99, r'TensorFlow checkpoint'),
        ('w.msgpack', b'\x81\xa6params' + b'\0' * 99, r'Flax msgpack.*flax\.serialization'),
        ('w.pt2', pack(w_s_models_s_model__json='{}'), r'torch\.export\.load\(.*\.state_dict, FILE\)'),
        ('w.zip', pack(w__pth='x'), 'is a zip archive without .*unpack it'),
        ('w.bin', b'\0' * 99, 'is no file of weights that is known here: safetensors, ONNX'),
    ],
)
def test_open_weights_says_what_other_files_are(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says) as refused:
        open_weights(tmp_path / name)
    assert str(refused.value).startswith(str(tmp_path / name)) and len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize('content', [b'\x89HDF\r\n\x1a\n' + b'\0' * 99, pack(model__weights__h5='x')])
def test_open_weights_says_what_reads_keras_files(tmp_path, monkeypatch, content):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda _: None)
    (tmp_path / 'w').write_bytes(content)
    with pytest.raises(
        InputError, match=r"as Keras writes it, and h5py reads that: pip install 'alexnet-jax\[keras\]'$"
    ):
        open_weights(tmp_path / 'w')


def test_open_weights_says_what_a_folder_is(tmp_path):
    with pytest.raises(InputError, match='a run is given as --workdir=runs/NAME'):
        open_weights(tmp_path)
    for name in ('.metadata', '__0_0.distcp'):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=rf"dcp_to_torch_save\('{tmp_path}', FILE\)"):
        open_weights(tmp_path)
    (tmp_path / '.metadata').unlink()
    (tmp_path / 'saved_model.pb').touch()
    with pytest.raises(InputError, match=r'is a TensorFlow SavedModel, .*load it with TensorFlow'):
        open_weights(tmp_path)
    (tmp_path / 'saved_model.pb').unlink()
    (tmp_path / 'config.json').touch()
    with pytest.raises(InputError, match=f'a run is given as --workdir={tmp_path}'):
        open_weights(tmp_path)
    (tmp_path / 'w.pth').touch()
    with pytest.raises(InputError, match=f'give a file of it, such as --weights={tmp_path}/w.pth'):
        open_weights(tmp_path)


def test_load_npz_reads_an_exported_checkpoint(tmp_path):
    net, path = network('released', without=('norm2',)), tmp_path / 'w.npz'
    config = {'variant': 'released', 'width': 0.0625, 'without': ['norm2', 'lighting']}
    write_npz(path, net, {'config': config, 'classes': list(net.classes)})
    found = open_weights(path)
    assert (found.name, found.classes, found.about['step']) == (net.name, net.classes, 7)
    assert_same_params(found.params, net.params)
    np.testing.assert_array_equal(found.mean_image, net.mean_image)
    write_npz(path, net, {'config': config})  # of an earlier version
    assert (open_weights(path).classes, open_weights(path).preprocessing) == (('0', '1', '2'), 'paper')
    write_npz(path, net, {'config': config, 'preprocessing': 'caffe'})
    assert open_weights(path).preprocessing == 'caffe'


def test_load_npz_keeps_the_units(tmp_path):
    net, path = network('released', activation='sigmoid'), tmp_path / 'w.npz'
    config = {'variant': 'released', 'width': 0.0625, 'activation': 'sigmoid'}
    write_npz(path, net, {'config': config})
    assert open_weights(path).name == net.name
    write_npz(path, net, {'config': config | {'activation': 'swish'}})
    with pytest.raises(InputError, match=r'holds a network that this version does not know: .* swish'):
        open_weights(path)


def test_load_npz_refuses_what_was_changed(tmp_path):
    net, path = network('released'), tmp_path / 'w.npz'
    config = {'config': {'variant': 'released'}}
    for about, says in [
        ({'config': None}, 'does not say which network it is: .*--variant=NAME --to=safetensors'),
        (config | {'params_sha256': '0'}, 'do not have the hash that it names; export it again'),
        (config | {'classes': ['a']}, 'it names 1 classes for 3 outputs'),
        (config | {'preprocessing': 'squeezed'}, "it names preprocessing 'squeezed'; export it again"),
        ({'config': 3}, 'is damaged: it is not what alexnet checkpoint export writes'),
    ]:
        write_npz(path, net, about)
        with pytest.raises(InputError, match=says):
            open_weights(path)
    write_npz(path, net, {'config': None})
    assert open_weights(path, variant='released').name == net.name  # as the message says
    write_npz(path, net, config, write=np.savez_compressed)
    with pytest.raises(InputError, match='it is compressed, which an export is not'):
        open_weights(path)
    data = bytearray(pathlib.Path(path).read_bytes())
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match='is not read: File is not a zip file'):
        open_weights(path)
