"""The report command on two run folders, with names of classes that would break a careless page; in a browser too."""

import functools
import json
import re
import shutil

import browser
import commands
import jax
import numpy as np
import pytest

from alexnet_jax import InputError
from alexnet_jax.data.augment import centre_crop
from alexnet_jax.figures.runs import read_run
from alexnet_jax.model.filters import tower_colours
from alexnet_jax.parallel.mesh import make_mesh
from alexnet_jax.running import report as running
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


@pytest.fixture
def here(monkeypatch):
    """write_report in this process, which has its devices already."""
    monkeypatch.setattr(running, 'prepare_backend', lambda mesh: None)
    return running.write_report


@pytest.fixture(scope='module')
def one(runs, program_cache, tmp_path_factory):
    """The report of the first run, made by the command, and its pictures' folder."""
    out = tmp_path_factory.mktemp('report')
    options = [f'--workdir={runs[0] / "one"}', f'--output={out / "one.html"}', f'--figures={out / "pngs"}']
    process = commands.run('report', *options, cache=program_cache)
    assert process.returncode == 0, process.stderr
    assert re.fullmatch(r'\S+one\.html: 0\.\d MB, \d+ pictures in \S+pngs\n', process.stdout)
    return out / 'one.html', out / 'pngs'


@pytest.fixture(scope='module')
def two(runs, tmp_path_factory):
    """The report of both."""
    path = tmp_path_factory.mktemp('report') / 'two.html'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, 'prepare_backend', lambda mesh: None)
        running.write_report([runs[0] / 'one', runs[0] / 'two'], output=path)
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


def test_the_file_itself_names_nothing_to_fetch(one, two):
    """Without a browser: everything that can make one fetch is data inside the file, or a place in it."""
    for path in (one[0], two):
        text = path.read_text()
        places = re.findall(r'(?:src|href|srcset|poster|data|action)\s*=\s*"([^"]{0,12})', text)
        assert len(places) > 20
        assert {place[:5] for place in places if not place.startswith('#')} == {'data:'}
        assert not re.search(r'@import|url\((?!#)|<(?:script|iframe|object|embed|base)|style="[^"]*url', text)
        assert text.count('<link') == 1 and '<link rel="icon" href="data:,">' in text
        assert "default-src 'none'" in text


@functools.cache
def seen(path, width, dark=False):
    return browser.look_at(path, width=width, dark=dark)


@pytest.mark.parametrize(('width', 'dark'), [(360, False), (360, True), (1200, False)])
def test_a_browser_shows_all_and_fetches_nothing(one, two, width, dark):
    for path in (one[0], two):
        found = seen(path, width, dark)
        assert found['console'] == []
        assert found['fetched'] == [] and found['scripts'] == 0
        assert [name for name in found['asked'] if 'frame' not in name] == [f'/{path.name}']
        assert found['width'] <= width  # nothing sticks out
        assert found['pictures'] > 10 and found['broken'] == []
        assert found['drawings'] >= 7
        assert "<script>alert('c')</script>" in found['text']


def test_dark_paper_where_it_is_preferred(one):
    light, dark = (seen(one[0], 360, dark) for dark in (False, True))
    assert (light['paper'], dark['paper']) == ('rgb(253, 253, 252)', 'rgb(20, 24, 30)')
    assert light['ink'] != dark['ink']  # text in charts too


def copied(runs, tmp_path, *left_out):
    """A copy of the first run's folder without these."""
    shutil.copytree(runs[0] / 'one', tmp_path / 'one', ignore=shutil.ignore_patterns(*left_out))
    return tmp_path / 'one'


def test_a_folder_with_little_in_it_makes_a_page_that_says_so(here, runs, tmp_path, capsys):
    """A run that was killed early, copied from elsewhere without its dataset and its notes."""
    workdir = copied(runs, tmp_path, 'metrics.jsonl', 'result.json', 'startup.json', 'run.json')
    here([workdir], output=tmp_path / 'r.html', data_dir='nowhere')
    assert 'the report leaves out what needs the images' in capsys.readouterr().err
    text = words(tmp_path / 'r.html')
    assert text.count('Left out: ') == 2
    assert 'No log of training, and so no curves: one.' in text
    assert text.count('Not measured.') == 2  # under either protocol
    assert 'the run is not finished' in text and 'commit not recorded' in text
    assert 'tower 0: ' in text and 'conv3 forward all-gather' in text


def truncate(name):
    def spoil(workdir):
        path = workdir / name
        path.write_text(path.read_text()[:-9])

    return spoil


def remove(name):
    return lambda workdir: shutil.rmtree(workdir / name) if (workdir / name).is_dir() else (workdir / name).unlink()


@pytest.mark.parametrize(
    ('spoil', 'says'),
    [
        (remove('config.json'), 'is no run folder'),
        (truncate('config.json'), 'config.json is damaged'),
        (remove('checkpoints'), 'no checkpoint'),
        (truncate('run.json'), 'run.json is damaged'),
        (truncate('result.json'), 'result.json is damaged'),
        (truncate('startup.json'), 'startup.json is damaged'),
    ],
)
def test_a_folder_that_cannot_be_read_is_one_line(here, runs, tmp_path, spoil, says):
    workdir = copied(runs, tmp_path)
    spoil(workdir)
    with pytest.raises(InputError, match=says) as caught:
        here([workdir], output=tmp_path / 'r.html')
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'r.html').exists()


def test_mistakes_are_one_line(here, runs, tmp_path, program_cache):
    one = runs[0] / 'one'
    photo = tmp_path / 'photo.jpg'
    photo.write_bytes(b'no photograph')
    for workdirs, options, says in (
        ([one, one], {}, 'names a run twice'),
        ([one] * 7, {}, '7 runs are too many'),
        ([one], {'output': tmp_path / 'nowhere/r.html'}, 'there is no folder'),
        ([one], {'image': tmp_path / 'none.jpg'}, 'none.jpg: No such file'),
        ([one], {'image': photo}, 'cannot use .*photo.jpg: not an image; name another --image'),
        ([one], {'figures': photo}, 'cannot write to'),
    ):
        with pytest.raises(InputError, match=says):
            here(workdirs, **{'output': tmp_path / 'r.html', 'data_dir': 'nowhere'} | options)
    process = commands.run('report', '--workdir=nowhere', 'stray', cache=program_cache)
    assert process.stderr.startswith("error: unexpected argument 'stray'") and process.stderr.count('\n') == 1
    process = commands.run('report', '--workdir=nowhere', cache=program_cache)
    assert process.returncode == 1 and process.stdout == ''
    assert process.stderr.startswith('error: nowhere is no run folder') and process.stderr.count('\n') == 1
