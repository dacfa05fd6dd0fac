"""`alexnet evaluate --corruptions` and `--corrupted`: what it tests, writes, prints and refuses."""

import csv
import json

import cli
import numpy as np
import pytest
from PIL import Image
from random_networks import network_of, slow_probabilities

from alexnet_jax.data import corruption_constants
from alexnet_jax.data.corruption_constants import CORRUPTIONS
from alexnet_jax.data.corruptions import compress_jpeg, corrupt, make_stream
from alexnet_jax.data.pipeline import read_whole_image
from alexnet_jax.distributed.exit import ExitHandler
from alexnet_jax.distributed.hosts import ProcessGroup
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation import evaluate_corruptions, evaluate_networks
from alexnet_jax.evaluation.corruption_picture import draw_corruptions
from alexnet_jax.evaluation.evaluate_corruptions import format_corruptions, parse_severities, plan_corruptions
from alexnet_jax.evaluation.evaluation_settings import EvaluationSettings
from alexnet_jax.evaluation.open_networks import NetworkArgs
from alexnet_jax.weights.class_names import read_class_names
from alexnet_jax.weights.safetensors_file import save_safetensors


@pytest.fixture
def evaluate(monkeypatch, tiny_dir):
    """The library call, in this process, of a network of another order of classes; its output and result."""
    network = network_of(classes=('red', 'blue', 'green'))
    monkeypatch.setattr(evaluate_networks, 'prepare_backend', lambda *_, **__: None)
    monkeypatch.setattr(NetworkArgs, 'open', lambda self: [network])
    times = {'heartbeat': 10, 'join_timeout': 10, 'stuck_after': 60}

    def call(source=NetworkArgs(), **settings):  # noqa: B008
        processes = {'group': ProcessGroup(), 'exit_handler': ExitHandler(), **times}
        given = EvaluationSettings(data_dir=str(tiny_dir), batch_size=4, **settings)
        return evaluate_networks.evaluate_networks(source, given, **processes)

    return network, call


@pytest.mark.slow
def test_evaluate_corrupts_on_the_fly_and_reads_the_same_from_folders(evaluate, tiny, tmp_path):
    """The folder holds what is tested on the fly, cut out as ImageNet-C is, so its errors are the same."""
    network, call = evaluate
    labels = [{'red': 0, 'blue': 1, 'green': 2}[tiny.classes[label]] for _, label in tiny.records('validation')]
    wrong = {}
    for name, severity in (('contrast', 5), ('gaussian_noise', 5), ('clean', 0)):
        records = []
        for index in range(13):
            image = read_whole_image(tiny.records('validation'), index, record_size=256)
            if severity:
                image = compress_jpeg(corrupt(image, name, severity, make_stream(3, index, name, severity)), 85)
                path = tmp_path / 'c' / name / '5' / network.classes[labels[index]] / f'{index:02}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image[16:240, 16:240]).save(path)
            records.append((image, 0))
        rows = slow_probabilities(network, records, 'centre', decoded=True)
        wrong[name] = sum(row.argmax() != label for row, label in zip(rows, labels, strict=True)) / 13
    assert len(set(wrong.values())) > 1  # they have an effect
    given = {'corruptions': ['gaussian_noise', 'contrast'], 'severities': ['5'], 'dataset': 'tiny'}
    result, text = call(**given, seed=3, output=str(tmp_path / 'out'))
    folder, table = call(corrupted=str(tmp_path / 'c'), severities=['5'], output=str(tmp_path / 'of_files'))
    assert (result['constants'], result['seed'], result['imagenet']) == ('ImageNet-C', 3, False)
    assert list(result['corruptions']) == ['gaussian_noise', 'contrast']  # in the published order
    assert result['clean']['top1_error'] == pytest.approx(wrong['clean'])
    for name in ('gaussian_noise', 'contrast'):
        found = result['corruptions'][name]
        assert found['severities']['5']['top1_error'] == pytest.approx(wrong[name])
        assert found['severities']['5']['examples'] == 13
        assert found['relative_error'] == pytest.approx(wrong[name] - wrong['clean'])
        assert found['ce'] is None and 'published' not in found
        assert folder['corruptions'][name]['mean_error'] == pytest.approx(wrong[name])
        assert folder['corruptions'][name]['severities']['5']['loss'] == pytest.approx(found['severities']['5']['loss'])
    assert folder['clean'] is None and folder['dataset'] is None and folder['corrupted'] == str(tmp_path / 'c')
    assert json.loads((tmp_path / 'out' / 'result.json').read_text()) == json.loads(json.dumps(result))
    rows = list(csv.DictReader((tmp_path / 'out' / 'corruptions.csv').open()))
    assert [(row['corruption'], row['severity']) for row in rows] == [('gaussian_noise', '5'), ('contrast', '5')]
    assert [float(row['top1_error']) for row in rows] == pytest.approx([wrong['gaussian_noise'], wrong['contrast']])
    assert Image.open(tmp_path / 'out' / 'corruptions.png').format == 'PNG'
    assert f'clean: {wrong["clean"]:.2%} of 13 images' in text and 'no mCE: AlexNet' in text
    assert table.splitlines()[1].split()[:2] == ['gaussian_noise', f'{wrong["gaussian_noise"]:.2%}']


