"""Tests the report of two run folders, whose class names contain HTML, in a browser too."""

import dataclasses
import functools
import json
import re
import shutil

import browser
import cli
import jax
import numpy as np
import pytest
from builders import run_with

from alexnet_jax.checkpoints.checkpointer import Checkpointer
from alexnet_jax.data.augment import centre_crop
from alexnet_jax.errors import InputError
from alexnet_jax.model.colour import tower_colours
from alexnet_jax.report import write_report
from alexnet_jax.report.run_folder import load_run_folder
from alexnet_jax.run.run_dir import claim_run_dir
from alexnet_jax.sharding.mesh import make_mesh

pytestmark = pytest.mark.slow
CLASSES = ['<b>blue</b>', 'a$x_y$ & "b"', "<script>alert('c')</script>"]
TESTED = {'examples': 13, 'loss': 1.0, 'top1_error': 0.25, 'top5_error': 0.0}


def make_run_folder(workdir, tiny, tiny_dir, *, logged, **values):
    """A run folder with a fresh network as checkpoint 4, and the log of a run; returns its config and first kernel."""
    built = dataclasses.replace(run_with(width=0.0625, data_dir=str(tiny_dir), **values), mesh=make_mesh(1, 1))
    config = built.config
    claim_run_dir(workdir, built, tiny)
    run = json.loads((workdir / 'run.json').read_text())
    (workdir / 'run.json').write_text(json.dumps(run | {'classes': CLASSES}))
    mean = np.asarray(centre_crop(tiny.mean_image, 224))
    state = dataclasses.replace(built, config=dataclasses.replace(config, seed=5)).create_state(mean)
    with Checkpointer(workdir, keep=2) as checkpoints:
        checkpoints.save(state.__class__(**{**vars(state), 'step': state.step + 4}), data_order=0)
    train = {'loss': 1.1, 'top1_error': 0.6, 'learning_rate': 0.01, 'data_wait': 0.0, 'images_per_second': 16.0}
    colours = {'colour_tower0': 0.125, 'colour_tower1': 0.75} if logged else {}
    layers = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7', 'fc8')
    look: dict = {f'{layer}/{what}': 0.25 for layer in layers for what in ('gradient', 'update', 'dead')}
    del look['fc8/dead']
    lines = [
        *({'step': step, 'split': 'probe', **look, 'fc6/gradient': None} for step in (1, 4) if logged),
        {'step': 2, 'split': 'train', **train},
        {'step': 2, 'split': 'validation', 'protocol': 'centre', **TESTED, **colours},
        {'step': 4, 'split': 'train', **train, 'images_per_second': 8.0},
    ]
    if logged:
        training = {'step': 2, 'split': 'training_images', 'protocol': 'centre', **TESTED, 'examples': 9}
        lines += [training | {'top1_error': 0.125, 'top1_gap': 0.125}]
    (workdir / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return np.asarray(jax.device_get(state.params['conv1']['kernel']))


@pytest.fixture(scope='module')
def runs(tmp_path_factory, tiny, tiny_dir):
    """Makes two run folders, one of two towers and finished, two of none and not; gives one's kernel too."""
    root = tmp_path_factory.mktemp('runs')
    kernel = make_run_folder(root / 'one', tiny, tiny_dir, logged=True, variant='no_norm', mesh=(1, 2))
    result = {'centre': TESTED, 'ten_view': TESTED | {'top1_error': 0.125}, 'steps': 4}
    (root / 'one/result.json').write_text(json.dumps(result))
    (root / 'one/startup.json').write_text('{"total": 2.5, "parts": {"imports": 1.0, "step": 1.5}}')
    make_run_folder(root / 'two', tiny, tiny_dir, logged=False, variant='one_weird_trick', mesh=(1, 1))
    return root, kernel


@pytest.fixture(scope='module')
def write():
    """Gives write_report for this process, which has its devices already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write_report, 'prepare_backend', lambda mesh: None)
        yield write_report.write_report


@pytest.fixture(scope='module')
def pages(runs, write, program_cache, tmp_path_factory):
    """Writes the report of the first run by the command, with its figures, and meanwhile that of both here."""
    out, (root, _) = tmp_path_factory.mktemp('report'), runs
    options = [f'--workdir={root / "one"}', f'--output={out / "one.html"}', f'--figures={out / "pngs"}']
    with cli.start('report', *options, cache=program_cache) as process:
        write([root / 'one', root / 'two'], output=out / 'two.html')
        stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert re.fullmatch(r'\S+one\.html: 0\.\d MB, \d+ pictures in \S+pngs\n', stdout)
    return out / 'one.html', out / 'two.html'


def read_text(path):
    """Reads the text of a page without its tags and pictures."""
    text = re.sub(r'<style>.*?</style>|<[^>]*>', ' ', path.read_text(), flags=re.DOTALL)
    return ' '.join(text.split())


def test_report_shows_what_run_folder_holds(pages, runs):
    text = read_text(pages[0])
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
    assert 'What excites a channel' in text and 'the first 12 channels of each tower' in text
    assert '2 looks into single steps' in text and 'Dead ReLUs' in text and 'Saturated' not in text
    assert 'looks into single steps' in read_text(pages[1])  # of the one of two that has some
    assert (
        'At step 2 the top-1 error of 9 training images under validation’s protocol was 12.5 %, a gap of 12.5' in text
    )
    assert 'one: At step 2 the top-1 error of 9' in read_text(pages[1])
    assert text.index('Protocol: ten-view') < text.index('40.7 %') < text.index('Protocol: centre')


def test_load_run_folder_reads_colour_history(runs):
    run = load_run_folder(runs[0] / 'one', name='one')
    assert list(run.colour_history) == [0, 2, 4]
    assert run.colour_history[0] == pytest.approx(tower_colours(run.initial_kernel))
    assert run.colour_history[2] == {'colour_tower0': 0.125, 'colour_tower1': 0.75}
    assert run.colour_history[4] == pytest.approx(tower_colours(runs[1]))
    # The start is that of the config's seed, 0, and the checkpoint was made with another.
    assert not np.array_equal(run.initial_kernel, runs[1])


def test_report_escapes_names(pages):
    for path in pages:
        text = path.read_text()
        assert '<script' not in text and '<b>blue' not in text
        assert '&lt;b&gt;blue' in text and 'a$x_y$ &amp; ' in text


def test_report_writes_figures(pages):
    paths = list((pages[0].parent / 'pngs').iterdir())
    expected = {'loss', 'one_filters_tower0', 'one_confusion', 'one_towers', 'one_patches_conv2_tower0'}
    assert expected | {'one_patches_conv5_tower1'} <= {path.stem for path in paths}
    assert all(path.read_bytes().startswith(b'\x89PNG') for path in paths)


def test_report_compares_runs(pages):
    text = read_text(pages[1])
    assert text.startswith('2 runs compared') or '2 runs compared' in text[:200]
    assert 'one no_norm, width 0.0625 tiny 4 x 8 12.5 % 25.0 %' in text
    assert 'two one_weird_trick, width 0.0625 tiny 4 x 8, not finished not measured 25.0 %' in text
    assert 'This network has no towers to specialise' in text


def test_report_names_nothing_to_fetch(pages):
    """Without a browser: everything that can make one fetch is data inside the file, or a place in it."""
    for path in pages:
        text = path.read_text()
        places = re.findall(r'(?:src|href|srcset|poster|data|action)\s*=\s*"([^"]{0,12})', text)
        assert len(places) > 20
        assert {place[:5] for place in places if not place.startswith('#')} == {'data:'}
        assert not re.search(r'@import|url\((?!#)|<(?:script|iframe|object|embed|base)|style="[^"]*url', text)
        assert text.count('<link') == 1 and '<link rel="icon" href="data:,">' in text
        assert "default-src 'none'" in text


@pytest.fixture(scope='module')
def open_pages(pages):
    """Gives a function that opens both pages, as wide as a phone and a desktop, once on light and dark paper."""
    return functools.cache(lambda dark: browser.open_pages(pages, widths=(360, 1200), dark=dark))


@pytest.mark.parametrize('dark', [False, True])
def test_report_shows_all_in_a_browser_and_fetches_nothing(open_pages, dark):
    frames, console, requests = open_pages(dark)
    assert console == []
    assert {name for name in requests if 'frame' not in name} == {'/one.html', '/two.html'}
    assert [frame['available'] for frame in frames] == [360, 1200] * 2
    for frame in frames:
        assert frame['fetched'] == [] and frame['scripts'] == 0
        assert frame['width'] <= frame['available']  # nothing is wider than the screen
        assert frame['pictures'] > 10 and frame['broken'] == []
        assert frame['drawings'] >= 7
        assert "<script>alert('c')</script>" in frame['text']


def test_report_follows_the_preference_for_dark(open_pages):
    light, dark = (open_pages(dark)[0][0] for dark in (False, True))
    assert (light['paper'], dark['paper']) == ('rgb(253, 253, 252)', 'rgb(20, 24, 30)')
    assert light['ink'] != dark['ink']  # text in charts too


def copy_run(runs, tmp_path, *left_out):
    """Copies the first run's folder without these."""
    shutil.copytree(runs[0] / 'one', tmp_path / 'one', ignore=shutil.ignore_patterns(*left_out))
    return tmp_path / 'one'


def test_report_names_what_run_folder_lacks(write, runs, tmp_path, capsys):
    """The run was killed early, and copied from elsewhere without its dataset and its notes."""
    workdir = copy_run(runs, tmp_path, 'metrics.jsonl', 'result.json', 'startup.json', 'run.json')
    write([workdir], output=tmp_path / 'r.html', data_dir='nowhere')
    assert 'the report leaves out what needs the images' in capsys.readouterr().err
    text = read_text(tmp_path / 'r.html')
    assert text.count('Left out: ') == 2
    assert 'No log of training, and so no curves: one.' in text
    assert text.count('Not measured.') == 2  # under either protocol
    assert 'the run is not finished' in text and 'commit not recorded' in text
    assert 'tower 0: ' in text and 'conv3 forward all-gather' in text


def truncate(name):
    def damage(workdir):
        path = workdir / name
        path.write_text(path.read_text()[:-9])

    return damage


def remove(name):
    return lambda workdir: shutil.rmtree(workdir / name) if (workdir / name).is_dir() else (workdir / name).unlink()


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (remove('config.json'), 'is no run folder'),
        (truncate('config.json'), 'config.json is damaged'),
        (remove('checkpoints'), 'no checkpoint'),
        (truncate('run.json'), 'run.json is damaged'),
        (truncate('result.json'), 'result.json is damaged'),
        (truncate('startup.json'), 'startup.json is damaged'),
    ],
)
def test_report_refuses_damaged_run_folder(write, runs, tmp_path, damage, message):
    workdir = copy_run(runs, tmp_path)
    damage(workdir)
    with pytest.raises(InputError, match=message) as caught:
        write([workdir], output=tmp_path / 'r.html')
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'r.html').exists()


