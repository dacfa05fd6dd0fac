"""The training command from end to end, as a user starts it: results, resuming, and every kind of bad input."""

import functools
import json
import math
import re
import shutil
import signal
import subprocess
import time

import cli
import jax
import numpy as np
import oracle
import pytest
from simplejpeg import decode_jpeg

from alexnet_jax.checkpoints.load import load_network
from alexnet_jax.data.pipeline import choose_records

OPTIONS = (
    *('--config.variant=released', '--config.width=0.0625', '--config.batch_size=8', '--config.steps=20'),
    '--config.test_training_images=9',
    *('--config.checkpoint_every=3', '--config.evaluate_every=4', '--config.log_every=5', '--config.patience=1'),
)


@pytest.fixture(scope='module')
def train(tiny_dir, program_cache):
    """Runs the command on the tiny dataset with OPTIONS and more; `start=True` only starts it."""

    def command(*more, workdir, dataset='tiny', start=False):
        options = (f'--config=configs/two_device.py:{dataset}', f'--config.data_dir={tiny_dir}', *OPTIONS, *more)
        launch = cli.start if start else cli.run
        return launch('train', *options, f'--workdir={workdir}', cache=program_cache)

    return command


@pytest.fixture(scope='module')
def straight(train, tmp_path_factory):
    """(workdir, finished process) of 20 steps without a stop."""
    workdir = tmp_path_factory.mktemp('runs') / 'straight'
    return workdir, train('--json', workdir=workdir)


@pytest.fixture
def finished(straight, tmp_path):
    """A copy of that run folder, to be spoilt."""
    return shutil.copytree(straight[0], tmp_path / 'run')


def read_json(path):
    return json.loads(path.read_text())


def log(workdir):
    """(step, split, protocol, loss) of every line of metrics.jsonl, in order."""
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    return [(line['step'], line['split'], line.get('protocol'), line['loss']) for line in lines]


