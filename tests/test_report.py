"""The report command on two run folders, with names of classes that would break a careless page; in a browser too."""

import json
import re

import browser
import commands
import jax
import numpy as np
import pytest

from alexnet_jax.data.augment import centre_crop
from alexnet_jax.model.filters import tower_colours
from alexnet_jax.parallel.mesh import make_mesh
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.training.config import recipe, validate
from alexnet_jax.training.recipe import optimizer_of, variant_of
from alexnet_jax.training.state import create_state
from alexnet_jax.training.workdir import claim

CLASSES = ['<b>blue</b>', 'a$x_y$ & "b"', "<script>alert('c')</script>"]
TESTED = {'examples': 13, 'loss': 1.0, 'top1_error': 0.25, 'top5_error': 0.0}


def folder(workdir, tiny, tiny_dir, *, logged, **values):
    """A run folder with a fresh network as checkpoint 4, and the log of a run; returns its config and first kernel."""
    config = recipe('tiny', mesh=values.pop('mesh'))
    config.update(width=0.0625, batch_size=8, data_dir=str(tiny_dir), **values)
    validate(config)
    claim(workdir, config, tiny, make_mesh(1, 1))
    run = json.loads((workdir / 'run.json').read_text())
    (workdir / 'run.json').write_text(json.dumps(run | {'classes': CLASSES}))
    mean = np.asarray(centre_crop(tiny.mean_image, 224))
    state = create_state(
        variant_of(config), optimizer_of(config), make_mesh(1, 1), num_classes=3, mean_image=mean, seed=5
    )
    with Checkpoints(workdir, keep=2) as checkpoints:
        checkpoints.save(state.__class__(**{**vars(state), 'step': state.step + 4}), data_order=0)
    train = {'loss': 1.1, 'top1_error': 0.6, 'learning_rate': 0.01, 'data_wait': 0.0, 'images_per_second': 16.0}
    colours = {'colour_tower0': 0.125, 'colour_tower1': 0.75} if logged else {}
    lines = [
        {'step': 2, 'split': 'train', **train},
        {'step': 2, 'split': 'validation', 'protocol': 'centre', **TESTED, **colours},
        {'step': 4, 'split': 'train', **train, 'images_per_second': 8.0},
    ]
    (workdir / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return np.asarray(jax.device_get(state.params['conv1']['kernel']))


@pytest.fixture(scope='module')
def runs(tmp_path_factory, tiny, tiny_dir):
    """Two run folders, the first of two towers and finished, the second of one and not; and the first's kernel."""
    root = tmp_path_factory.mktemp('runs')
    kernel = folder(root / 'one', tiny, tiny_dir, logged=True, variant='released', mesh=(1, 2))
    result = {'centre': TESTED, 'ten_view': TESTED | {'top1_error': 0.125}, 'steps': 4}
    (root / 'one/result.json').write_text(json.dumps(result))
    (root / 'one/startup.json').write_text('{"total": 2.5, "parts": {"imports": 1.0, "step": 1.5}}')
    folder(root / 'two', tiny, tiny_dir, logged=False, variant='one_weird_trick', mesh=(1, 1))
    return root, kernel


def report(*options, cache):
    process = commands.run('report', *options, cache=cache)
    assert process.returncode == 0, process.stderr
    return process


@pytest.fixture(scope='module')
def one(runs, program_cache, tmp_path_factory):
    """The report of the first run, and its pictures' folder."""
    out = tmp_path_factory.mktemp('report')
    report(
        f'--workdir={runs[0] / "one"}', f'--output={out / "one.html"}', f'--figures={out / "pngs"}', cache=program_cache
    )
    return out / 'one.html', out / 'pngs'


@pytest.fixture(scope='module')
def two(runs, program_cache, tmp_path_factory):
    """The report of both."""
    path = tmp_path_factory.mktemp('report') / 'two.html'
    report(f'--workdir={runs[0] / "one"},{runs[0] / "two"}', f'--output={path}', cache=program_cache)
    return path


def words(path):
    """The text of a page, its tags and pictures taken out."""
    text = re.sub(r'<style>.*?</style>|<[^>]*>', ' ', path.read_text(), flags=re.DOTALL)
    return ' '.join(text.split())


def test_a_report_says_what_the_folder_says(one, runs):
    text = words(one[0])
    assert '12.5 % top-1 error, ten-view ± 9.2, standard error of 13 images' in text  # sqrt(.125 * .875 / 13)
    assert '25.0 % top-1 error, centre' in text
    # Two steps of 8 images at 16 a second, and two at 8: 3 s.
    assert '0:03 of training 11 images a second' in text
    assert json.loads((runs[0] / 'one/run.json').read_text())['commit'] in text
    means = tower_colours(runs[1])
    for tower in (0, 1):
        assert f'tower {tower}: {means[f"colour_tower{tower}"]:.3f}' in text
    # conv3's exchange: 8 images of 13 x 13 x 8 channels of the other tower, float32.
    assert f'conv3 forward all-gather tower float32 [2, 8, 13, 13, 8] {8 * 13 * 13 * 8 * 4:,}' in text
    assert 'paper, 1 CNN' in text and 'ILSVRC-2012, validation (other images) 40.7 % 18.2 %' in text
    assert text.index('Protocol: ten-view') < text.index('40.7 %') < text.index('Protocol: centre')


def test_the_course_has_the_start_the_log_and_the_end(runs):
    from alexnet_jax.figures.runs import read_run

    run = read_run(runs[0] / 'one', name='one')
    assert list(run.course) == [0, 2, 4]
    assert run.course[0] == pytest.approx(tower_colours(run.start))
    assert run.course[2] == {'colour_tower0': 0.125, 'colour_tower1': 0.75}
    assert run.course[4] == pytest.approx(tower_colours(runs[1]))
    # The start is that of the config's seed, 0, and the checkpoint was made with another.
    assert not np.array_equal(run.start, runs[1])


def test_names_stay_names(one, two):
    for path in (one[0], two):
        text = path.read_text()
        assert '<script' not in text and '<b>blue' not in text
        assert '&lt;b&gt;blue' in text and 'a$x_y$ &amp; ' in text


def test_pictures_are_written(one):
    names = sorted(path.name for path in one[1].iterdir())
    assert {'loss.png', 'one_filters_tower0.png', 'one_confusion.png', 'one_towers.png'} <= set(names)
    assert all((one[1] / name).read_bytes().startswith(b'\x89PNG') for name in names)


def test_runs_are_compared(two):
    text = words(two)
    assert text.startswith('2 runs compared') or '2 runs compared' in text[:200]
    assert 'one released, width 0.0625 tiny 4 x 8 12.5 % 25.0 %' in text
    assert 'two one_weird_trick, width 0.0625 tiny 4 x 8, not finished not measured 25.0 %' in text
    assert 'This network has no towers to specialise' in text


@pytest.mark.parametrize('width', [390, 1200])
def test_a_browser_shows_all_and_fetches_nothing(one, two, width):
    for path in (one[0], two):
        seen = browser.look_at(path, width=width)
        assert seen['console'] == []
        assert seen['fetched'] == [] and seen['scripts'] == 0
        assert [name for name in seen['asked'] if 'frame' not in name] == [f'/{path.name}']
        assert seen['width'] <= width  # nothing sticks out
        assert seen['pictures'] > 10 and seen['broken'] == []
        assert seen['drawings'] >= 7
        assert "<script>alert('c')</script>" in seen['text']


def test_dark_paper_where_it_is_preferred(one):
    light, dark = (browser.look_at(one[0], width=390, dark=dark) for dark in (False, True))
    assert (light['paper'], dark['paper']) == ('rgb(253, 253, 252)', 'rgb(20, 24, 30)')
    assert light['ink'] != dark['ink']  # text in charts too


@pytest.mark.parametrize(
    ('options', 'says'),
    [
        (['--workdir=nowhere'], 'nowhere is no run folder'),
        (['--workdir=ONE,ONE'], 'names a run twice'),
        (['--workdir=ONE', '--output=nowhere/r.html'], 'there is no folder nowhere'),
    ],
)
def test_a_mistake_is_one_line(runs, program_cache, options, says):
    options = [option.replace('ONE', str(runs[0] / 'one')) for option in options]
    process = commands.run('report', *options, cache=program_cache)
    assert process.returncode == 1 and process.stdout == ''
    assert process.stderr.startswith('error: ') and says in process.stderr and process.stderr.count('\n') == 1


def test_without_its_dataset_a_report_says_what_it_leaves_out(runs, program_cache, tmp_path):
    process = report(
        f'--workdir={runs[0] / "one"}', '--data_dir=nowhere', f'--output={tmp_path / "r.html"}', cache=program_cache
    )
    assert 'the report leaves out what needs the images' in process.stderr
    text = words(tmp_path / 'r.html')
    assert text.count('Left out: ') == 2 and 'tower 0: ' in text
