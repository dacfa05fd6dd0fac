"""Run folders of earlier versions and damaged ones: taken over where the batches stay what they were."""

import dataclasses
import errno
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time

import pytest
from builders import run_with

from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.errors import InputError
from alexnet_jax.files import hold_lock
from alexnet_jax.run import run_dir
from alexnet_jax.run.run_dir import check_run_dir, claim_run_dir, hold_run_dir, open_or_render


def snapshot(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def assert_refused(folder, run, dataset, message):
    before = snapshot(folder)
    for function in (check_run_dir, claim_run_dir):
        with pytest.raises(InputError, match=message):
            function(folder, run, dataset)
    assert snapshot(folder) == before


@pytest.fixture
def earlier(tiny, tmp_path):
    """Claims a folder for a config and takes out of it what earlier versions did not write."""

    def make(config):
        claim_run_dir(tmp_path / 'run', config, tiny)
        path = tmp_path / 'run' / 'run.json'
        run = json.loads(path.read_text())
        assert run['identity'].pop('images_per_crop') is not None
        path.write_text(json.dumps(run))
        return tmp_path / 'run'

    return make


@pytest.mark.parametrize('values', [{'variant': 'paper'}, {'variant': 'released', 'images_per_crop': 1}])
def test_claim_run_dir_takes_an_earlier_run_whose_images_had_crops_of_their_own(earlier, tiny, values):
    folder = earlier(run_with(**values))

    claim_run_dir(folder, run_with(**values), tiny)
    assert json.loads((folder / 'run.json').read_text())['identity']['images_per_crop'] == 1


def test_claim_run_dir_takes_an_earlier_run_of_caffe_or_11pct_as_what_it_was(tiny, tmp_path):
    """Of a Caffe network all crops had the centre of the mean, and 11pct was the draft of today's."""
    for now, then in (
        ({'variant': 'caffenet'}, {'variant': 'caffenet', 'mean_at': 'centre'}),
        ({'variant': 'cifar10_11pct'}, {'variant': 'cifar10_11pct_draft'}),
    ):
        folder = tmp_path / now['variant']
        claim_run_dir(folder, run_with(**now, mesh=(1, 1)), tiny)
        run = json.loads((folder / 'run.json').read_text())
        del run['identity']['mean_at']
        (folder / 'run.json').write_text(json.dumps(run))
        ways = ' '.join(f'--config.{key}={value}' for key, value in then.items() if value not in now.values())
        assert_refused(folder, run_with(**now, mesh=(1, 1)), tiny, f'holds another run .* go on with it: {ways}$')
        claim_run_dir(folder, run_with(**then, mesh=(1, 1)), tiny)


def test_claim_run_dir_takes_a_run_from_before_layers_could_be_frozen(tiny, tmp_path, capsys):
    folder = tmp_path / 'run'
    claim_run_dir(folder, run_with(), tiny)
    later = {'init_from', 'init_step', 'init_mean', 'classes', 'frozen', 'rate_factors', 'warmup_epochs'}
    later |= {'trust_coefficient', 'schedule_power'}
    for name in ('run.json', 'config.json'):
        found = json.loads((folder / name).read_text())
        values = found['identity'] if name == 'run.json' else found
        assert len(later & {*values}) >= 5
        for key in later & {*values}:
            del values[key]
        (folder / name).write_text(json.dumps(found))
    said = r"holds another run \(rate_factors {}, not {'conv1': 0\.0}\)"
    assert_refused(folder, run_with(frozen=('conv1',)), tiny, said)
    capsys.readouterr()
    claim_run_dir(folder, run_with(), tiny)
    assert capsys.readouterr().err == ''  # no setting has changed


def test_claim_run_dir_refuses_an_earlier_run_that_would_share_its_crops_now(earlier, tiny):
    run = run_with(variant='released')
    assert_refused(earlier(run), run, tiny, r'holds another run \(images_per_crop 1, not 32\)')


@pytest.mark.parametrize(
    ('values', 'named'),
    [
        ({'seed': 1}, 'seed 0, not 1'),
        ({'lighting': False}, 'lighting True, not False'),
        ({'width': 0.125}, r'width 1\.0, not 0\.125'),
        ({'frozen': ('conv1',)}, r"rate_factors \{\}, not \{'conv1': 0\.0\}"),
        ({'rate_factors': {'fc8': 10.0}}, r"rate_factors \{\}, not \{'fc8': 10\.0\}"),
        ({'init_from': 'weights'}, "init_from '', not 'weights'"),
        ({'trust_coefficient': 0.001}, r'trust_coefficient None, not 0\.001'),
    ],
)
def test_claim_run_dir_refuses_another_run_and_leaves_it_alone(tiny, tmp_path, values, named):
    claim_run_dir(tmp_path, run_with(), tiny)
    assert_refused(tmp_path, run_with(**values), tiny, rf'holds another run \({named}\)')


def test_claim_run_dir_refuses_another_dataset_of_the_same_name(tiny, tiny_dir, tmp_path):
    """Here, one with a shard of another hash, which opening does not read."""
    other = shutil.copytree(tiny_dir, tmp_path / 'data')
    (manifest,) = other.glob('tiny/*/manifest.json')
    content = json.loads(manifest.read_text())
    shard = next(entry for file, entry in content['files'].items() if 'train.array_record' in file)
    shard['sha256'] = shard['sha256'][::-1]
    manifest.write_text(json.dumps(content))
    claim_run_dir(tmp_path / 'run', run_with(), tiny)
    assert_refused(tmp_path / 'run', run_with(), open_dataset('tiny', data_dir=other), 'run .dataset_fingerprint ')


def test_claim_run_dir_goes_on_with_the_same_records_in_the_other_encoding(tiny, tiny_raw, tmp_path, capsys):
    def claim(folder, dataset):
        claim_run_dir(folder, run_with(dataset=dataset.name), dataset)
        identity = json.loads((folder / 'run.json').read_text())['identity']
        return identity['dataset'], identity['dataset_fingerprint'], identity['rewritten_from']

    first, raw = ('tiny', tiny.fingerprint, None), ('tiny_raw', tiny_raw.fingerprint, tiny.fingerprint)
    assert [claim(tmp_path / 'a', dataset) for dataset in (tiny, tiny_raw, tiny)] == [first, raw, first]
    assert [claim(tmp_path / 'b', dataset) for dataset in (tiny_raw, tiny, tiny_raw)] == [raw, first, raw]
    changes = ["dataset 'tiny', now 'tiny_raw'", "dataset 'tiny_raw', now 'tiny'"]
    said = [line.partition('last started: ')[2] for line in capsys.readouterr().err.splitlines()]
    assert said == [*changes, *reversed(changes)]


def test_claim_run_dir_refuses_raw_records_of_another_dataset(tiny, tiny_raw, tmp_path):
    """Such as those rewritten from what had the same name before, or made straight from the images."""
    claim_run_dir(tmp_path, run_with(), tiny)
    for other in ('0' * 64, None):
        dataset = dataclasses.replace(tiny_raw, rewritten_from=other)
        said = rf"run \(dataset 'tiny', not 'tiny_raw'; dataset_fingerprint '{tiny.fingerprint}', not '\w+'\)"
        assert_refused(tmp_path, run_with(dataset='tiny_raw'), dataset, said)


def test_claim_run_dir_refuses_what_is_no_run_and_leaves_it_alone(tiny, tmp_path):
    (tmp_path / 'thesis.tex').write_text('years of work')
    assert_refused(tmp_path, run_with(), tiny, r'is not empty \(thesis.tex\) and holds no run: empty it, or choose')


@pytest.mark.parametrize('litter', ['.DS_Store', '._.DS_Store', 'Thumbs.db', '__MACOSX', 'lost+found', '.x.half'])
def test_claim_run_dir_takes_a_folder_with_what_systems_put_there(tiny, tmp_path, litter):
    (tmp_path / litter).write_text('')
    claim_run_dir(tmp_path, run_with(), tiny)
    claim_run_dir(tmp_path, run_with(), tiny)  # and again, as a run that goes on
    assert (tmp_path / litter).exists()


def test_check_run_dir_refuses_fewer_steps_than_were_made(tiny, tmp_path):
    run = run_with(steps=30)
    claim_run_dir(tmp_path, run, tiny)
    for name in ('18', '30', '.DS_Store'):
        (tmp_path / 'checkpoints' / name).mkdir(parents=True)
    message = 'has made 30 steps, and this config has {}: give --config.steps=30 or more to go on with it'
    assert_refused(tmp_path, run_with(steps=20), tiny, message.format(20))
    assert_refused(tmp_path, run_with(epochs=5.0), tiny, message.format(25))  # of 40 images by 8
    for steps in (30, 31):
        claim_run_dir(tmp_path, run_with(steps=steps), tiny)


@pytest.mark.parametrize(
    ('values', 'ways'),
    [
        ({'seed': 1}, 'or go on with it: --config.seed=0$'),
        ({'width': 0.5, 'seed': 1}, r'or go on with it: --config.width=1\.0 --config.seed=0$'),
        ({'variant': 'released'}, 'or go on with it: --config.variant=paper$'),
        ({'variant': 'caffenet', 'mesh': (1, 1)}, 'or go on with it: --config.variant=paper$'),
        ({'mean_at': 'crop'}, 'or go on with it: --config.mean_at=centre$'),
        ({'lighting': False}, 'or delete it$'),
        ({'lighting': False, 'seed': 1}, 'or delete it$'),
        (
            {'batch_size': 16},
            r'with it: --config.batch_size=8; its weights as a file: alexnet convert --workdir=\S+ --to=safetensors ',
        ),
    ],
)
def test_check_run_dir_names_the_options_that_go_on(tiny, tmp_path, values, ways):
    claim_run_dir(tmp_path, run_with(), tiny)
    assert_refused(tmp_path, run_with(**values), tiny, f'choose another --workdir, .*{ways}')


@pytest.mark.parametrize('content', [b'{"identi', b'[1]', b'{"identity": 1}', b'\xff'])
def test_claim_run_dir_refuses_a_damaged_run_json(tiny, tmp_path, content):
    (tmp_path / 'run.json').write_bytes(content)
    assert_refused(tmp_path, run_with(), tiny, 'run.json is damaged')


def test_run_dir_that_cannot_be_made_is_refused(tiny, tmp_path):
    (tmp_path / 'file').write_text('')
    message = 'cannot write to .*/file/run: Not a directory'
    with pytest.raises(InputError, match=message), hold_run_dir(tmp_path / 'file/run'):
        pytest.fail('held')
    with pytest.raises(InputError, match=message):
        claim_run_dir(tmp_path / 'file/run', run_with(), tiny)


def test_claim_run_dir_writes_the_commit_of_its_own_checkout_only(tiny, tmp_path, monkeypatch):
    """Not that of another project in whose folder the package is installed."""

    def git(*command):
        name = ('-c', 'user.name=a', '-c', 'user.email=a@example.org')
        done = subprocess.run(['git', *name, *command], cwd=project, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def written():
        claim_run_dir(tmp_path / 'run', run_with(), tiny)
        return json.loads((tmp_path / 'run/run.json').read_text())['commit']

    project = tmp_path / 'project'
    source = project / 'venv/alexnet_jax/run/run_dir.py'
    source.parent.mkdir(parents=True)
    source.write_text('')
    monkeypatch.setattr(run_dir, '__file__', str(source))
    assert written() is None  # no repository
    git('init')
    (project / '.gitignore').write_text('venv\n')
    git('add', '.gitignore')
    git('commit', '--message=theirs')
    assert written() is None
    git('add', '--force', 'venv')
    git('commit', '--message=ours')
    assert written() == git('rev-parse', 'HEAD')
    source.write_text('# changed')
    assert written() == git('rev-parse', 'HEAD') + '-dirty'


@pytest.mark.parametrize('text', ['', '{"seed": 0,', '[1, 2]'])
def test_claim_run_dir_says_that_config_json_is_damaged_and_writes_it_anew(tiny, tmp_path, capsys, text):
    """run.json says whose run it is; config.json is for comparing settings."""
    claim_run_dir(tmp_path / 'run', run_with(), tiny)
    path = tmp_path / 'run/config.json'
    whole = path.read_text()
    path.write_text(text)
    claim_run_dir(tmp_path / 'run', run_with(), tiny)
    assert path.read_text() == whole
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f'{path} is damaged: whether settings have changed is not known, and it is written anew'


def test_hold_run_dir_holds_a_folder_for_one_run_at_a_time(tmp_path, capsys):
    folder = tmp_path / 'runs/one'
    with hold_run_dir(folder), hold_run_dir(tmp_path / 'runs/two'):
        other = f'another process ({socket.gethostname()}, pid {os.getpid()}) trains in {folder}'
        says = f'^{re.escape(other)}: stop it, or .* gone, delete {folder}/.run.lock$'
        with pytest.raises(InputError, match=says), hold_run_dir(folder, patience=0.3):
            pytest.fail('two hold it')
        assert capsys.readouterr().err == f'{other}: waiting for its end, up to 0 s\n'
    with hold_run_dir(folder, patience=0.0):
        assert capsys.readouterr().err == ''


def test_claim_run_dir_takes_a_folder_that_only_holds_a_lock(tiny, tmp_path):
    with hold_run_dir(tmp_path / 'run'):
        claim_run_dir(tmp_path / 'run', run_with(), tiny)
    assert (tmp_path / 'run/run.json').exists()


def test_hold_run_dir_uses_storage_without_locks(tmp_path, monkeypatch):
    def unknown(file, how):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr('fcntl.flock', unknown)
    with hold_run_dir(tmp_path / 'run'):
        assert (tmp_path / 'run').is_dir()


def test_open_or_render_waits_for_another_that_renders(tiny_dir, tmp_path, capsys):
    """Another has the lock, makes the dataset (here a copy) and leaves; this one finds it."""
    opened = []
    waiting = threading.Thread(target=lambda: opened.append(open_or_render('demo', str(tmp_path))))
    with hold_lock(tmp_path, '.demo.first.lock', option='', busy='', patience=0.0):
        waiting.start()
        while 'renders the embedded dataset' not in (said := capsys.readouterr().err):
            assert waiting.is_alive()
            time.sleep(0.01)
        shutil.copytree(tiny_dir / 'tiny', tmp_path / 'demo')
    waiting.join()
    assert opened[0].examples('train') > 0
    assert said.endswith(f' in {tmp_path}: waiting for its end\n')
    assert 'rendering' not in capsys.readouterr().err