def snapshot(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def assert_one_line(process, pattern):
    assert process.returncode != 0
    assert process.stdout == ''
    assert re.fullmatch(rf'error: [^\n]*{pattern}[^\n]*\n', process.stderr), process.stderr


@pytest.mark.slow
def test_train_learns_and_writes_its_result(straight):
    workdir, process = straight
    assert process.returncode == 0, process.stderr
    result = read_json(workdir / 'result.json')
    assert json.loads(process.stdout.splitlines()[-1]) == result
    assert set(result) == {'centre', 'ten_view', 'steps', 'images_per_second', 'data_wait', 'params_sha256'}
    for protocol in ('centre', 'ten_view'):
        assert set(result[protocol]) == {'examples', 'loss', 'top1_error', 'top5_error'}
        assert result[protocol]['examples'] == 13
        assert result[protocol]['top1_error'] <= 2 / 13  # chance is 8 / 13
        assert result[protocol]['loss'] < math.log(3) / 2
        assert result[protocol]['top5_error'] == 0
    assert result['steps'] == 20
    assert result['images_per_second'] > 1
    assert 0 <= result['data_wait'] < 1
    assert re.fullmatch('[0-9a-f]{64}', result['params_sha256'])


@pytest.mark.slow
def test_train_logs_every_line_once_and_the_board_the_same_numbers(straight):
    workdir, process = straight
    # Every 5 steps, and what is left before each test (4) and checkpoint (3).
    assert [line[0] for line in log(workdir) if line[1] == 'train'] == [3, 4, 5, 6, 8, 9, 10, 12, 15, 16, 18, 20]
    tests = [(step, 'centre') for step in (4, 8, 12, 16, 20)] + [(20, 'ten_view')]
    assert [line[0:3:2] for line in log(workdir) if line[1] == 'validation'] == tests
    assert [line[0:3:2] for line in log(workdir) if line[1] == 'training_images'] == tests[:-1]
    assert log(workdir)[-1][3] == read_json(workdir / 'result.json')['ten_view']['loss']
    (board,) = (workdir / 'tensorboard').glob('events.out.tfevents.*')
    tags = (
        b'train/loss',
        b'validation_centre/top1_error',
        b'validation_ten_view/loss',
        b'training_images_centre/top1_gap',
    )
    assert all(tag in board.read_bytes() for tag in tags)
    assert 'step 20/20' in process.stderr
    assert '\x1b' not in process.stderr + process.stdout  # plain lines where there is no terminal


@pytest.mark.slow
def test_train_tests_training_images_as_validation_images(straight, tiny):
    """The last network, by the plain one on the middle of each image, with every unit at half."""
    workdir, process = straight
    params, found = load_network(workdir).params, {}
    mean = tiny.mean_image[16:240, 16:240]
    for split in ('train', 'validation'):
        records = tiny.records(split)
        if split == 'train':
            records = [records[index] for index in choose_records(records, 9)]
        images = np.stack([decode_jpeg(jpeg)[16:240, 16:240].astype(np.float32) for jpeg, _ in records])
        logits = np.asarray(jax.jit(functools.partial(oracle.network, 'released', masks=None))(params, images - mean))
        labels = np.array([label for _, label in records])
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        right = (powers / powers.sum(axis=1, keepdims=True))[np.arange(len(labels)), labels]
        found[split] = -np.log(right).mean(), (logits.argmax(axis=1) != labels).mean()
    (loss, error), gap = found['train'], found['validation'][1] - found['train'][1]
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    (line,) = (line for line in lines if (line['step'], line['split']) == (20, 'training_images'))
    assert (line['examples'], line['loss']) == (9, pytest.approx(loss, rel=1e-4))
    assert (line['top1_error'], line['top1_gap']) == (pytest.approx(error), pytest.approx(gap))
    told = rf'20/20  training images, centre: loss {loss:.3f}  top-1 error {error:.2%}  .*  gap {100 * gap:.2f} points'
    assert re.search(told, process.stderr)


@pytest.mark.slow
def test_train_describes_the_run_in_its_folder(straight, tiny):
    workdir, _ = straight
    config, circumstances = read_json(workdir / 'config.json'), read_json(workdir / 'run.json')
    assert config['steps'] == 20
    assert config['variant'] == 'released'
    assert config['mesh'] == [1, 2]
    assert config['learning_rate'] == 0.01
    assert circumstances['identity']['dataset_fingerprint'] == tiny.fingerprint
    assert circumstances['devices'].startswith('2 x ')
    assert {'jax', 'flax', 'optax', 'numpy', 'python'} <= set(circumstances['versions'])
    assert 'commit' in circumstances


@pytest.fixture(scope='module')
def resumed(train, tmp_path_factory):
    """(workdir, two finished processes) of a run that was killed, then started twice at the same time."""
    workdir = tmp_path_factory.mktemp('runs') / 'killed'
    killed = train(workdir=workdir, start=True)
    deadline = time.monotonic() + 120
    while not (workdir / 'checkpoints' / '9').exists() and time.monotonic() < deadline and killed.poll() is None:
        time.sleep(0.002)
    killed.kill()
    killed.communicate()
    assert killed.returncode == -9
    assert not (workdir / 'result.json').exists()
    with (workdir / 'metrics.jsonl').open('a') as file:
        file.write('{"step": 12, "split": "train", "loss": 1.5}\n{"step": 13, "spl')  # as if killed while writing
    first = train(workdir=workdir, start=True)
    while f'pid {first.pid}' not in (workdir / '.run.lock').read_text() and first.poll() is None:
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)  # so that it does not end before the second has come to the lock
    second = train('--json', workdir=workdir, start=True)
    seen = []
    while 'waiting' not in ''.join(seen[-1:]) and (line := second.stderr.readline()):
        seen.append(line)
    first.send_signal(signal.SIGCONT)
    processes = []
    for process, said in ((first, ''), (second, ''.join(seen))):
        out, err = process.communicate(timeout=120)
        processes.append(subprocess.CompletedProcess((process.pid,), process.returncode, out, said + err))
    return workdir, *processes


@pytest.mark.slow
def test_train_killed_and_started_again_ends_bit_for_bit_the_same(straight, resumed):
    workdir, first, _ = resumed
    assert first.returncode == 0, first.stderr
    step = re.search(r'resuming from step (\d+) of 20', first.stderr)
    assert step and 9 <= int(step[1]) < 20
    expected, found = (read_json(folder / 'result.json') for folder in (straight[0], workdir))
    assert found == expected | {'images_per_second': None, 'data_wait': None}  # of the second start, which trained none
    assert log(workdir) == log(straight[0])


@pytest.mark.slow
def test_train_waits_for_another_start_and_repeats_its_result(straight, resumed):
    workdir, first, second = resumed
    assert second.returncode == 0, second.stderr
    assert f', pid {first.args[0]}) trains in {workdir}: waiting for its end, up to 120 s\n' in second.stderr
    assert 'resuming from step 20 of 20\n' in second.stderr
    expected = read_json(straight[0] / 'result.json') | {'images_per_second': None, 'data_wait': None}
    assert json.loads(second.stdout.splitlines()[-1]) == expected


