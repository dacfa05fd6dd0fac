"""torchvision's state dicts without PyTorch: as .pth, of which nothing is run, and as safetensors, both ways."""

import dataclasses
import pickletools
import struct
import zipfile

import numpy as np
import pytest
import safetensors.numpy
from weights.foreign import (
    TORCHVISION,
    caffe_weights,
    number,
    save_torch,
    state_dict_program,
    text,
    torch_tensor,
    torchvision_tensors,
    write_torch_file,
)
from weights.networks import assert_same, assert_same_params, network

from alexnet_jax.errors import InputError
from alexnet_jax.model.zoo import VARIANTS
from alexnet_jax.weights import torch_file, torch_pickle, torchvision
from alexnet_jax.weights.metadata import get_mean_colour, make_flat_mean
from alexnet_jax.weights.open_weights import open_weights


@pytest.fixture(scope='module')
def original():
    return network('one_weird_trick')


def test_load_state_dict_reads_a_pth_with_torchvisions_mean(tmp_path, original):
    save_torch(tmp_path / 'w.pth', torchvision_tensors(original.params))
    found = open_weights(tmp_path / 'w.pth')
    assert found.name == original.name and found.classes == ('0', '1', '2')
    assert_same_params(found.params, original.params)
    mean = np.broadcast_to(np.float32([0.485 * 255, 0.456 * 255, 0.406 * 255]), (224, 224, 3))
    np.testing.assert_array_equal(found.mean_image, mean)


def test_load_state_dict_reads_safetensors(tmp_path, original):
    tensors = {f'module.{name}': array for name, array in torchvision_tensors(original.params).items()}
    safetensors.numpy.save_file(tensors, tmp_path / 'w')
    assert_same_params(open_weights(tmp_path / 'w').params, original.params)


def test_save_torchvision_writes_names_axes_and_mean_colour(tmp_path, original):
    notes = torchvision.save_torchvision(original, tmp_path / 'w')
    tensors = safetensors.numpy.load_file(tmp_path / 'w')
    expected = torchvision_tensors(original.params)
    assert tensors.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(tensors[name], array, name)
    with safetensors.safe_open(tmp_path / 'w', framework='numpy') as file:
        assert file.metadata()['format'] == 'pt'
    colour = get_mean_colour(original.mean_image)
    flat = dataclasses.replace(original, mean_image=make_flat_mean(colour, 224))
    assert_same(open_weights(tmp_path / 'w'), flat)
    assert f'mean=({colour[0] / 255:.4f}, ' in notes[0]
    off = np.abs(flat.mean_image - original.mean_image).max()
    assert off > 30 and f'differs from it by up to {off:.1f} of 255' in notes[1]
    assert len(torchvision.save_torchvision(flat, tmp_path / 'w')) == 1


@pytest.mark.parametrize(
    ('variant', 'without'),
    [*((variant, ()) for variant in VARIANTS if variant != 'one_weird_trick'), ('one_weird_trick', ('overlap',))],
)
def test_save_torchvision_refuses_other_networks(tmp_path, variant, without):
    with pytest.raises(InputError, match=f'torchvision has no {variant}.*--to=safetensors or --to=onnx'):
        torchvision.save_torchvision(network(variant, without=without), tmp_path / 'w')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('kind', ['HalfStorage', 'BFloat16Storage', 'DoubleStorage'])
def test_read_torch_reads_other_floating_types(tmp_path, kind):
    values = np.float32([[1.5, -2.25], [0.125, 3e4]])
    stored = {
        'HalfStorage': values.astype('<f2'),
        'BFloat16Storage': (values.view(np.uint32) >> 16).astype('<u2'),
        'DoubleStorage': values.astype('<f8'),
    }[kind]
    program = state_dict_program({'w': torch_tensor('0', stored, kind=kind)})
    write_torch_file(tmp_path / 'w', program, {'0': stored.tobytes()})
    (found,) = torch_file.read_torch(tmp_path / 'w').values()
    expected = {'BFloat16Storage': [[1.5, -2.25], [0.125, 29952]]}.get(kind, values)  # 8 bits of mantissa
    np.testing.assert_array_equal(found, expected)


def test_read_torch_applies_offsets_and_strides(tmp_path):
    numbers = np.arange(24, dtype='<f4')
    program = state_dict_program({'w': torch_tensor('0', numbers, offset=2, size=(3, 4), stride=(1, 5))})
    write_torch_file(tmp_path / 'w', program, {'0': numbers.tobytes()})
    expected = [[2 + i + 5 * j for j in range(4)] for i in range(3)]
    assert torch_file.read_torch(tmp_path / 'w')['w'].tolist() == expected


CALLS = b'cos\nsystem\n' + text('touch RAN') + b'\x85R.'
CALLS_BY_STACK = b'\x80\x04' + text('os') + text('system') + b'\x93' + text('touch RAN') + b'\x85R.'
TWICE = b'\x80\x02)' + b'2' * 60 + b'.'


