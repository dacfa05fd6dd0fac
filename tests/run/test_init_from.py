"""Runs that start from weights: what is taken, what is made anew, what is refused, and that resuming is exact."""

import dataclasses
import json
import re

import cli
import jax
import numpy as np
import pytest
from builders import run_with
from checkpoints.states import write_empty
from random_networks import network_of, save_run
from run import short_runs
from weights.foreign import torchvision_tensors, write_torch_file
from weights.test_torch_file import build, items

from alexnet_jax.checkpoints.hashes import hash_tree
from alexnet_jax.checkpoints.inspect import find_best_step
from alexnet_jax.checkpoints.load import load_network
from alexnet_jax.errors import InputError
from alexnet_jax.run.init_from import create_state, load_initial_weights
from alexnet_jax.run.run_dir import check_initial, claim_run_dir
from alexnet_jax.weights.safetensors_file import save_safetensors

WIDTH = 0.03125
MESHES = [(1, 1), (1, 2), (2, 1), (2, 2)]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('weights')


@pytest.fixture(scope='module')
def save(folder):
    """Writes a network of these classes, once; returns it with its file."""
    made = {}

    def write(*classes, variant='released'):
        if (variant, classes) not in made:
            network = network_of(variant, width=WIDTH, classes=classes)
            path = folder / f'{variant}_{"_".join(classes)}.safetensors'
            save_safetensors(network, path)
            made[variant, classes] = network, str(path)
        return made[variant, classes]

    return write


def run_from(path, **values):
    return run_with(**{'variant': 'released', 'width': WIDTH, 'init_from': path} | values)


@pytest.mark.parametrize('mesh', MESHES, ids=str)
def test_create_state_takes_every_layer_and_the_mean_image_on_every_mesh(mesh, save, tiny):
    network, path = save('blue', 'green', 'red')
    state = create_state(run_from(path, mesh=mesh), tiny)
    found = jax.device_get(state.params)
    assert found.keys() == network.params.keys()
    jax.tree.map(np.testing.assert_array_equal, found, network.params)
    np.testing.assert_array_equal(state.mean_image, network.mean_image)
    fresh = run_with(variant='released', width=WIDTH, mesh=mesh).create_state(network.mean_image)
    assert jax.tree.map(lambda a: a.sharding, state) == jax.tree.map(lambda a: a.sharding, fresh)
    jax.tree.map(np.testing.assert_array_equal, state.opt_state, fresh.opt_state)
    assert int(state.step) == 0


def test_create_state_with_one_weird_trick_places_layers_as_it_shares_them(save, tiny):
    network, path = save('blue', 'green', 'red')
    state = create_state(run_from(path, mesh=(1, 2), parallelism='one_weird_trick'), tiny)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), network.params)
    assert state.params['fc6']['kernel'].addressable_shards[0].data.shape[1] * 2 == len(network.params['fc6']['bias'])


@pytest.mark.slow
def test_create_state_makes_the_classifier_anew_where_the_classes_differ(save, tiny):
    network, path = save('cat', 'dog', 'red', 'owl')
    run = run_from(path)
    initial = load_initial_weights(run, tiny)
    assert initial.report['layers']['fc8'] == 'made anew for the 3 classes of tiny, in place of 4'
    assert initial.report['layers']['conv1'] == 'taken, 11x11x3x4'
    found, fresh = create_state(run, tiny).params, run.create_state(network.mean_image).params
    jax.tree.map(np.testing.assert_array_equal, found['fc8'], fresh['fc8'])  # of the seed, as from noise
    np.testing.assert_array_equal(found['fc7']['kernel'], network.params['fc7']['kernel'])
    assert (np.asarray(found['fc7']['kernel']) != fresh['fc7']['kernel']).any()


@pytest.mark.parametrize(
    ('classes', 'values', 'columns'),
    [
        (('red', 'blue', 'green'), {}, [1, 2, 0]),
        (('owl', 'red', 'blue', 'green', 'cat'), {'classes': 'keep'}, [2, 3, 1]),
        (('0', '1', '2'), {'classes': 'keep'}, [0, 1, 2]),
        (('0', '1', '2'), {}, None),
        (('owl', 'red', 'blue', 'green', 'cat'), {}, None),
    ],
)
def test_load_initial_weights_finds_classes_by_name(classes, values, columns, save, tiny):
    """The dataset's are blue, green, red."""
    network, path = save(*classes)
    found = load_initial_weights(run_from(path, **values), tiny).params.get('fc8')
    if columns is None:
        assert found is None
        return
    np.testing.assert_array_equal(
        found['kernel'], np.stack([network.params['fc8']['kernel'][:, i] for i in columns], 1)
    )
    np.testing.assert_array_equal(found['bias'], [network.params['fc8']['bias'][i] for i in columns])