@pytest.mark.slow
def test_train_uses_precision_in_update_and_test_and_names_changed_settings(straight, train, finished, tmp_path):
    process = train('--config.precision=bfloat16', '--config.steps=3', workdir=tmp_path / 'narrow')
    assert process.returncode == 0, process.stderr
    # The mean of the first three losses: the settings are the same but for the precision, of eight bits.
    losses = [log(workdir)[0] for workdir in (straight[0], tmp_path / 'narrow')]
    assert losses[0][:3] == losses[1][:3] == (3, 'train', None)
    assert losses[0][3] != losses[1][3]
    assert losses[0][3] == pytest.approx(losses[1][3], rel=0.05)
    # The same parameters, tested in the other precision.
    changed = ('--config.precision=bfloat16', '--config.learning_rate=0.001')
    process = train(*changed, workdir=finished)
    assert process.returncode == 0, process.stderr
    assert "last started: precision 'float32', now 'bfloat16'; learning_rate 0.01, now 0.001\n" in process.stderr
    before, after = (read_json(workdir / 'result.json') for workdir in (straight[0], finished))
    assert before['params_sha256'] == after['params_sha256']
    assert before['centre']['loss'] != after['centre']['loss']
    assert before['centre']['loss'] == pytest.approx(after['centre']['loss'], rel=0.05)
    assert 'last started' not in train(*changed, workdir=finished).stderr


@pytest.mark.slow
def test_train_sets_a_damaged_checkpoint_aside_and_ends_the_same(straight, train, finished):
    data = max((finished / 'checkpoints/20/state').rglob('*'), key=lambda path: path.stat().st_size)
    data.write_bytes(data.read_bytes()[:1000])
    damaged = snapshot(finished / 'checkpoints/20')
    process = train(workdir=finished)
    assert process.returncode == 0, process.stderr
    assert process.stderr.startswith('warning: checkpoint 20 is damaged (cannot be read: ')
    assert re.search(r'the run goes on from step 18: 2 steps, \d+ minutes, are made again\n', process.stderr)
    assert 'Traceback' not in process.stderr and 'Event loop' not in process.stderr
    (aside,) = (finished / 'damaged_checkpoints').iterdir()
    assert re.fullmatch(r'20_\d{8}T\d{6}', aside.name)
    assert snapshot(aside) == damaged
    expected, found = (read_json(folder / 'result.json') for folder in (straight[0], finished))
    assert found['params_sha256'] == expected['params_sha256']
    assert (found['centre'], found['ten_view']) == (expected['centre'], expected['ten_view'])
    assert log(finished) == log(straight[0])


@pytest.mark.slow
def test_train_stops_when_all_checkpoints_are_damaged(train, finished):
    steps = sorted(int(path.name) for path in (finished / 'checkpoints').iterdir())
    for step in steps:
        shutil.rmtree(finished / f'checkpoints/{step}/state')
    assert_one_line(train(workdir=finished), r'every checkpoint of this run is damaged \(20: cannot be read: ')
    assert len(list((finished / 'damaged_checkpoints').iterdir())) == len(steps)


@pytest.mark.slow
def test_train_refuses_the_folder_of_another_network_and_leaves_it_alone(train, finished):
    before = snapshot(finished)
    named = "variant 'released', not 'paper'; images_per_crop 32, not 1"
    assert_one_line(train('--config.variant=paper', workdir=finished), rf'holds another run \({named}\)')
    assert snapshot(finished) == before


