"""`alexnet compare` on run folders written by hand."""

import json

import cli
import pytest

from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.landmarks import compare_run
from alexnet_jax.training.config import make_config

TRAIN = {'split': 'train', 'top1_error': 1.0, 'data_wait': 0.0, 'images_per_second': 1.0}


@pytest.fixture
def folder(tmp_path):
    """Writes a run folder of ImageNet: what it logged, and settings that differ from the recipe."""

    def write(*lines, **settings):
        config = make_config('imagenet2012', mesh=(1, 2))
        config.update(variant='released', schedule='steps', **settings)
        (tmp_path / 'config.json').write_text(json.dumps(config.to_dict()))
        (tmp_path / 'run.json').write_text(json.dumps({'classes': [str(index) for index in range(1000)]}))
        (tmp_path / 'metrics.jsonl').write_text(''.join(json.dumps(TRAIN | line) + '\n' for line in lines))
        return tmp_path

    return write


@pytest.mark.slow
def test_compare_of_a_run_that_learns_is_on_course(folder, program_cache):
    workdir = folder(
        {'step': 20, 'learning_rate': 0.01, 'loss': 6.91}, {'step': 4000, 'learning_rate': 0.01, 'loss': 6.2}
    )
    done = cli.run('compare', f'--workdir={workdir}', cache=program_cache)
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout.startswith('imagenet2012, released, step 4,000 (0.4 epochs)\n')
    assert 'Unlike the recipe' not in done.stdout and '512,000, step 4,000' in done.stdout
    assert done.stdout.splitlines()[-1] == 'on course: 2 of 8 landmarks passed'


@pytest.mark.slow
def test_compare_sends_a_run_on_the_plateau_to_the_doctor(folder, program_cache):
    workdir = folder(
        {'step': 20, 'learning_rate': 0.1, 'loss': 6.91},
        {'step': 40_000, 'learning_rate': 0.1, 'loss': 6.908},
        learning_rate=0.1,
    )
    done = cli.run('compare', f'--workdir={workdir}', cache=program_cache)
    assert done.returncode == 1
    assert 'Unlike the recipe: learning_rate=0.1 (0.01).' in done.stdout
    assert 'off: images until the loss is below 6.71; BVLC/caffe issue 2085' in done.stdout
    assert done.stdout.splitlines()[-1].startswith(f'OFF COURSE; alexnet doctor --workdir={workdir}')


@pytest.mark.parametrize('length', [{'epochs': 30.0}, {'steps': 300_275}])
def test_compare_run_names_a_shorter_run(folder, length):
    """300,275 steps of 128 are 30 epochs of 1,281,167 images."""
    text, good = compare_run(
        folder({'step': 20, 'learning_rate': 0.01, 'loss': 6.91}, drop_epochs=(10.0, 20.0), **length)
    )
    assert good
    assert 'A run of 30 epochs: its last errors cannot be compared with those of 90.\n' in text
    assert 'Unlike the recipe: drop_epochs=(10.0, 20.0) ((24.0, 50.0, 78.0)).\n' in text


def test_compare_run_judges_validation_and_not_tests_of_training_images(folder):
    first = {'step': 20, 'learning_rate': 0.01, 'loss': 6.91}
    early = {'step': 200_200, 'split': 'validation', 'protocol': 'centre', 'top1_error': 0.55}  # epoch 20
    alone, good = compare_run(folder(first, early))
    both = compare_run(folder(first, early | {'split': 'training_images', 'top1_error': 0.2}, early))
    assert good and '55.0' in alone and both == (alone, True)


@pytest.mark.slow
def test_compare_of_what_cannot_be_compared_is_one_line(folder, tmp_path, program_cache):
    with pytest.raises(InputError, match='none is no run folder'):
        compare_run(tmp_path / 'none')
    done = cli.run('compare', f'--workdir={folder()}', cache=program_cache)
    assert (done.returncode, done.stdout) == (1, '')
    assert done.stderr == f'error: {tmp_path} has logged nothing yet: its first line comes after 20 steps\n'