def test_load_initial_weights_takes_the_mean_image_of_the_dataset_with_a_warning(save, tiny):
    network, path = save('blue', 'green', 'red')
    initial = load_initial_weights(run_from(path, init_mean='dataset'), tiny)
    expected = tiny.mean_image[16:240, 16:240]
    np.testing.assert_array_equal(initial.mean_image, expected)
    apart = np.abs(expected - network.mean_image).max()
    said = f'mean   of tiny; WARNING: the weights were trained with another, up to {apart:.1f} of 255 away'
    assert said in initial.format_report()


@pytest.mark.slow
def test_load_initial_weights_reads_another_program_s_file(tiny, tmp_path):
    """A state dict of torch.save: another count of classes, the colour that torchvision subtracts."""
    network = network_of('one_weird_trick', width=WIDTH, classes=tuple(map(str, range(7))))
    tensors = torchvision_tensors(network.params)
    program = b'\x80\x02' + items(build(tensors)) + b'.'
    write_torch_file(tmp_path / 'w.pth', program, {str(i): x.tobytes() for i, x in enumerate(tensors.values())})
    run = run_from(str(tmp_path / 'w.pth'), variant='one_weird_trick', mesh=(1, 1))
    initial = load_initial_weights(run, tiny)
    assert set(initial.params) == {*network.params} - {'fc8'}
    for layer, leaves in initial.params.items():
        jax.tree.map(np.testing.assert_array_equal, leaves, network.params[layer])
    np.testing.assert_allclose(initial.mean_image[7, 9], np.array([0.485, 0.456, 0.406]) * 255, rtol=1e-6)
    assert initial.report['mean_image'] == 'of the source'


@pytest.mark.parametrize(
    ('variant', 'values', 'message'),
    [
        (
            'released',
            {'width': 0.0625},
            r'is released, width 0\.03125, and this run is released, width 0\.0625 \(conv1/kernel is \(11, 11, 3, 4\) '
            r'there and \(11, 11, 3, 6\) here\): use --config\.variant=released --config\.width=0\.03125$',
        ),
        (
            'released',
            {'variant': 'paper'},
            r'\(the layers fit, and compute otherwise\): use --config\.variant=released',
        ),
        (
            'released',
            {'without': ('norm',)},
            r'this run is released, width 0\.03125, without norm \(.*--config\.without=$',
        ),
        (
            'released',
            {'activation': 'sigmoid'},
            r'this run is released, width 0\.03125, sigmoid units \(the layers fit, .*--config\.activation=$',
        ),
        ('released', {'init_step': 3}, r'^config\.init_step is 3, and .* is no run folder, so has one state'),
        ('released', {'classes': 'keep'}, r'knows 4 classes and dataset tiny has 3, which are not the same'),
        (None, {'init_from': 'nowhere'}, r'^config\.init_from: nowhere cannot be read: No such file or directory$'),
        (None, {'init_from': 'tests'}, r'^config\.init_from: tests is a folder'),
        (None, {'init_from': 'README.md'}, r'^config\.init_from: README\.md is no file of weights'),
    ],
)
def test_load_initial_weights_refuses_what_does_not_fit_in_one_line(variant, values, message, save, tiny, monkeypatch):
    monkeypatch.chdir(cli.ROOT)
    path = save('cat', 'dog', 'red', 'owl', variant=variant)[1] if variant else ''
    with pytest.raises(InputError, match=message) as error:
        load_initial_weights(run_from(path, **values), tiny)
    assert len(str(error.value).splitlines()) == 1


def test_find_best_step_is_that_of_the_lowest_error(tmp_path):
    for step, error in ((2, 0.5), (4, 0.25), (6, 0.25), (8, None), (10, 0.75)):
        write_empty(tmp_path, step, top1_error=error)
    assert find_best_step(tmp_path) == 6
    write_empty(tmp_path / 'untested', 3)
    assert find_best_step(tmp_path / 'untested') is None


