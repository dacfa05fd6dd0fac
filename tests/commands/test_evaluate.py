"""`alexnet evaluate`: what it writes and prints, alone, of several networks and in several processes."""

import csv
import dataclasses
import json
import re
import subprocess
import sys

import cli
import numpy as np
import pytest
from random_networks import CLASSES, network_of, save_run, slow_probabilities

from alexnet_jax.distributed.exit import ExitHandler
from alexnet_jax.distributed.hosts import ProcessGroup
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation import evaluate_networks as evaluating
from alexnet_jax.evaluation.evaluate_networks import EvaluationSettings, evaluate_networks
from alexnet_jax.evaluation.open_networks import NetworkArgs, list_remarks, match_classes, open_test_dataset
from alexnet_jax.weights.safetensors_file import save_safetensors

pytestmark = [pytest.mark.usefixtures('optimised'), pytest.mark.slow]

PROTOCOLS = ('centre', 'ten_view')


@pytest.fixture(scope='module')
def runs(tmp_path_factory, tiny, tiny_dir):
    """Folders of two runs that read crops of different sizes, and what the plain network makes of their images."""
    folder, found = tmp_path_factory.mktemp('runs'), {}
    for seed, variant in enumerate(('released', 'caffenet')):
        network = network_of(variant, seed=seed)
        save_run(network, folder / variant, tiny, tiny_dir)
        records = tiny.records('validation')
        rows = {protocol: slow_probabilities(network, records, protocol) for protocol in PROTOCOLS}
        found[str(folder / variant)] = rows
    return found


@pytest.fixture
def evaluate(monkeypatch):
    """The library call, in this process, whose backend is set up already."""
    monkeypatch.setattr(evaluating, 'prepare_backend', lambda *_, **__: None)
    times = {'heartbeat': 10, 'join_timeout': 10, 'stuck_after': 60}

    def call(source, **settings):
        processes = {'group': ProcessGroup(), 'exit_handler': ExitHandler(), **times}
        return evaluate_networks(source, EvaluationSettings(**settings), **processes)

    return call


def expected(rows, labels):
    """Loss and top-1 error by a loop."""
    pairs = list(zip(rows, labels, strict=True))
    wrong = [max(range(3), key=lambda index: row[index]) != label for row, label in pairs]
    return sum(-np.log(row[label]) for row, label in pairs) / len(pairs), sum(wrong) / len(pairs)


def table(path):
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def check_files(folder, tiny, rows):
    """What is in the files follows from `rows`, {protocol: (13, 3)}."""
    labels = [label for _, label in tiny.records('validation')]
    result = json.loads((folder / 'result.json').read_text())
    for protocol, probabilities in rows.items():
        loss, error = expected(probabilities, labels)
        found = result['protocols'][protocol]
        assert (found['examples'], found['top5_error']) == (13, 0)
        assert found['loss'] == pytest.approx(loss, rel=1e-4)
        assert found['top1_error'] == pytest.approx(error, abs=1e-12)
        called = [int(row.argmax()) for row in probabilities]
        confusions = [row for row in table(folder / 'confusion.csv') if row['protocol'] == protocol]
        cells = {(row['class'], row['called']): int(row['images']) for row in confusions}
        pairs = [(CLASSES[label], CLASSES[j]) for label, j in zip(labels, called, strict=True)]
        assert cells == {pair: pairs.count(pair) for pair in pairs}
        classes = [row for row in table(folder / 'per_class.csv') if row['protocol'] == protocol]
        assert [(row['name'], int(row['images'])) for row in classes] == [('blue', 5), ('green', 4), ('red', 4)]
        bins = [row for row in table(folder / 'calibration.csv') if row['protocol'] == protocol]
        assert len(bins) == 15 and sum(int(row['images']) for row in bins) == 13
    return result


