"""The training command from end to end, as a user starts it: results, resuming, and every kind of bad input."""

import json
import math
import re
import shutil
import time

import cli
import pytest

OPTIONS = (
    *('--config.variant=released', '--config.width=0.0625', '--config.batch_size=8', '--config.steps=20'),
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


def test_a_run_ends_well_and_learns(straight):
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


def test_the_log_has_every_line_once_and_the_board_the_same_numbers(straight):
    workdir, process = straight
    # Every 5 steps, and what is left before each test (4) and checkpoint (3).
    assert [line[0] for line in log(workdir) if line[1] == 'train'] == [3, 4, 5, 6, 8, 9, 10, 12, 15, 16, 18, 20]
    tests = [(step, 'centre') for step in (4, 8, 12, 16, 20)] + [(20, 'ten_view')]
    assert [line[0:3:2] for line in log(workdir) if line[1] == 'validation'] == tests
    assert log(workdir)[-1][3] == read_json(workdir / 'result.json')['ten_view']['loss']
    (board,) = (workdir / 'tensorboard').glob('events.out.tfevents.*')
    for tag in (b'train/loss', b'train/learning_rate', b'validation_centre/top1_error', b'validation_ten_view/loss'):
        assert tag in board.read_bytes()
    assert 'step 20/20' in process.stderr
    assert '\x1b' not in process.stderr + process.stdout  # plain lines where there is no terminal


def test_the_folder_says_what_was_run_and_with_what(straight, tiny):
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


def test_started_twice_the_second_waits_and_finds_all_done(straight, train, tmp_path):
    workdir = tmp_path / 'twice'
    first = train(workdir=workdir, start=True)
    while not (workdir / 'metrics.jsonl').exists() and first.poll() is None:
        time.sleep(0.01)
    second = train('--json', workdir=workdir)
    assert first.communicate(timeout=60) and first.returncode == 0
    assert second.returncode == 0, second.stderr
    assert f', pid {first.pid}) trains in {workdir}: waiting for its end, up to 120 s\n' in second.stderr
    assert 'resuming from step 20 of 20\n' in second.stderr
    expected = read_json(straight[0] / 'result.json')['params_sha256']
    assert json.loads(second.stdout)['params_sha256'] == expected
    assert log(workdir) == log(straight[0])


def test_killed_half_way_and_started_again_it_ends_bit_for_bit_the_same(straight, train, tmp_path):
    workdir = tmp_path / 'killed'
    process = train(workdir=workdir, start=True)
    deadline = time.monotonic() + 120
    while not (workdir / 'checkpoints' / '9').exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert process.returncode == -9
    assert not (workdir / 'result.json').exists()
    with (workdir / 'metrics.jsonl').open('a') as file:
        file.write('{"step": 12, "split": "train", "loss": 1.5}\n{"step": 13, "spl')  # as if killed while writing
    again = train(workdir=workdir)
    assert again.returncode == 0, again.stderr
    resumed = re.search(r'resuming from step (\d+) of 20', again.stderr)
    assert resumed and 9 <= int(resumed[1]) < 20

    expected, found = (read_json(folder / 'result.json') for folder in (straight[0], workdir))
    for name in ('images_per_second', 'data_wait'):  # of the clock
        assert found.pop(name) >= 0
        expected.pop(name)
    assert found == expected
    assert log(workdir) == log(straight[0])


def test_a_finished_run_started_again_repeats_its_result_and_logs_nothing_twice(straight, train, finished):
    before = log(finished)
    again = train('--json', workdir=finished)
    assert again.returncode == 0, again.stderr
    expected = read_json(straight[0] / 'result.json') | {'images_per_second': None, 'data_wait': None}
    assert json.loads(again.stdout.splitlines()[-1]) == expected
    assert log(finished) == before


def test_a_resumed_run_says_what_is_set_otherwise(train, finished):
    process = train('--config.learning_rate=0.001', workdir=finished)
    assert process.returncode == 0
    assert 'last started: learning_rate 0.01, now 0.001\n' in process.stderr
    assert 'last started' not in train('--config.learning_rate=0.001', workdir=finished).stderr


def test_precision_reaches_the_update_and_the_test(train, tmp_path):
    once = ('--config.steps=1', '--config.log_every=1', '--config.evaluate_every=1')
    narrow, wide = tmp_path / 'bfloat16', tmp_path / 'float32'
    for workdir in (narrow, wide):
        process = train(*once, f'--config.precision={workdir.name}', workdir=workdir)
        assert process.returncode == 0, process.stderr
    # The first loss is of the same parameters and images; only its precision, of eight bits, is another.
    losses = [{split: loss for _, split, protocol, loss in log(workdir) if protocol in (None, 'centre')}
              for workdir in (narrow, wide)]  # fmt: skip
    for split in losses[0]:
        assert losses[0][split] != losses[1][split]
        assert losses[0][split] == pytest.approx(losses[1][split], rel=0.05)
    # The same parameters, tested in the other precision.
    found = read_json(wide / 'result.json')['centre']['loss']
    process = train(*once, '--config.precision=bfloat16', workdir=wide)
    assert process.returncode == 0, process.stderr
    assert 'precision' in process.stderr
    again = read_json(wide / 'result.json')['centre']['loss']
    assert again != found
    assert again == pytest.approx(found, rel=0.05)


def test_a_damaged_checkpoint_is_set_aside_and_the_run_ends_the_same(straight, train, finished):
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


def test_when_all_checkpoints_are_damaged_the_run_stops_and_says_so(train, finished):
    steps = sorted(int(path.name) for path in (finished / 'checkpoints').iterdir())
    for step in steps:
        shutil.rmtree(finished / f'checkpoints/{step}/state')
    assert_one_line(train(workdir=finished), r'every checkpoint of this run is damaged \(20: cannot be read: ')
    assert len(list((finished / 'damaged_checkpoints').iterdir())) == len(steps)


@pytest.mark.parametrize(
    ('option', 'named'),
    [
        ('--config.seed=1', 'seed 0, not 1'),
        ('--config.lighting=False', 'lighting True, not False'),
        ('--config.width=0.125', r'width 0\.0625, not 0\.125'),
        ('--config.variant=paper', "variant 'released', not 'paper'; images_per_crop 32, not 1"),
    ],
)
def test_the_folder_of_another_network_is_refused_and_left_alone(train, finished, option, named):
    before = snapshot(finished)
    assert_one_line(train(option, workdir=finished), rf'holds another run \({named}\)')
    assert snapshot(finished) == before


def test_the_folder_of_another_dataset_is_refused_even_under_its_name(train, finished, tmp_path):
    """The same name, but other images: here, a shard of another hash, which opening does not read."""
    config = read_json(finished / 'config.json')
    other = shutil.copytree(config['data_dir'], tmp_path / 'data')
    (manifest,) = other.glob('tiny/*/manifest.json')
    content = read_json(manifest)
    shard = next(entry for file, entry in content['files'].items() if 'train.array_record' in file)
    shard['sha256'] = shard['sha256'][::-1]
    manifest.write_text(json.dumps(content))
    before = snapshot(finished)
    assert_one_line(train(f'--config.data_dir={other}', workdir=finished), 'another run .dataset_fingerprint ')
    assert snapshot(finished) == before


def test_a_folder_that_is_no_run_is_refused_and_left_alone(train, tmp_path):
    (tmp_path / 'thesis.tex').write_text('years of work')
    assert_one_line(train(workdir=tmp_path), 'is not empty and holds no run')
    assert snapshot(tmp_path) == {(tmp_path / 'thesis.tex').relative_to(tmp_path): b'years of work'}


def test_a_folder_that_cannot_be_written_is_refused(train, tmp_path):
    (tmp_path / 'file').write_text('')
    assert_one_line(train(workdir=tmp_path / 'file' / 'run'), 'cannot write to .*/file/run: Not a directory')


def test_a_damaged_run_json_is_refused(train, finished):
    (finished / 'run.json').write_text('{"identi')
    before = snapshot(finished)
    assert_one_line(train(workdir=finished), 'run.json is damaged')
    assert snapshot(finished) == before


def test_an_unknown_dataset_is_refused_with_what_there_is(train, tmp_path):
    process = train(workdir=tmp_path / 'run', dataset='unicorns')
    assert_one_line(process, "no dataset 'unicorns' in .* \\(prepared there: tiny\\)")
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    ('option', 'named'),
    [
        ('--config.learning_rates=0.1', 'unknown config key \'learning_rates\': Did you mean "learning_rate"'),
        ('--config.colour=red', "unknown config key 'colour': alexnet_jax/training/config.py has them all"),
        ('--config.batch_size=many', r'--config\.batch_size=many: '),
        ('--config.steps=1.5', r'--config\.steps=1\.5: '),
        ('--config.mesh=3,2', r'config\.batch_size 8 does not divide over the 3 '),
        ('--config.mesh=1,3', r'config\.mesh is \(1, 3\): .* tower 1 or 2'),
        ('--config.mesh.tower=2', r'--config\.mesh\.tower=2: options of the config look like'),
        ('--config.learning_rate=nan', r'config\.learning_rate is nan: it must be above 0'),
        ('--config.epochs=-1', r'config\.epochs is -1\.0: it must be above 0'),
        ('--workdri=x', "Unknown command line flag 'workdri'"),
        ('epochs=20', "unexpected argument 'epochs=20': options look like --config.epochs=20"),
        ('--config=configs/three_device.py', 'no such config file: .*configs/three_device.py'),
    ],
)
def test_a_wrong_option_is_one_line_and_nothing_is_written(train, tmp_path, option, named):
    assert_one_line(train(option, workdir=tmp_path / 'run'), named)
    assert not (tmp_path / 'run').exists()