def test_all_corruptions_of_imagenet_have_an_mce(tmp_path):
    """The table and the picture, of errors that are half of AlexNet's."""
    names = read_class_names('imagenet2012')
    assert evaluate_corruptions._is_imagenet(names) and not evaluate_corruptions._is_imagenet(names[:999])
    published = evaluate_corruptions.corruption_measures.load_published_errors()
    found, measured = {}, {}
    for name in CORRUPTIONS:
        errors = {s: published.corrupted[name][s - 1] / 2 for s in range(1, 6)}
        one = measured[name] = evaluate_corruptions.corruption_measures.measure_corruption(
            name, errors, clean=published.clean / 2, published=published
        )
        theirs = {str(s): published.corrupted[name][s - 1] for s in errors}
        severities = {str(s): {'top1_error': error} for s, error in errors.items()}
        found[name] = {'severities': severities, 'published': theirs, **vars(one)}
    mean = vars(evaluate_corruptions.corruption_measures.average_corruptions(measured))
    result = {'corruptions': found, 'imagenet': True, 'mean': mean, 'clean': {'top1_error': 0.2174, 'examples': 50000}}
    lines = format_corruptions(result).splitlines()
    assert ' '.join(lines[0].split()) == 'top-1 error at severity: 1 2 3 4 5 mean above clean AlexNet CE relative CE'
    brightness = 'brightness 22.57% 24.25% 27.02% 31.08% 36.22% 28.23% 6.49% 56.46% 50.00% 50.00%'
    assert brightness in [' '.join(line.split()) for line in lines]
    assert lines[-2].split()[0] == 'mean' and lines[-2].split()[-2:] == ['50.00%', '50.00%']
    assert lines[-1] == 'clean: 21.74% of 50,000 images'
    told = {'networks': [{'source': 'runs/x, step 1'}], 'dataset': None, 'corrupted': 'imagenet-c'}
    draw_corruptions(tmp_path / 'picture.png', result | told)
    assert Image.open(tmp_path / 'picture.png').size[0] > 500


def test_severities_are_numbers_and_ranges():
    assert parse_severities([]) == (1, 2, 3, 4, 5)
    assert parse_severities(['1..5']) == (1, 2, 3, 4, 5)
    assert parse_severities(['5', '2..3', '2']) == (2, 3, 5)
    for bad in ('0', '6', '3..1', '0..5', '1..6', 'x', '', '1...5', '-1', '٣'):
        with pytest.raises(InputError, match=r'they are 1 to 5: give 1\.\.5, or some'):
            parse_severities([bad])


def test_plan_corruptions_refuses_what_does_not_go(monkeypatch, tmp_path):
    monkeypatch.setattr(corruption_constants, '_PACKAGE', 'not_installed')
    corruption_constants.load_frost.cache_clear()
    np.save(tmp_path / 'fog.npy', np.zeros(1))
    for settings, words in (
        ({'corruptions': ['fogg']}, "--corruptions=fogg: did you mean 'fog'"),
        (
            {'corruptions': ['rain']},
            '--corruptions=rain: known are all, gaussian_noise, shot_noise, .*jpeg_compression',
        ),
        ({'corruptions': ['fog'], 'severities': ['7']}, '--severities=7: they are 1 to 5'),
        ({'severities': ['1']}, '--severities and --seed are for --corruptions=all, or names of some'),
        ({'seed': 1}, '--severities and --seed are for --corruptions=all, or names of some'),
        ({'corrupted': str(tmp_path), 'seed': 1}, 'the images of --corrupted are corrupted already'),
        ({'corrupted': str(tmp_path), 'preprocessing': 'caffe'}, 'those of --corrupted are squares already'),
        ({'corruptions': ['fog'], 'protocols': ['ten_view']}, 'in the centre view'),
        ({'corruptions': ['all']}, r"frost needs pictures of it: pip install 'alexnet-jax\[corruptions\]'"),
        ({'corrupted': str(tmp_path), 'corruptions': ['snow']}, 'has no snow: it has fog'),
    ):
        with pytest.raises(InputError, match=words):
            plan_corruptions(EvaluationSettings(**settings))
    assert plan_corruptions(EvaluationSettings()) is None
    chosen = plan_corruptions(EvaluationSettings(corruptions=['fog', 'snow'], protocols=['centre'], severities=['3']))
    assert (chosen.corruptions, chosen.severities, chosen.files) == (('snow', 'fog'), (3,), None)
    assert plan_corruptions(EvaluationSettings(corrupted=str(tmp_path))).corruptions == ('fog',)


def test_evaluate_corrupts_the_images_of_one_network_at_a_time(evaluate, monkeypatch, tmp_path):
    _, call = evaluate
    monkeypatch.setattr(NetworkArgs, 'open', None)
    with pytest.raises(InputError, match='several networks are named, and one is wanted'):
        call(NetworkArgs(weights=['a', 'b']), corruptions=['fog'], output=str(tmp_path / 'out'))


@pytest.mark.slow
def test_evaluate_takes_corruptions_from_the_command_line(tiny_dir, tmp_path, program_cache):
    save_safetensors(network_of(), tmp_path / 'w')
    given = (f'--weights={tmp_path / "w"}', '--dataset=tiny', f'--data_dir={tiny_dir}', f'--output={tmp_path / "out"}')
    done = cli.run('evaluate', *given, '--corruptions=fog', '--severities=1,3', '--json', cache=program_cache)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result['corruptions']['fog']['severities']) == ['1', '3']
    assert {path.name for path in (tmp_path / 'out').iterdir()} == {'corruptions.csv', 'corruptions.png', 'result.json'}