def test_evaluate_networks_averages_the_members_of_an_ensemble(runs, evaluate, tiny, tmp_path):
    """One of crops of 224, one of 227; the reference rows of ensembles beside it."""
    result, text = evaluate(NetworkArgs(workdir=list(runs)), output=str(tmp_path / 'out'))
    first, second = runs.values()
    mean = {protocol: (first[protocol] + second[protocol]) / 2 for protocol in PROTOCOLS}
    assert check_files(tmp_path / 'out', tiny, mean) == json.loads(json.dumps(result))
    labels = [label for _, label in tiny.records('validation')]
    for protocol in PROTOCOLS:
        members = result['protocols'][protocol]['members']
        for member, rows in zip(members, runs.values(), strict=True):
            assert member['loss'] == pytest.approx(expected(rows[protocol], labels)[0], rel=1e-4)
    centre, ten_view = text.split('\n\n')[:2]
    assert centre.startswith('centre:') and ten_view.startswith('ten-view:')
    assert 'mean of all' in centre and '5 CNNs' not in centre
    assert 'paper, 5 CNNs' in ten_view and 'not comparable: ILSVRC-2012, not tiny' in ten_view
    assert [network['variant'] for network in result['networks']] == ['released', 'caffenet']


def test_evaluate_on_two_processes_finds_the_same_and_one_speaks(runs, tiny, tmp_path, program_cache):
    """Each has a replica, and so half of the images."""
    workdir = next(iter(runs))
    given = [f'--workdir={workdir}', '--mesh=2,1', f'--output={tmp_path / "out"}', '--json']
    launcher = [sys.executable, '-m', 'alexnet_jax', 'launch', '--verb=evaluate', '--processes=2', '--', *given]
    environment = cli.environment(program_cache)
    options = {'cwd': cli.ROOT, 'env': environment, 'capture_output': True, 'text': True, 'timeout': 300}
    done = subprocess.run(launcher, check=False, **options)
    assert done.returncode == 0, done.stderr
    result = check_files(tmp_path / 'out', tiny, runs[workdir])
    *_, line = lines = done.stdout.splitlines()
    assert json.loads(line) == result
    assert [line for line in lines if line.startswith('centre:')] == [lines[0]]
    # Where the machine is slow, progress too.
    assert all(re.fullmatch(r'(centre|ten-view): \d+ of 13 images', line) for line in done.stderr.splitlines())


def test_evaluate_networks_of_weights_needs_a_dataset_by_name(evaluate, runs, tiny, tiny_dir, tmp_path):
    save_safetensors(network_of('released'), tmp_path / 'w.safetensors')
    source = NetworkArgs(weights=[str(tmp_path / 'w.safetensors')])
    given = {'output': str(tmp_path / 'out'), 'protocols': ['centre']}
    with pytest.raises(InputError, match='give --dataset=NAME'):
        evaluate(source, **given)
    evaluate(source, dataset='tiny', data_dir=str(tiny_dir), batch_size=4, **given)
    check_files(tmp_path / 'out', tiny, {'centre': next(iter(runs.values()))['centre']})


def test_evaluate_networks_refuses_what_cannot_be_tested(evaluate, runs, tmp_path):
    workdir = next(iter(runs))
    cases = [
        ({}, {'output': str(tmp_path)}, 'no network is named'),
        ({'workdir': list(runs)}, {}, 'give --output=DIR'),
        ({'workdir': [workdir]}, {'protocols': ['center']}, "--protocols names 'center'"),
        ({'workdir': [workdir]}, {'split': 'test'}, "has no split 'test'"),
        ({'workdir': [workdir], 'step': 9}, {}, '9'),
        ({'weights': ['w.safetensors'], 'step': 9}, {'output': str(tmp_path)}, '--step is for --workdir'),
        ({'workdir': [str(tmp_path / 'none')]}, {}, 'none'),
    ]
    for source, settings, words in cases:
        with pytest.raises(InputError, match=words):
            evaluate(NetworkArgs(**source), **settings)


def test_evaluate_networks_refuses_an_unwritable_output_before_the_test(evaluate, runs, monkeypatch, tmp_path):
    """Which may take hours."""
    monkeypatch.setattr(NetworkArgs, 'open', None)
    (tmp_path / 'file').write_text('')
    for output in ('file', 'file/deeper/folder'):
        with pytest.raises(InputError, match=rf'cannot write to .*/{output}: Not a directory; choose another --output'):
            evaluate(NetworkArgs(workdir=[next(iter(runs))]), output=str(tmp_path / output))