def test_report_is_written_to_the_run_folder_by_default(write, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(write_report, '_make_run_sections', lambda *_, **__: [])  # what takes time
    monkeypatch.chdir(tmp_path)
    copies = [shutil.copytree(runs[0] / name, tmp_path / 'runs' / name) for name in ('one', 'two')]
    assert write(copies[:1]).startswith(f'{copies[0] / "report.html"}: ')
    single = (copies[0] / 'report.html').read_bytes()
    assert write(copies).startswith(f'{copies[0] / "comparison.html"}: ')
    assert (copies[0] / 'report.html').read_bytes() == single
    assert [path.name for path in tmp_path.iterdir()] == ['runs']


def test_report_refuses_unusable_arguments(write, runs, tmp_path):
    one = runs[0] / 'one'
    photo = tmp_path / 'photo.jpg'
    photo.write_bytes(b'no photograph')
    for workdirs, options, message in (
        ([one, one], {}, 'names a run twice'),
        ([one] * 7, {}, '7 runs are too many'),
        ([one], {'output': tmp_path / 'nowhere/r.html'}, 'there is no folder'),
        ([one], {'output': tmp_path}, 'is a folder: name a file in it'),
        ([one], {'figures': photo}, 'cannot make .*photo.jpg: File exists; choose another --figures'),
        ([one], {'image': tmp_path / 'none.jpg'}, 'none.jpg: No such file'),
        ([one], {'image': photo}, 'cannot use .*photo.jpg: not an image; name another --image'),
    ):
        with pytest.raises(InputError, match=message):
            write(workdirs, **{'output': tmp_path / 'r.html', 'data_dir': 'nowhere'} | options)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['stray'], "unexpected argument 'stray'"),
        pytest.param([], 'nowhere is no run folder', marks=pytest.mark.repeats),  # as any that `write` refuses
    ],
)
def test_report_prints_a_mistake_in_one_line(program_cache, options, message):
    process = cli.run('report', '--workdir=nowhere', *options, cache=program_cache)
    assert (process.returncode, process.stdout) == (1, '')
    assert process.stderr.startswith(f'error: {message}') and process.stderr.count('\n') == 1
