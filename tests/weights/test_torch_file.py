"""PyTorch's checkpoints as trainers write them: what is not wanted is left out, and never run. Encoded by hand."""

import sys

import numpy as np
import pytest
import safetensors.numpy
from weights.foreign import items, number, text, torch_tensor, torchvision_tensors, write_legacy_file, write_torch_file
from weights.networks import assert_same_params, network

from alexnet_jax.errors import InputError
from alexnet_jax.weights.open_weights import open_weights

ORDERED = b'ccollections\nOrderedDict\n)R'


@pytest.fixture(scope='module')
def original():
    return network('one_weird_trick', width=0.03125)


@pytest.fixture(scope='module')
def tensors(original):
    return torchvision_tensors(original.params)


def build(tensors, start=0, legacy=False):
    """{name: what builds the tensor}, storages numbered from `start`."""
    kinds = {'float32': 'FloatStorage', 'int64': 'LongStorage'}
    return {
        name: torch_tensor(str(key), array, kind=kinds[array.dtype.name], legacy=legacy)
        for key, (name, array) in enumerate(tensors.items(), start)
    }


def write(path, program, *dictionaries):
    storages = [array for tensors in dictionaries for array in tensors.values()]
    write_torch_file(path, b'\x80\x02' + program + b'.', {str(i): x.tobytes() for i, x in enumerate(storages)})


COUNTER = np.array(7)


@pytest.mark.parametrize(
    ('rename', 'more'),
    [
        (lambda name: name.replace('features.', 'features.module.'), {}),
        (lambda name: f'_orig_mod.{name}', {}),
        (lambda name: f'module._orig_mod.{name}', {}),
        (lambda name: f'_orig_mod.module.{name}', {'n_averaged': COUNTER}),
        (lambda name: f'model.{name}', {'criterion.weight': np.ones(3, '<f4')}),
        (lambda name: f'net.alexnet.module.{name}', {}),
        (lambda name: name.replace('classifier.', '_fsdp_wrapped_module.classifier._checkpoint_wrapped_module.'), {}),
    ],
)
def test_load_state_dict_reads_names_of_trainers(tmp_path, original, tensors, rename, more):
    renamed = {rename(name): array for name, array in tensors.items()} | more
    write(tmp_path / 'w', items(build(renamed)), renamed)
    assert_same_params(open_weights(tmp_path / 'w').params, original.params)
    safetensors.numpy.save_file(renamed, tmp_path / 's')
    assert_same_params(open_weights(tmp_path / 's').params, original.params)


def test_load_state_dict_refuses_a_name_that_is_there_twice(tmp_path, tensors):
    safetensors.numpy.save_file(tensors | {'module.features.3.bias': tensors['features.3.bias'] + 1}, tmp_path / 's')
    with pytest.raises(InputError, match='holds a name twice'):
        open_weights(tmp_path / 's')


def test_load_state_dict_leaves_out_a_copy_and_says_so(tmp_path, original, tensors, capsys):
    """A LightningModule with an average beside its model: under the names, and not in a dictionary of its own."""
    both = {f'model.{name}': array for name, array in tensors.items()}
    both |= {f'ema_model.module.{name}': array + 1 for name, array in tensors.items()} | {
        'ema_model.n_averaged': COUNTER
    }
    write(tmp_path / 'w', items(build(both)), both)
    assert_same_params(open_weights(tmp_path / 'w').params, original.params)
    assert 'its model.features is read, and not ema_model.features' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('more', 'says'),
    [
        ({'logit_scale': np.ones((), '<f4')}, 'it holds logit_scale too'),
        ({'features.1.num_batches_tracked': COUNTER}, 'it holds features.1.num_batches_tracked too'),
        ({'norm.weight': np.ones(3, '<f4')}, 'it holds norm.weight too'),
    ],
)
def test_load_state_dict_refuses_what_may_be_a_layer(tmp_path, tensors, more, says):
    found = {f'model.{name}': array for name, array in tensors.items()} | more
    safetensors.numpy.save_file(found, tmp_path / 's')
    with pytest.raises(InputError, match=says):
        open_weights(tmp_path / 's')


