"""A dataset whose records are of another size than a network reads is refused wherever the two meet, in one line."""

import cli
import numpy as np
import pytest
from PIL import Image
from random_networks import CLASSES, network_of, save_run

from alexnet_jax.benchmark.input_figures import measure_input_pipeline
from alexnet_jax.benchmark.measure import Turns
from alexnet_jax.benchmark.protocol import Setting
from alexnet_jax.checkpoints.load import load_config
from alexnet_jax.data.preparing import folder
from alexnet_jax.data.preparing.writer import prepare
from alexnet_jax.doctor import examine
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation import extract_features, predict_photos
from alexnet_jax.evaluation.open_networks import NetworkArgs, open_test_dataset
from alexnet_jax.report import write_report

LINE = 'tiny has records of 32x32, and {} reads 256x256: prepare its images with --size=256, or name another'


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
    """Another 'tiny', of records of 32x32."""
    images = tmp_path_factory.mktemp('images')
    for index, name in enumerate(CLASSES * 2):
        path = images / ('train', 'validation')[index // 3] / name / 'only.png'
        path.parent.mkdir(parents=True)
        Image.fromarray(np.random.default_rng(index).integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    data_dir = tmp_path_factory.mktemp('data')
    prepare(folder.make_folder_spec(images, name='tiny', record_size=32), data_dir=data_dir, workers=1)
    return data_dir


@pytest.fixture(scope='module')
def workdir(tmp_path_factory, tiny, data_dir):
    """A run that was trained before 'tiny' was prepared again."""
    workdir = tmp_path_factory.mktemp('runs') / 'run'
    save_run(network_of(), workdir, tiny, data_dir)
    return workdir


def neighbours(workdir, data_dir, tmp_path):
    predict_photos.predict_photos(
        ['photo.jpg'], NetworkArgs(workdir=[str(workdir)]), protocol='centre', neighbours='tiny'
    )


def features_of(workdir, data_dir, tmp_path):
    options = {'layer': 'fc7', 'output': str(tmp_path / 'f.npz'), 'dataset': 'tiny'}
    extract_features.extract_features([], NetworkArgs(workdir=[str(workdir)]), **options)


WAYS = {
    'evaluate': lambda workdir, data_dir, _: open_test_dataset([network_of()], name='tiny', data_dir=str(data_dir)),
    'predict': neighbours,
    'features': features_of,
    'doctor of a run': lambda workdir, *_: examine.examine_workdir(workdir, info=print),
    'doctor of a config': lambda workdir, *_: examine.examine_config(load_config(workdir), name='run', info=print),
}


@pytest.mark.parametrize('way', WAYS)
def test_record_size_is_refused_by(way, workdir, data_dir, tmp_path, monkeypatch):
    for module in (examine, extract_features, predict_photos):
        monkeypatch.setattr(module, 'prepare_backend', lambda *_, **__: None)
    with pytest.raises(InputError, match=LINE.format('released')):
        WAYS[way](workdir, data_dir, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_input_benchmark_refuses_records_that_it_cannot_crop(data_dir):
    setting = Setting(batch=4, width=1.0, classes=3, allocator='tuned', dataset='tiny', data_dir=str(data_dir))
    options = {'images': None, 'tf': False, 'torch': False, 'appetite': 1.0}
    with pytest.raises(InputError, match=LINE.format('paper')):
        measure_input_pipeline(setting, Turns(1, 0.0), **options)


@pytest.mark.slow
def test_report_leaves_out_what_needs_the_images_and_says_why(workdir, tmp_path, monkeypatch):
    monkeypatch.setattr(write_report, 'prepare_backend', lambda mesh: None)
    write_report.write_report([workdir], output=tmp_path / 'r.html')
    assert LINE.format('released') in (tmp_path / 'r.html').read_text()


@pytest.mark.slow
def test_run_is_refused_before_it_has_a_folder(data_dir, tmp_path, program_cache):
    given = ['--config=configs/one_device.py:tiny', f'--config.data_dir={data_dir}', f'--workdir={tmp_path / "run"}']
    done = cli.run('train', *given, cache=program_cache)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f'error: {LINE.format("paper")}')
    assert list(tmp_path.iterdir()) == []
