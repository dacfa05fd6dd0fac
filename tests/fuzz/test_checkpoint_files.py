"""A checkpoint with one damaged file gives back exactly what was saved, or one line: no wrong number is ever taken."""

import dataclasses
import pathlib
import re
import shutil

import hypothesis
import jax
import numpy as np
import pytest
from fuzzing import fuzzed, outcome
from hypothesis import strategies as st

from alexnet_jax.checkpoints.checkpointer import Checkpointer
from alexnet_jax.checkpoints.manifest import DamagedError, read_manifest
from alexnet_jax.errors import InputError
from alexnet_jax.model.zoo import VARIANTS
from alexnet_jax.sharding.mesh import make_mesh, parameter_specs, shardings
from alexnet_jax.training.optimizer import paper_sgd
from alexnet_jax.training.schedule import Plateau
from alexnet_jax.training.state import abstract_state

STEP = 7
MESH = (1, 2)


@pytest.fixture(scope='module')
def like():
    optimizer = paper_sgd(momentum=0.9, weight_decay=5e-4, bias_rate=1.0)
    return abstract_state(VARIANTS['paper'].scaled(0.0625), optimizer, make_mesh(*MESH), num_classes=3)


@pytest.fixture(scope='module')
def saved(like, tmp_path_factory):
    """A run folder with one checkpoint, its manifest, and the values that were saved."""
    random = np.random.default_rng(STEP)
    noise = jax.tree.map(lambda leaf: random.standard_normal(leaf.shape, np.float32), like)
    plateau = Plateau(np.float32(0.625), np.int32(2), np.int32(1))
    values = dataclasses.replace(noise, step=np.int32(STEP), plateau=plateau)
    folder = tmp_path_factory.mktemp('saved')
    mesh = make_mesh(*MESH)
    with Checkpointer(folder, keep=1) as checkpoints:
        checkpoints.save(jax.device_put(values, shardings(mesh, parameter_specs(mesh, values))), top1_error=0.5)
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


@fuzzed(70)
@hypothesis.given(WHICH, WHICH, DAMAGE)
def test_a_damaged_file_is_found_or_did_not_matter(like, saved, files, run, which, another, how):
    folder, _, values = saved
    name, other = files[which % len(files)], files[another % len(files)]
    path, whole = (where / 'checkpoints' / str(STEP) / name for where in (run, folder))

    def restore():
        return checkpoints.restore(like, make_mesh(*MESH), step=STEP)

    with Checkpointer(run, keep=1) as checkpoints:
        try:
            damage(path, how, whole.parents[len(name.parts) - 1] / other)
            found = outcome('checkpoints', restore, DamagedError, InputError)
            if isinstance(found, InputError):
                return
            state, manifest = found
            assert manifest == saved[1]
            for loaded, expected in zip(jax.tree.leaves(state), jax.tree.leaves(values), strict=True):
                loaded = np.asarray(loaded)
                assert (loaded.dtype, loaded.shape) == (expected.dtype, expected.shape)
                assert loaded.tobytes() == expected.tobytes()
        finally:
            mend(path, whole)


@fuzzed(200)
@hypothesis.given(DAMAGE, st.lists(DAMAGE, max_size=2))
def test_a_damaged_manifest_is_the_one_written_or_one_line(saved, run, files, how, more):
    checkpoint = run / 'checkpoints' / str(STEP)
    path, whole = (where / 'checkpoints' / str(STEP) / 'hashes' / 'metadata' for where in (run, saved[0]))
    try:
        for damages in (how, *more):
            if path.is_file():
                damage(path, damages, checkpoint / files[0])
        found = outcome('manifests', lambda: read_manifest(checkpoint), DamagedError)
        assert isinstance(found, DamagedError) or found == saved[1]
    finally:
        mend(path, whole)