def test_evaluate_networks_refuses_non_finite_probabilities(evaluate, runs, tiny_dir, monkeypatch, tmp_path):
    network = network_of()
    network.params['fc8']['bias'] = np.full(3, np.nan, np.float32)
    monkeypatch.setattr(NetworkArgs, 'open', lambda self: [network])
    given = {'dataset': 'tiny', 'data_dir': str(tiny_dir), 'batch_size': 4, 'protocols': ['centre']}
    with pytest.raises(InputError, match='random gives no numbers for 13 images: its weights are damaged'):
        evaluate(NetworkArgs(workdir=[str(tmp_path)]), **given)
    assert list(tmp_path.iterdir()) == []


def test_open_test_dataset_checks_the_classes(tiny, tiny_dir):
    given = {'name': 'tiny', 'data_dir': str(tiny_dir)}
    assert list_remarks([network_of()], open_test_dataset([network_of()], **given)) == []
    for classes in (
        ('blue', 'green'),
        ('blue', 'green', 'yellow'),
        ('blue', 'green', 'yellow', 'pink'),
        ('n00000001 blue', 'b', 'c'),
    ):
        with pytest.raises(InputError, match='which are not the same'):
            open_test_dataset([network_of(classes=classes)], **given)
    others = [network_of(classes=('n01', 'n02', 'n03'))]  # the same by other names: WordNet's of ImageNet
    assert 'taken to be the same, in the same order' in list_remarks(others, open_test_dataset(others, **given))[0]
    unnamed = [network_of(classes=('0', '1', '2'))]
    assert 'does not name its classes' in list_remarks(unnamed, open_test_dataset(unnamed, **given))[0]
    padded = dataclasses.replace(tiny, classes=tuple(f'{i:02}' for i in range(1, 13)))  # in the numbers' order
    assert match_classes(network_of(classes=tuple(map(str, range(12)))), padded) is None
    # ImageNetV2's folders are numbers of outputs, which a listing puts in the order 0, 1, 10, 11, 2, ...
    letters = network_of(classes=tuple('abcdefghijkl'))
    numbered = dataclasses.replace(tiny, classes=('0', '1', '10', '11', '2'))
    assert match_classes(letters, numbered) == [0, 1, 10, 11, 2]
    from_one = dataclasses.replace(tiny, classes=('1', '10', '11', '12', *map(str, range(2, 10))))
    for network in (letters, network_of(classes=tuple(map(str, range(12))))):
        with pytest.raises(InputError, match=r'are numbers, in the order 1, 10, 11, .*--classes=imagenet2012'):
            match_classes(network, from_one)
    with pytest.raises(InputError, match=r'4 outputs without names .*--classes=FILE, or --classes=imagenet2012'):
        open_test_dataset([network_of(classes=('0', '1', '2', '3'))], **given)
    two = [network_of(), network_of(classes=('red', 'green', 'blue'))]
    with pytest.raises(InputError, match='at different outputs: test them one by one'):
        open_test_dataset(two, **given)