@pytest.mark.slow
def test_train_from_a_run_of_another_mesh_is_resumed_bit_for_bit(tiny, tiny_dir, tmp_path):
    """Two devices of a run that had one: three steps, and two of them then one."""
    network = network_of(width=WIDTH)
    save_run(network, tmp_path / 'source', tiny, tiny_dir)
    values = {'init_from': str(tmp_path / 'source'), 'evaluate_every': 2, 'checkpoint_every': 2, 'lighting': False}
    whole = short_runs.train(tiny, tmp_path / 'whole', steps=3, **values)
    short_runs.train(tiny, tmp_path / 'parts', steps=2, **values)
    initial = load_initial_weights(short_runs.make_run(**values), tiny)
    (tmp_path / 'source').rename(tmp_path / 'gone')  # the checkpoint has all
    resumed = short_runs.train(tiny, tmp_path / 'parts', steps=3, **values)
    assert resumed['params_sha256'] == whole['params_sha256']
    # Nor is it read twice by a run that has none, when it begins or when it is rolled back to its beginning.
    again = short_runs.train(tiny, tmp_path / 'again', steps=3, initial=initial, **values)
    assert again['params_sha256'] == whole['params_sha256']
    fresh = short_runs.train(tiny, tmp_path / 'fresh', steps=3, **values | {'init_from': ''})
    assert fresh['params_sha256'] != whole['params_sha256']


@pytest.mark.slow
@pytest.mark.parametrize(
    'mesh', [(1, 2), *(pytest.param(mesh, marks=pytest.mark.repeats) for mesh in ((2, 2), (1, 1)))], ids=str
)
def test_train_with_frozen_layers_is_resumed_bit_for_bit_and_moves_the_others_alone(mesh, tiny, tmp_path):
    """Frozen below and in the middle, a slow and a fast layer, warm-up over the seam."""
    values = {'frozen': ('conv1', 'conv2', 'fc6'), 'rate_factors': {'conv5': 0.5, 'fc8': 4.0}, 'warmup_epochs': 0.8}
    values |= {'mesh': mesh, 'evaluate_every': 2, 'checkpoint_every': 2, 'lighting': False}
    whole = short_runs.train(tiny, tmp_path / 'whole', steps=3, **values)
    short_runs.train(tiny, tmp_path / 'parts', steps=2, **values)
    resumed = short_runs.train(tiny, tmp_path / 'parts', steps=3, **values)
    assert resumed['params_sha256'] == whole['params_sha256']
    before = short_runs.make_run(**values).create_state(np.zeros((224, 224, 3))).params
    after = load_network(save_config(tmp_path / 'whole', values)).params
    moved = {layer for layer, leaves in after.items() if (leaves['kernel'] != before[layer]['kernel']).any()}
    assert moved == {'conv3', 'conv4', 'conv5', 'fc7', 'fc8'}
    with pytest.raises(InputError, match=r'made with the rate factors .*: go on with the same'):
        short_runs.train(tiny, tmp_path / 'parts', steps=4, **values | {'frozen': ('conv1', 'fc6')})


def save_config(workdir, values):
    """The run folder with its config.json, as `claim_run_dir` writes it."""
    (workdir / 'config.json').write_text(json.dumps(short_runs.make_run(**values).config.to_json()))
    return workdir


@pytest.mark.slow
def test_train_says_layer_by_layer_what_it_took_and_knows_it_again(save, tiny_dir, tmp_path, program_cache):
    _, path = save('cat', 'dog', 'red', 'owl')
    options = ['--config=configs/one_device.py:tiny', '--config.variant=released', f'--config.width={WIDTH}']
    options += [f'--config.data_dir={tiny_dir}', f'--workdir={tmp_path / "run"}', '--config.batch_size=8']
    options += ['--config.steps=1', '--config.deterministic=True']
    done = cli.run('train', *options, f'--config.init_from={path}.gone', cache=program_cache)
    assert done.returncode == 1 and not (tmp_path / 'run').exists()  # nothing half-started
    assert done.stderr.splitlines()[-1].startswith('error: config.init_from: ')
    for said in (True, False):  # when it is started, and when it is started again
        done = cli.run('train', *options, f'--config.init_from={path}', cache=program_cache)
        assert done.returncode == 0, done.stderr
        line = '  fc8    made anew for the 3 classes of tiny, in place of 4'
        assert (line in done.stderr.splitlines()) == said
        record = json.loads((tmp_path / 'run/run.json').read_text())['init_from']
        assert record['layers']['conv5'] == 'taken, 3x3x6x8' and len(record['file_sha256']) == 64
    done = cli.run('train', *options, cache=program_cache)
    assert done.returncode == 1
    assert f"holds another run (init_from '{path}', not '')" in done.stderr.splitlines()[-1]