def deep(count):
    """A tuple of two of a tuple of two of ...: 2^count of them, in `count` instructions, as the key of a dictionary."""
    return b'\x80\x02}(' + b')' + b'q\x00h\x00\x86' * count + number(1) + b'u.'


@pytest.mark.parametrize(
    ('program', 'says'),
    [
        (b'\x80\x02' + CALLS, 'it wants os.system, and only tensors are read; nothing of it was run'),
        (CALLS_BY_STACK, 'it wants os.system'),
        (b'\x80\x02ctorch.nn\nModule\n)R.', r'it wants torch.nn.Module'),
        (b'\x80\x02cbuiltins\neval\n' + text('1') + b'\x85R.', 'it wants builtins.eval'),
        (TWICE, 'the instruction DUP, which no state dict needs'),
        (b'\x80\x02(dp0\nS"a"\nI1\ns.', 'the instruction DICT'),
        (b'\x80\x02iposix\nsystem\n.', 'the instruction INST'),
        (b'\x80\x02\x82\x01.', 'the instruction EXT1'),
        (b'\x80\x02\x7f.', 'the instruction 127'),
        (b'\x80\x02}(' + text('a') + number(1) + b'u.', 'it is no dictionary of tensors'),
        (b'\x80\x02N.', 'it is no dictionary of tensors'),
        (b'\x80\x02}}' + number(1) + b's.', 'it is no dictionary of tensors'),
        (deep(60), 'it is no dictionary of tensors'),
        (b'\x80\x05\x91.', 'its pickle is damaged'),
        (b'\x80\x05' + b'\x96' + b'\xff' * 8 + b'.', 'the instruction BYTEARRAY8'),
        (b'\x80\x02u.', 'its pickle is damaged'),
        (b'\x80\x02h\x05.', 'its pickle is damaged'),
        (b'\x80\x02}', 'its pickle is damaged'),
        (b'\x80\x02' + b'}0' * 60_000 + b'.', 'instruction POP'),
        (b'\x80\x02' + b']' * 200_000 + b'.', 'it is no dictionary of tensors'),
        (b'\x80\x02' + b'}' * 2**20 + b'.', 'a data.pkl of 1,048,579 bytes'),
        (b'\x80\x02]r\xff\xff\xff\x3f.', 'it is no dictionary of tensors'),
        (b'\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b.', 'holds a Global where a'),
        (b'\x80\x02' + b'X' + struct.pack('<I', 2**31) + b'a.', 'its pickle is damaged'),
        (b'\x80\x02(K\x01Q.', 'refers to a storage in a way that PyTorch does not'),
        (
            b'\x80\x02ccollections\nOrderedDict\n' + text('a') + b'\x85R.',
            r'calls collections\.OrderedDict with what it does not take',
        ),
    ],
)
def test_read_torch_refuses_other_programs(tmp_path, program, says, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_torch_file(tmp_path / 'w.pth', program, {})
    with pytest.raises(InputError, match=says) as refused:
        open_weights(tmp_path / 'w.pth')
    assert 'Save the state dict as safetensors' in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ['w.pth']


def test_unpickler_allows_a_closed_list_of_names_and_instructions():
    """Tensors need a few; whoever adds one has to know what it can be made to do."""
    kinds = ('Float', 'Half', 'Double', 'BFloat16', 'Long', 'Int', 'Short', 'Char', 'Byte', 'Bool')
    rebuilt = {f'torch._utils._rebuild_{what}' for what in ('tensor', 'tensor_v2', 'parameter', 'parameter_with_state')}
    names = {'collections.OrderedDict', 'torch.nn.parameter.Parameter', *rebuilt}
    assert names | {f'torch.{kind}Storage' for kind in kinds} == torch_pickle.GLOBALS
    codes = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
    assert {codes[opcode] for opcode in torch_pickle.Unpickler.dispatch} == {
        *('PROTO', 'FRAME', 'STOP', 'MARK', 'NONE', 'NEWTRUE', 'NEWFALSE', 'BININT', 'BININT1', 'BININT2', 'LONG1'),
        *('BINFLOAT', 'BINUNICODE', 'SHORT_BINUNICODE', 'BINSTRING', 'SHORT_BINSTRING', 'BINBYTES', 'SHORT_BINBYTES'),
        *('EMPTY_DICT', 'EMPTY_LIST', 'EMPTY_TUPLE', 'EMPTY_SET', 'APPEND', 'APPENDS', 'ADDITEMS', 'FROZENSET'),
        *('TUPLE', 'TUPLE1', 'TUPLE2', 'TUPLE3', 'SETITEM', 'SETITEMS', 'BINPUT', 'LONG_BINPUT', 'MEMOIZE', 'BINGET'),
        *('LONG_BINGET', 'GLOBAL', 'STACK_GLOBAL', 'BINPERSID', 'REDUCE', 'BUILD', 'NEWOBJ', 'NEWOBJ_EX'),
    }


ONES = np.ones(6, '<f4')


@pytest.mark.parametrize(
    ('options', 'says'),
    [
        ({'count': 7}, 'storage 0 has 24 bytes for 7 numbers'),
        ({'offset': 6}, 'a tensor reaches past storage 0'),
        ({'offset': -1}, 'of a negative size'),
        ({'size': (2, 2), 'stride': (4, 2)}, 'a tensor reaches past storage 0'),
        ({'size': (2, 2), 'stride': (1,)}, 'more steps than sizes'),
        ({'size': (2**31 - 1,) * 4, 'stride': (0,) * 4}, 'too large to be true'),
        ({'size': (0,), 'stride': (1,)}, 'or of none'),
        ({'kind': 'CharStorage'}, 'storage 0 has 24 bytes for 6 numbers'),
        ({'kind': 'QInt8Storage'}, 'it wants torch.QInt8Storage'),
    ],
)
def test_read_torch_keeps_tensors_within_storages(tmp_path, options, says):
    write_torch_file(
        tmp_path / 'w', state_dict_program({'w': torch_tensor('0', ONES, **options)}), {'0': ONES.tobytes()}
    )
    with pytest.raises(InputError, match=says):
        torch_file.read_torch(tmp_path / 'w')


def test_read_torch_repeats_without_memory(tmp_path):
    """A step of 0 makes 10 TB of four bytes; the shapes are looked at before the numbers."""
    tensors = torchvision_tensors(network('one_weird_trick').params)
    builds = {name: torch_tensor(str(key), array) for key, (name, array) in enumerate(tensors.items())}
    storages = {str(key): array.tobytes() for key, array in enumerate(tensors.values())}
    builds['classifier.4.weight'] = torch_tensor('0', next(iter(tensors.values())), size=(2**21, 2**21), stride=(0, 0))
    write_torch_file(tmp_path / 'w', state_dict_program(builds), storages)
    with pytest.raises(InputError, match=r'fc7/kernel is \(2097152, 2097152\)'):
        open_weights(tmp_path / 'w')


def test_read_torch_refuses_damaged_and_foreign_archives(tmp_path, original):
    path = tmp_path / 'w'
    program = state_dict_program({'w': torch_tensor('0', ONES)})
    write_torch_file(path, program, {'0': ONES.tobytes()}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match='is compressed or encrypted, which PyTorch never does'):
        open_weights(path)
    save_torch(path, torchvision_tensors(original.params))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match='is damaged: its checksum is another'):
        open_weights(path)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match='is not read: File is not a zip file'):
        open_weights(path)
    np.savez(path.with_suffix('.npz'), a=ONES)
    with pytest.raises(InputError, match='that `alexnet checkpoint export` did not write'):
        open_weights(path.with_suffix('.npz'))
    path.write_bytes(b'\x80\x02' + CALLS)
    with pytest.raises(InputError, match=r'no dictionary of bvlc_alexnet.*a Unread where an array belongs'):
        open_weights(path)