@pytest.mark.slow
def test_train_refuses_an_unknown_dataset_and_lists_what_there_is(train, tmp_path):
    process = train(workdir=tmp_path / 'run', dataset='unicorns')
    assert_one_line(process, "no dataset 'unicorns' in .* \\(prepared there: tiny\\)")
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    ('option', 'named'),
    [
        ('--config.learning_rates=0.1', r"unknown config key 'learning_rates': did you mean 'learning_rate'\?"),
        ('--config.batch_size=many', r'--config\.batch_size=many: '),
        ('--config.mesh=3,2', r'config\.batch_size 8 does not divide over the 3 '),
        ('--config.mesh.tower=2', r'--config\.mesh\.tower=2: options of the config look like'),
        (
            '--config.cooldown_epochs=2',
            "unknown config key 'cooldown_epochs': known are accumulate, activation, .*, drop_epochs",
        ),
        ('--workdri=x', r"Unknown command line flag 'workdri': did you mean '--workdir'\?"),
        ('epochs=20', "unexpected argument 'epochs=20': options look like --config.epochs=20"),
        (
            '--config.test_training_images=41',
            'config.test_training_images is 41, and dataset tiny has 40 training images: use at most that',
        ),
        ('--config=configs/three_device.py', 'no such config file: .*configs/three_device.py'),
        ('--config=configs/fine_tune.py', r'(?<=\Aerror: )name the dataset .*: configs/fine_tune\.py:NAME(?=\n)'),
        *(
            pytest.param(*case, marks=pytest.mark.repeats)
            for case in [
                ('--config.colour=red', "unknown config key 'colour': known are accumulate, activation, "),
                ('--epochs=2', r"Unknown command line flag 'epochs': did you mean '--config.epochs'\?"),
                ('--nothing=2', "Unknown command line flag 'nothing': --help lists the options"),
                ('--config.steps=1.5', r'--config\.steps=1\.5: '),
                ('--config.mesh=1,3', r'config\.mesh is \(1, 3\): .* tower 1 or 2'),
                ('--config.learning_rate=nan', r'config\.learning_rate is nan: it must be above 0'),
                ('--config.epochs=-1', r'config\.epochs is -1\.0: it must be above 0'),
            ]
        ),
    ],
)
def test_train_refuses_a_wrong_option_in_one_line_and_writes_nothing(train, tmp_path, option, named):
    assert_one_line(train(option, workdir=tmp_path / 'run'), named)
    assert not (tmp_path / 'run').exists()


def test_train_without_a_config_says_that_one_is_needed(program_cache):
    assert_one_line(cli.run('train', cache=program_cache), '--config must have a value')


@pytest.mark.slow
@pytest.mark.repeats  # tests/run/test_recovery.py, and test_sweep.py in a process
def test_train_stops_at_a_non_finite_loss_and_names_the_step(train, tmp_path):
    process = train(
        '--config.learning_rate=10000', '--config.checkpoint_every=1', '--config.evaluate_every=20',
        workdir=tmp_path / 'run',
    )  # fmt: skip
    assert process.returncode == 1
    step = re.fullmatch(r'error: the loss is (nan|inf) at step (\d+): stopped.*', process.stderr.splitlines()[-1])
    assert step, process.stderr
    assert 'Traceback' not in process.stderr
    assert not (tmp_path / 'run/result.json').exists()
    kept = [int(path.name) for path in (tmp_path / 'run/checkpoints').iterdir()]
    assert max(kept) == int(step[2]) - 1
    assert all(math.isfinite(line[3]) for line in log(tmp_path / 'run'))


@pytest.mark.slow
def test_train_times_its_start_until_the_first_step(straight):
    workdir, process = straight
    (line,) = re.findall(r'^first step after (\d+\.\d) s: (.*)$', process.stderr, re.MULTILINE)
    account = read_json(workdir / 'startup.json')
    assert float(line[0]) == pytest.approx(account['total'], abs=0.051)
    parts = ['imports', 'devices', 'dataset', 'state', 'log', 'data', 'compile', 'step']
    assert list(account['parts']) == parts
    assert re.sub(r' [\d.]+(, |$)', r'\1', line[1]).replace(' (cached)', '') == ', '.join(parts)
    assert account['parts']['imports'] > 0.1  # with the interpreter's own start
    assert process.stderr.index('first step after') < process.stderr.index('step 3/20')


@pytest.mark.parametrize(
    'options', [('--help',), ('--config=configs/two_device.py', '--config.width=9')], ids=['help', 'a wrong value']
)
def test_train_loads_no_heavy_library_where_it_needs_no_devices(program_cache, monkeypatch, options):
    monkeypatch.setenv('PYTHONPROFILEIMPORTTIME', '1')  # Python lists what it imports on standard error
    process = cli.run('train', *options, cache=program_cache)
    assert process.returncode == 1  # absl's code for help, and that of a wrong value
    loaded = {line.rpartition('|')[2].strip() for line in process.stderr.splitlines() if line.startswith('import time')}
    assert {'absl.app', 'ml_collections', 'alexnet_jax.logs.timing'} <= loaded
    if options == ('--help',):
        for word in ('--config=VALUE', '--workdir=VALUE', '--json ', 'configs/two_device.py', 'Trains AlexNet'):
            assert word in process.stdout
    heavy = ('jax', 'flax', 'optax', 'orbax', 'grain', 'tensorflow_datasets', 'tensorboardX', 'rich')
    assert [name for name in loaded if name.split('.')[0] in heavy] == []