def test_without_a_config_it_says_that_one_is_needed(program_cache):
    assert_one_line(cli.run('train', cache=program_cache), '--config must have a value')


def test_a_loss_that_is_no_number_stops_the_run_naming_the_step(train, tmp_path):
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


def test_a_last_update_that_ruins_the_network_is_no_result(train, tmp_path):
    """The loss of a step is that before its update: of the last one, only the test can tell."""
    process = train('--config.learning_rate=1e30', '--config.steps=1', workdir=tmp_path / 'run')
    assert process.returncode == 1
    assert re.fullmatch(r'error: the validation loss is (nan|inf) at step 1: .*', process.stderr.splitlines()[-1])
    assert not (tmp_path / 'run/result.json').exists()
    assert [path.name for path in (tmp_path / 'run/checkpoints').iterdir()] == ['0']  # the state before that update
    assert 'the state before it is checkpoint 0' in process.stderr.splitlines()[-1]


def test_the_start_is_accounted_for_until_the_first_step(straight):
    workdir, process = straight
    (line,) = re.findall(r'^first step after (\d+\.\d) s: (.*)$', process.stderr, re.MULTILINE)
    account = read_json(workdir / 'startup.json')
    assert float(line[0]) == pytest.approx(account['total'], abs=0.051)
    parts = ['imports', 'devices', 'dataset', 'state', 'log', 'data', 'compile', 'step']
    assert list(account['parts']) == parts
    assert re.sub(r' [\d.]+(, |$)', r'\1', line[1]).replace(' (cached)', '') == ', '.join(parts)
    assert account['parts']['imports'] > 0.1  # with the interpreter's own start
    assert process.stderr.index('first step after') < process.stderr.index('step 3/20')


def test_help_names_the_flags(program_cache):
    process = cli.run('train', '--help', cache=program_cache)
    assert process.returncode == 1  # absl's code for help
    for word in ('--config=VALUE', '--workdir=VALUE', '--json ', 'configs/two_device.py', 'Trains AlexNet'):
        assert word in process.stdout


@pytest.mark.parametrize(
    'options', [('--help',), ('--config=configs/two_device.py', '--config.width=9')], ids=['help', 'a wrong value']
)
def test_what_needs_no_devices_loads_none_of_the_heavy_libraries(program_cache, monkeypatch, options):
    monkeypatch.setenv('PYTHONPROFILEIMPORTTIME', '1')  # Python lists what it imports on standard error
    process = cli.run('train', *options, cache=program_cache)
    assert process.returncode == 1
    loaded = {line.rpartition('|')[2].strip() for line in process.stderr.splitlines() if line.startswith('import time')}
    assert {'absl.app', 'ml_collections', 'alexnet_jax.logs.timing'} <= loaded
    heavy = ('jax', 'flax', 'optax', 'orbax', 'grain', 'tensorflow_datasets', 'tensorboardX', 'rich')
    assert [name for name in loaded if name.split('.')[0] in heavy] == []