def test_a_run_without_a_checkpoint_is_not_begun_again_from_weights_that_have_changed(tiny, tmp_path):
    network, path, workdir = network_of(width=WIDTH), tmp_path / 'w.safetensors', tmp_path / 'run'

    def begin(network):
        save_safetensors(network, path)
        run = run_from(str(path))
        claim_run_dir(workdir, run, tiny, initial=load_initial_weights(run, tiny).report)

    begin(network)
    before = (workdir / 'run.json').read_text()
    begin(network)  # killed before its first checkpoint, it begins again
    weights = network.params | {'fc8': jax.tree.map(lambda x: x + 1, network.params['fc8'])}
    hashes = [hash_tree(params)[:12] for params in (network.params, weights)]
    said = f'{workdir} began from {path} (random, params_sha256 {hashes[0]}), which has changed (random, params_sha256'
    with pytest.raises(InputError, match=rf'^{re.escape(said)} {hashes[1]}\): put back .* --workdir$'):
        begin(dataclasses.replace(network, params=weights))
    with pytest.raises(InputError, match='random, file_sha256'):  # the same weights
        begin(dataclasses.replace(network, mean_image=network.mean_image + 1))
    assert (workdir / 'run.json').read_text() == before
    claim_run_dir(workdir, run_from(str(path)), tiny)  # with a checkpoint nothing of the file is read
    assert json.loads(before)['init_from'] == json.loads((workdir / 'run.json').read_text())['init_from']


def test_check_initial_refuses_another_checkpoint_of_a_run_and_takes_what_earlier_versions_wrote(tmp_path):
    report = {'init_from': 'runs/a', 'source': 'runs/a, step 4', 'params_sha256': 'abc'}
    (tmp_path / 'run.json').write_text(json.dumps({'init_from': report}))
    check_initial(tmp_path, report)
    said = r'from runs/a \(runs/a, step 4, params_sha256 abc\), which has changed \(runs/a, step 6, params_sha256 def\)'
    with pytest.raises(InputError, match=said):
        check_initial(tmp_path, report | {'source': 'runs/a, step 6', 'params_sha256': 'def'})
    for text in ('{}', 'damaged'):
        (tmp_path / 'run.json').write_text(text)
        check_initial(tmp_path, report)


@pytest.fixture(scope='module')
def caffe(folder):
    """A network whose crops each have the part of the mean image behind them, with its file; and one without."""
    whole = np.random.default_rng(0).uniform(0, 255, (256, 256, 3)).astype(np.float32)
    network = dataclasses.replace(network_of('caffe_alexnet', width=WIDTH), mean_image=whole)
    paths = [folder / f'caffe_{name}.safetensors' for name in ('whole', 'centre')]
    for one, path in zip((network, network.with_centre_mean()), paths, strict=True):
        save_safetensors(one, path)
    return network, *map(str, paths)


def test_create_state_takes_the_mean_image_of_the_size_that_the_run_subtracts(caffe, tiny):
    network, path, _ = caffe
    for mean_at, expected in ((None, network.mean_image), ('centre', network.mean_image[14:241, 14:241])):
        state = create_state(run_from(path, variant='caffe_alexnet', mesh=(1, 1), mean_at=mean_at), tiny)
        np.testing.assert_array_equal(state.mean_image, expected)


def test_load_initial_weights_refuses_a_mean_image_that_is_too_small(caffe, tiny):
    *_, path = caffe
    with pytest.raises(InputError, match=r'use --config\.mean_at=centre or'):
        load_initial_weights(run_from(path, variant='caffe_alexnet', mesh=(1, 1)), tiny)
    run = run_from(path, variant='caffe_alexnet', mesh=(1, 1), init_mean='dataset')
    np.testing.assert_array_equal(create_state(run, tiny).mean_image, tiny.mean_image)
