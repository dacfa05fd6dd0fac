"""The convert command: from a run to every format and back, and its mistakes in one line."""

import dataclasses
import re

import cli
import jax
import numpy as np
import pytest
from weights.foreign import caffe_weights, caffemodel
from weights.networks import assert_same, network

from alexnet_jax.errors import InputError
from alexnet_jax.weights import safetensors_file
from alexnet_jax.weights.convert import convert, open_source
from alexnet_jax.weights.open_weights import open_weights


@pytest.fixture
def command(program_cache):
    return lambda *options: cli.run('convert', *options, cache=program_cache)


def test_convert_of_a_chain_of_files_ends_where_it_began(tmp_path):
    original = network('caffenet')
    (tmp_path / 'a').write_bytes(caffemodel(caffe_weights(original.params), norm_first=False))
    first = open_source(**NOTHING | {'weights': str(tmp_path / 'a')})
    convert(first, to='onnx', output=tmp_path / 'b')
    convert(open_source(**NOTHING | {'weights': str(tmp_path / 'b')}), to='safetensors', output=tmp_path / 'c')
    assert_same(open_weights(tmp_path / 'c'), first)
    np.testing.assert_array_equal(
        open_weights(tmp_path / 'c').params['fc6']['kernel'], original.params['fc6']['kernel']
    )


@pytest.mark.slow
def test_convert_prints_what_it_wrote(tmp_path, command):
    safetensors_file.save_safetensors(network('released'), tmp_path / 'w.safetensors')
    (tmp_path / 'names').write_text('n01440764 tench, Tinca tinca\nn01443537 goldfish\nn01484850 shark\n')
    given = ['--to=onnx', f'--output={tmp_path}/w.onnx', f'--classes={tmp_path}/names']
    process = command(f'--weights={tmp_path}/w.safetensors', *given)
    assert process.returncode == 0, process.stderr
    first, second, third = process.stdout.splitlines()
    count = sum(x.size for x in jax.tree.leaves(network('released').params))
    assert first == f'released, width 0.0625 from runs/some, step 7: {count:,} parameters, 3 classes'
    assert second.startswith(f'{tmp_path}/w.onnx: 1.5 MB, params_sha256 ')
    assert third == 'reads images, float32 (batch, 3, 224, 224), RGB 0..255; gives logits and probabilities'
    names = ('n01440764 tench, Tinca tinca', 'n01443537 goldfish', 'n01484850 shark')
    assert_same(open_weights(tmp_path / 'w.onnx'), dataclasses.replace(network('released'), classes=names))


NOTHING = {'workdir': None, 'step': None, 'weights': None, 'variant': None, 'mean': None}


@pytest.mark.parametrize(
    ('given', 'says'),
    [
        ({}, 'give --workdir=RUN, a run folder, or --weights=FILE, one of the two'),
        ({'workdir': 'a', 'weights': 'b'}, 'one of the two'),
        ({'workdir': 'nowhere'}, 'has no checkpoint: it has none'),
        ({'workdir': 'nowhere', 'mean': '1,2,3'}, '--variant and --mean are for files of other programs'),
        ({'weights': 'w', 'step': 3}, '--step is for --workdir'),
        ({'weights': 'WEIGHTS', 'classes': 'imagenet2012'}, 'names 1,000 classes, and .* has 3 outputs'),
        ({'weights': 'nowhere'}, 'nowhere cannot be read: No such file or directory'),
    ],
)
def test_open_source_refuses_what_is_no_source(given, says, tmp_path):
    if given.get('weights') == 'WEIGHTS':
        safetensors_file.save_safetensors(network('released'), tmp_path / 'w')
        given = given | {'weights': str(tmp_path / 'w')}
    with pytest.raises(InputError, match=says):
        open_source(**NOTHING | given)


def test_open_source_names_a_command_that_works(tmp_path):
    """Of a .caffemodel that fits both of Caffe's networks, the options of the message are given as they are."""
    original = network('caffe_alexnet', width=0.03125)
    (tmp_path / 'm').write_bytes(caffemodel(caffe_weights(original.params), name='mine', order=False))
    with pytest.raises(InputError, match='alexnet convert --weights') as refused:
        open_source(**NOTHING | {'weights': str(tmp_path / 'm')})
    found = dict(re.findall(r'--(\w+)=([^ ,]+)', str(refused.value).split(', or ')[0]))
    to, output = found.pop('to'), tmp_path / found.pop('output')
    convert(open_source(**NOTHING | found), to=to, output=output)
    assert open_weights(output).name == original.name


def test_convert_of_locally_connected_layers_names_a_format_that_takes_them(tmp_path):
    local = network('cifar10_13pct')
    with pytest.raises(InputError, match=r'write --to=safetensors$'):
        convert(local, to='torchvision', output=tmp_path / 'w')
    convert(local, to='safetensors', output=tmp_path / 'w')
    assert_same(open_weights(tmp_path / 'w'), local)


@pytest.mark.parametrize('to', ['safetensors', 'onnx', 'torchvision', 'stablehlo', 'vhs'])
def test_convert_refuses_what_cannot_be_written(to, tmp_path):
    says = '--to=vhs: give one of safetensors' if to == 'vhs' else '--output=.*: there is no folder '
    with pytest.raises(InputError, match=says):
        convert(network('one_weird_trick'), to=to, output=tmp_path / 'nowhere' / 'w')


@pytest.mark.repeats  # run_command ends all verbs so, and what is refused is tested above
def test_convert_prints_a_mistake_in_one_line(tmp_path, command):
    safetensors_file.save_safetensors(network('released'), tmp_path / 'w')
    process = command(f'--weights={tmp_path}/w', '--to=torchvision', f'--output={tmp_path}/out')
    assert (process.returncode, process.stdout) == (1, '')
    assert process.stderr.startswith('error: torchvision has no released') and process.stderr.count('\n') == 1
    assert [file.name for file in tmp_path.iterdir()] == ['w']