def test_evaluate_networks_maps_the_labels_of_a_subset(evaluate, tiny, tiny_dir, tmp_path):
    """A network of five classes, three of which are the dataset's, in another order and by other names."""
    network = network_of(classes=('n00000001 red, crimson', 'pink', 'n00000002 blue', 'grey', 'green'))
    save_safetensors(network, tmp_path / 'w')
    source = NetworkArgs(weights=[str(tmp_path / 'w')])
    given = {'dataset': 'tiny', 'data_dir': str(tiny_dir), 'batch_size': 4, 'protocols': ['centre']}
    result, _ = evaluate(source, output=str(tmp_path / 'out'), **given)
    records = tiny.records('validation')
    rows = slow_probabilities(network, records, 'centre')
    labels = [{'blue': 2, 'green': 4, 'red': 0}[tiny.classes[label]] for _, label in records]
    wrong = [max(range(5), key=lambda index: row[index]) != label for row, label in zip(rows, labels, strict=True)]
    found = result['protocols']['centre']
    assert found['top1_error'] == pytest.approx(sum(wrong) / 13)
    assert found['loss'] == pytest.approx(
        np.mean([-np.log(row[label]) for row, label in zip(rows, labels, strict=True)]), rel=1e-4
    )
    classes = [(row['name'], int(row['images'])) for row in table(tmp_path / 'out' / 'per_class.csv')]
    assert classes == [(network.classes[i], labels.count(i)) for i in range(5)]
    (remark,) = list_remarks([network], open_test_dataset([network], name='tiny', data_dir=str(tiny_dir)))
    assert 'are its outputs 2, 4, 0, by name; all of its classes compete' in remark
    among, _ = evaluate(source, output=str(tmp_path / 'among'), among='dataset', **given)
    # The softmax over some of the outputs is that over all, divided by what they have of it.
    chosen = [[row[index] / (row[2] + row[4] + row[0]) for index in (2, 4, 0)] for row in rows]
    loss, error = expected(chosen, [label for _, label in records])
    assert (among['protocols']['centre']['loss'], among['among']) == (pytest.approx(loss, rel=1e-4), 'dataset')
    assert among['protocols']['centre']['top1_error'] == pytest.approx(error, abs=1e-12)
    assert [row['name'] for row in table(tmp_path / 'among' / 'per_class.csv')] == list(tiny.classes)


@pytest.mark.parametrize(
    ('option', 'words'),
    [
        ('--mesh=3', '--mesh=3: it must be two whole numbers'),
        pytest.param('--batch_size=0', 'batch_size', marks=pytest.mark.repeats),
        pytest.param('stray', "unexpected argument 'stray'", marks=pytest.mark.repeats),
    ],
)
def test_evaluate_names_a_mistake_in_the_command_line_in_one_line(program_cache, option, words):
    done = cli.run('evaluate', '--workdir=runs/x', option, cache=program_cache)
    assert done.returncode == 1
    assert done.stderr.startswith('error: ') and words in done.stderr and done.stderr.count('\n') == 1
    assert done.stdout == ''


def test_evaluate_networks_takes_other_labels_by_file_name(evaluate, tiny, tiny_dir, tmp_path):
    """A network of five classes; by turns the class that it answers and another, one that it does not, and none."""
    network = network_of(classes=('n00000001 red, crimson', 'pink', 'n00000002 blue', 'grey', 'green'))
    save_safetensors(network, tmp_path / 'w')
    names = json.loads((tiny.directory / 'validation_names.json').read_text())
    assert sorted(names) == sorted(f'{("blue", "green", "red")[i % 3]}/{i}.png' for i in range(13))  # conftest.py's
    rows = slow_probabilities(network, tiny.records('validation'), 'centre')
    allowed = [([row.argmax(), row.argmin()], [row.argmin()], [])[index % 3] for index, row in enumerate(rows)]
    short = ('crimson', 'pink', 'n00000002', 'grey', 'green')
    labels = {name: [short[index] for index in found] for name, found in zip(names, allowed, strict=True)}
    (tmp_path / 'labels.json').write_text(json.dumps(labels, sort_keys=True))
    given = {'dataset': 'tiny', 'data_dir': str(tiny_dir), 'batch_size': 4, 'labels': str(tmp_path / 'labels.json')}
    source, given = NetworkArgs(weights=[str(tmp_path / 'w')]), given | {'protocols': ['centre']}
    result, text = evaluate(source, output=str(tmp_path / 'out'), **given)
    found = result['protocols']['centre']
    assert (found['examples'], found['top1_error']) == (9, pytest.approx(4 / 9))
    losses = [-np.log(row[right].sum()) for row, right in zip(rows, allowed, strict=True) if right]
    assert found['loss'] == pytest.approx(np.mean(losses), rel=1e-4)
    assert result['published']['centre'] == []
    assert result['labels'].items() >= {'file': given['labels'], 'left_out': 4, 'unknown': 0}.items()
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['calibration.csv', 'result.json']
    assert 'labels.json. 4 images without one are left out.\n\n' in text
    with pytest.raises(InputError, match='leave out --corruptions'):
        evaluate(source, output=str(tmp_path), corruptions=['fog'], **given)
