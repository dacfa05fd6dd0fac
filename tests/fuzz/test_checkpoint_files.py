"""A checkpoint with one damaged file gives back exactly what was saved, or one line: no wrong number is ever taken."""

import pathlib
import re
import shutil

import hypothesis
import pytest
from checkpoints.states import assert_same_bits, make_abstract, make_state
from fuzzing import fuzzed, outcome
from hypothesis import strategies as st

from alexnet_jax.checkpoints.checkpointer import Checkpointer
from alexnet_jax.checkpoints.manifest import DamagedError, read_manifest
from alexnet_jax.errors import InputError

STEP = 7
MESH = (1, 2)


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """A run folder with one checkpoint, its manifest, and the values that were saved."""
    folder = tmp_path_factory.mktemp('saved')
    state, values = make_state(MESH, STEP)
    with Checkpointer(folder, keep=1) as checkpointer:
        checkpointer.save(state, top1_error=0.5)
    return folder, read_manifest(folder / 'checkpoints' / str(STEP)), values


@pytest.fixture(scope='module')
def files(saved):
    checkpoint = saved[0] / 'checkpoints' / str(STEP)
    found = [path.relative_to(checkpoint) for path in checkpoint.rglob('*') if path.is_file()]
    # Names differ from one checkpoint to the next, sizes hardly.
    found.sort(key=lambda path: (path.parent, (checkpoint / path).stat().st_size, path))
    assert pathlib.Path('hashes/metadata') in found
    # Most are Orbax's notes, which restoring does without; those that it needs are chosen three times as often.
    needed = [path for path in found if re.match(r'hashes/metadata|state/(_METADATA|manifest|d/)', path.as_posix())]
    needed += [path for path in found if (checkpoint / path).stat().st_size > 100_000]
    assert len(needed) > 4
    return found + 2 * needed


@pytest.fixture(scope='module')
def run(saved, tmp_path_factory):
    """A copy of the run folder, to be damaged and mended."""
    folder = tmp_path_factory.mktemp('run') / 'run'
    shutil.copytree(saved[0], folder)
    return folder


PLACE = st.floats(0, 1)
DAMAGE = st.one_of(
    st.tuples(st.just('flip'), PLACE, st.integers(0, 7)),
    st.tuples(st.just('flip'), PLACE, st.integers(0, 7)),
    st.tuples(st.just('set'), PLACE, st.binary(min_size=1, max_size=8)),
    st.tuples(st.just('truncate'), PLACE, st.none()),
    st.tuples(st.just('append'), st.none(), st.binary(min_size=1, max_size=64)),
    st.tuples(st.just('zeros'), PLACE, st.integers(1, 4096)),
    st.tuples(st.sampled_from(['all zeros', 'empty', 'gone', 'folder', 'of another']), st.none(), st.none()),
)


def damage(path, how, other):
    kind, first, second = how
    data = bytearray(path.read_bytes())
    at = int((first or 0) * max(len(data) - 1, 0))
    if kind == 'flip' and data:
        data[at] ^= 1 << second
    elif kind == 'set':
        data[at : at + len(second)] = second
    elif kind == 'truncate':
        del data[at:]
    elif kind == 'append':
        data += second
    elif kind == 'zeros':
        end = min(at + second, len(data))
        data[at:end] = bytes(end - at)
    elif kind == 'all zeros':
        data = bytes(len(data))
    elif kind == 'empty':
        data = b''
    elif kind == 'of another':
        data = other.read_bytes()
    path.unlink()
    if kind == 'folder':
        path.mkdir()
    elif kind != 'gone':
        path.write_bytes(data)


def mend(path, whole):
    if path.is_dir():
        path.rmdir()
    shutil.copy2(whole, path)


WHICH = st.integers(0, 10**6)  # of the files, by the remainder


@pytest.fixture(scope='module')
def restore(run):
    """Restores the checkpoint of `run`: (state, manifest)."""
    like = make_abstract(MESH)
    with Checkpointer(run, keep=1) as checkpointer:

        def read():
            manifest = read_manifest(run / 'checkpoints' / str(STEP))
            return checkpointer.restore(like, manifest), manifest

        yield read


def check_restore(restore, saved, files, run, which, another, how):
    folder, _, values = saved
    name, other = files[which % len(files)], files[another % len(files)]
    path, whole = (where / 'checkpoints' / str(STEP) / name for where in (run, folder))
    try:
        damage(path, how, whole.parents[len(name.parts) - 1] / other)
        found = outcome('checkpoints', restore, DamagedError, InputError)
        if isinstance(found, InputError):
            return
        state, manifest = found
        assert manifest == saved[1]
        assert_same_bits(state, values)
    finally:
        mend(path, whole)


def check_read_manifest(saved, run, files, damages):
    checkpoint = run / 'checkpoints' / str(STEP)
    path, whole = (where / 'checkpoints' / str(STEP) / 'hashes' / 'metadata' for where in (run, saved[0]))
    try:
        for how in damages:
            if path.is_file():
                damage(path, how, checkpoint / files[0])
        found = outcome('manifests', lambda: read_manifest(checkpoint), DamagedError)
        assert isinstance(found, DamagedError) or found == saved[1]
    finally:
        mend(path, whole)


WHICH = st.integers(0, 10**6)  # of the files, by the remainder
DAMAGES = st.lists(DAMAGE, min_size=1, max_size=3)


@fuzzed(25)
@hypothesis.given(WHICH, WHICH, DAMAGE)
def test_restore_finds_a_damaged_file_or_does_not_need_it(restore, saved, files, run, which, another, how):
    check_restore(restore, saved, files, run, which, another, how)


@pytest.mark.repeats
@fuzzed(70)
@hypothesis.given(WHICH, WHICH, DAMAGE)
def test_restore_finds_more_damaged_files(restore, saved, files, run, which, another, how):
    check_restore(restore, saved, files, run, which, another, how)


@fuzzed(60)
@hypothesis.example([('flip', 0.5, 0), ('flip', 0.5, 0)])  # which is as it was
@hypothesis.given(DAMAGES)
def test_read_manifest_gives_what_was_written_or_one_line(saved, run, files, damages):
    check_read_manifest(saved, run, files, damages)


@pytest.mark.repeats
@fuzzed(200)
@hypothesis.given(DAMAGES)
def test_read_manifest_finds_more_damage(saved, run, files, damages):
    check_read_manifest(saved, run, files, damages)
