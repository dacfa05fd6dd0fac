"""A profile of some steps, and what it says where the run ends before or within them."""

import gzip
import json

import jax
import pytest

from alexnet_jax.logs.profiling import Profile


def make_profile(folder, said):
    return Profile(folder, steps=2, after=0, settle=lambda: None, info=said.append)


def test_profile_says_that_nothing_was_traced_where_the_run_ends_before(tmp_path):
    said = []
    with make_profile(tmp_path / 'profile', said) as profile:
        for step in (1, 2):
            with profile.step(step):
                pass
    assert said == ['nothing was traced: profiling begins at step 3, after the end of this run']
    assert not (tmp_path / 'profile').exists()


def test_profile_ends_with_the_run_and_holds_the_steps_until_then(tmp_path):
    said = []
    with make_profile(tmp_path / 'profile', said) as profile:
        for step in (1, 2, 3):
            with profile.step(step):
                jax.block_until_ready(jax.numpy.ones(8) + step)
    assert said[0].startswith(f'traced 1 steps into {tmp_path}/profile: open it with `tensorboard --logdir ')
    (timeline,) = (tmp_path / 'profile').glob('plugins/profile/*/*.trace.json.gz')
    events = json.loads(gzip.decompress(timeline.read_bytes()))['traceEvents']
    assert [int(event['args']['step_num']) for event in events if event.get('name') == 'train'] == [3]


def test_profile_says_nothing_of_itself_where_the_run_fails(tmp_path):
    said = []
    with pytest.raises(KeyError), make_profile(tmp_path, said):
        raise KeyError('x')
    assert said == []