def test_read_torch_refuses_a_long_list_of_files(tmp_path):
    with zipfile.ZipFile(tmp_path / 'w', 'w') as archive:
        for index in range(12_000):
            archive.writestr(f'net/data/{index:060}', b'')
    with pytest.raises(InputError, match='its list of files is too long to be true'):
        open_weights(tmp_path / 'w')


def test_load_state_dict_refuses_other_state_dicts(tmp_path, original):
    tensors = torchvision_tensors(original.params)
    for change, says in [
        ({'features.1.running_mean': ONES}, 'it holds features.1.running_mean too'),
        ({'classifier.6.bias': np.ones(4, '<f4')}, r'fc8/kernel is \(256, 3\), not \(units, 4\)'),
        ({'features.3.weight': np.ones((2, 2), '<f4')}, r'conv2/kernel is \(2, 2\)'),
    ]:
        save_torch(tmp_path / 'w', tensors | change)
        with pytest.raises(InputError, match=says):
            open_weights(tmp_path / 'w')
    del tensors['features.6.weight']
    save_torch(tmp_path / 'w', tensors)
    with pytest.raises(InputError, match='conv3/kernel is missing'):
        open_weights(tmp_path / 'w')


def test_caffe_weights_order_fc6_channels_first():
    """By hand: unit 0 of fc6 reads channel 1, row 2, column 3, which is place (2 * 6 + 3) * 16 + 1 here, 51 there."""
    params = network('one_weird_trick').params
    params['fc6']['kernel'][:] = 0
    channels = params['conv5']['bias'].size
    params['fc6']['kernel'][(2 * 6 + 3) * channels + 1, 0] = 5
    kernel, _ = caffe_weights(params)['fc6']
    assert np.flatnonzero(kernel[0]).tolist() == [1 * 36 + 2 * 6 + 3]
    assert set(TORCHVISION) == set(params)