BESIDE = {
    'epoch': number(89),
    'args': b'cargparse\nNamespace\n)\x81' + items({'lr': b'G' + b'\0' * 8}) + b'b',  # NEWOBJ, BUILD
    'best': b'cnumpy._core.multiarray\nscalar\n(' + text('f8') + b'C\x04abcdtR',
    'set': b'\x8f(K\x01\x90',
    'frozen': b'(K\x01\x91',
    'by pair': b'}K\x01K\x02\x86K\x03s',
    'hook': b'cos\nsystem\n' + text('touch RAN') + b'\x85R',
    'arrays': items({'features.0.weight': b'cnumpy\nndarray\n)R'}),
    'list': b'ccollections\ndeque\n)RK\x01a',
}


@pytest.mark.parametrize('key', ['state_dict', 'model', 'net', 'model_state_dict'])
def test_read_torch_takes_the_only_state_dict_and_runs_nothing(tmp_path, original, tensors, monkeypatch, key):
    monkeypatch.chdir(tmp_path)
    found = items(build(tensors))[:-1] + b'K\x07K\x08u'  # and a number under a number
    write(tmp_path / 'w', items(BESIDE | {key: found}), tensors)
    assert_same_params(open_weights(tmp_path / 'w').params, original.params)
    assert [path.name for path in tmp_path.iterdir()] == ['w'] and 'argparse.Namespace' not in sys.modules


def test_read_torch_says_which_of_several_it_takes(tmp_path, original, tensors, capsys):
    others = {name: array + 1 for name, array in tensors.items()} | {'n_averaged': COUNTER}
    found = {'model_ema': items(build(others, len(tensors))), 'model': items(build(tensors))}
    write(tmp_path / 'w', items(found), tensors, others)
    assert_same_params(open_weights(tmp_path / 'w').params, original.params)
    assert "its 'model' is read, and not model_ema" in capsys.readouterr().err
    write(tmp_path / 'w', items({'a': found['model'], 'b': found['model_ema']}), tensors, others)
    with pytest.raises(InputError, match=r"several state dicts, a, b\. Keep the one .*weights_only=False\)\['a'\]"):
        open_weights(tmp_path / 'w')


def test_read_torch_says_how_to_come_from_a_whole_model(tmp_path):
    model = b'ctorchvision.models.alexnet\nAlexNet\n)\x81}b'
    for program, where in ((model, ''), (items({'epoch': number(1), 'model': model}), r"\['model'\]")):
        write(tmp_path / 'w', program)
        says = rf'wants torchvision.models.alexnet.AlexNet, .*weights_only=False\){where}\.state_dict\(\), FILE'
        with pytest.raises(InputError, match=says):
            open_weights(tmp_path / 'w')


def test_read_torch_reads_the_form_before_the_zip(tmp_path, original, tensors):
    storages = {str(key): array for key, array in enumerate(tensors.values())}
    builds = build(tensors, legacy=True)
    write_legacy_file(tmp_path / 'w', items({'state_dict': items(builds), 'epoch': number(90)}), storages)
    assert_same_params(open_weights(tmp_path / 'w').params, original.params)
    # Python 2, PyTorch before 0.4: byte strings, pairs in a list, another function, parameters with a state.
    old = {name: one.replace(b'_rebuild_tensor_v2', b'_rebuild_tensor') for name, one in builds.items()}
    old = {name: one.replace(b'\x89' + ORDERED + b'tR', b'tR') for name, one in old.items()}
    old = {name: b'ctorch.nn.parameter\nParameter\n' + one + b'\x85R(\x88\x89Ntb' for name, one in old.items()}
    pairs = [b'](U' + bytes([len(name)]) + name.encode() + one + b'e' for name, one in old.items()]
    program = b'ccollections\nOrderedDict\n](' + b''.join(pairs) + b'e\x85R'
    write_legacy_file(tmp_path / 'w', program, storages)
    assert_same_params(open_weights(tmp_path / 'w').params, original.params)
    data = (tmp_path / 'w').read_bytes()
    for damaged in (data[:-5], data + b'0', data[:200]):
        (tmp_path / 'w').write_bytes(damaged)
        with pytest.raises(InputError, match=r'is not read: .*(cut short|its storages end at)'):
            open_weights(tmp_path / 'w')
