"""A preparation that is killed goes on, and ends with the bytes that it would have had."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from PIL import Image

from alexnet_jax.data.dataset import open_dataset, verify_dataset
from alexnet_jax.data.preparing import folder as folder_source
from alexnet_jax.data.preparing import shards, writer
from alexnet_jax.data.preparing import workers as conversion
from alexnet_jax.data.preparing.rewriting import make_rewriting_spec
from alexnet_jax.errors import InputError

# With shards of two images. For n = 1, 2, ... a forked child is killed at its nth call of anything that changes the
# disk, a second child goes on, and what it ends with is printed, a line of JSON for each n, until a first child gets
# through.
PROGRAM = """
import hashlib, json, os, pathlib, shutil, signal, sys
from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.preparing import folder, raw_shards, rewriting, shards, workers, writer

images, root, overwrite = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3] == 'overwrite'
QUALITY = int(sys.argv[4]) or None
REWRITTEN = open_dataset('source', data_dir=sys.argv[5]) if sys.argv[5] else None
workers.CHUNK, shards.SHARD, writer.SHARD = 1, 2, 1
os.fsync = lambda file: None  # it guards against power cuts, which these kills are not
AT_THE_END = [(pathlib.Path, 'rename'), (shutil, 'rmtree')]
ANYWHERE = AT_THE_END + [(pathlib.Path, name) for name in ('replace', 'unlink', 'mkdir', 'write_bytes', 'write_text')]
ANYWHERE += [(shards, 'ArrayRecordWriter'), (raw_shards.RawShardWriter, '_write')]

def prepare(data_dir, *, quality=QUALITY, overwrite=True, looked_at=None):
    if REWRITTEN is None:
        spec = folder.make_folder_spec(images, name='pets', quality=quality, record_size=32)
    else:
        spec = rewriting.make_rewriting_spec(REWRITTEN, name='pets')
    if looked_at is not None:
        real = spec.to_record
        object.__setattr__(spec, 'to_record', lambda source: looked_at.append(source) or real(source))
    return writer.prepare(spec, data_dir=data_dir, workers=1, overwrite=overwrite)

def deadly(owner, name, kill_at, calls):
    real = getattr(owner, name)
    def call(*args, **kwargs):
        calls.append(name)
        if len(calls) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    setattr(owner, name, call)

def child(task):
    if (pid := os.fork()) == 0:
        try:
            task()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def killed(data_dir, n):
    calls = []
    for owner, name in AT_THE_END if overwrite else ANYWHERE:
        deadly(owner, name, n, calls)
    prepare(data_dir, overwrite=overwrite)

def going_on(data_dir, report):
    looked_at = []
    prepare(data_dir, looked_at=looked_at)
    report.write_text(str(len(looked_at)))

for n in range(1, 500):
    data_dir, report = root / str(n), root / f'{n}.looked'
    if overwrite:
        assert child(lambda: prepare(data_dir, quality=50)) == 0
    first = child(lambda: killed(data_dir, n))
    manifest = data_dir / 'pets' / '2.0.0' / 'manifest.json'
    opened = json.loads(manifest.read_text())['fingerprint'] if manifest.is_file() else None
    second = child(lambda: going_on(data_dir, report))
    result = {'first': first, 'opened': opened, 'second': second, 'looked_at': int(report.read_text())}
    files = sorted(path for path in manifest.parent.iterdir() if path.name != 'dataset_info.json')
    content = b''.join(path.name.encode() + path.read_bytes() for path in files)
    result |= {'digest': hashlib.sha256(content).hexdigest(), 'left': sorted(os.listdir(data_dir))}
    print(json.dumps(result), flush=True)
    if first == 0:
        break
"""


ORPHANS = """
import os, psutil, signal, sys
from alexnet_jax.data.preparing import folder, workers, writer

def kill(split, done, total):
    if done < 4:  # both workers are at work: each keeps the pipe open into which the other writes
        return
    print(*(child.pid for child in psutil.Process().children()), flush=True)  # workers, and multiprocessing's tracker
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == '__main__':
    workers.CHUNK = 1
    writer.prepare(folder.make_folder_spec(sys.argv[1], name='pets'), data_dir=sys.argv[2], workers=2, progress=kill)
"""


def write_folder(root, *, train):
    """Writes so many training images of each of two classes, and one to validate with."""
    for split, count in (('train', train), ('validation', 1)):
        for label, name in enumerate(('cat', 'dog')):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                noise = np.random.default_rng((label, i)).integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(noise).save(root / split / name / f'{i}.png')
    return root


@pytest.fixture
def folder(tmp_path):
    """Twice 5 training images and one to validate with: five shards of two, and one."""
    return write_folder(tmp_path / 'images', train=5)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(conversion, 'CHUNK', 1)
    monkeypatch.setattr(shards, 'SHARD', 2)
    monkeypatch.setattr(writer, 'SHARD', 2)


def digest_of(directory):
    files = sorted(path for path in directory.iterdir() if path.name != 'dataset_info.json')
    return hashlib.sha256(b''.join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize(
    ('overwrite', 'quality', 'rewritten'),
    [(False, 95, False), (True, 95, False), (False, None, False), (False, None, True)],
)
def test_prepare_killed_anywhere_resumes_to_the_same_bytes(tmp_path, small_shards, overwrite, quality, rewritten):
    folder = write_folder(tmp_path / 'images', train=2)  # two shards, and one
    if rewritten:
        jpegs = folder_source.make_folder_spec(folder, name='source', record_size=32)
        writer.prepare(jpegs, data_dir=tmp_path, workers=1)
        spec = make_rewriting_spec(open_dataset('source', data_dir=tmp_path), name='pets')
    else:
        spec = folder_source.make_folder_spec(folder, name='pets', record_size=32, quality=quality)
    whole = writer.prepare(spec, data_dir=tmp_path / 'whole', workers=1)

    arguments = [str(folder), str(tmp_path / 'killed'), 'overwrite' if overwrite else 'new', str(quality or 0)]
    arguments.append(str(tmp_path) if rewritten else '')
    run = subprocess.run([sys.executable, '-c', PROGRAM, *arguments], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, '')
    results = [json.loads(line) for line in run.stdout.splitlines()]
    assert [result['first'] for result in results] == [-signal.SIGKILL] * (len(results) - 1) + [0]
    assert len(results) > (3 if overwrite else 20)  # the kills came at every stage
    before = {result['opened'] for result in results} - {whole.fingerprint}
    assert len(before - {None}) == (1 if overwrite else 0)  # what opens is the old dataset or the new one
    for n, result in enumerate(results, 1):
        assert (result['second'], result['digest']) == (0, digest_of(whole.directory)), n
        assert result['left'] == ['pets'], n
    looked_at = [result['looked_at'] for result in results[:-1] if result['opened'] != whole.fingerprint]
    assert looked_at[0] == 6
    assert looked_at[-1] == 0  # everything had been converted
    assert looked_at == sorted(looked_at, reverse=True)


def test_prepare_interrupted_resumes_from_the_last_shard(folder, tmp_path, small_shards):
    def interrupt(split, done, total):
        if done == 7:
            raise KeyboardInterrupt

    spec = folder_source.make_folder_spec(folder, name='pets', record_size=32)
    with pytest.raises(KeyboardInterrupt):
        writer.prepare(spec, data_dir=tmp_path / 'data', workers=1, progress=interrupt)
    with pytest.raises(InputError, match='no dataset'):
        open_dataset('pets', data_dir=tmp_path / 'data')

    seen = []
    done = writer.prepare(spec, data_dir=tmp_path / 'data', workers=1, progress=lambda *state: seen.append(state))
    assert seen[:2] == [('train', 6, 10), ('train', 7, 10)]
    assert done.splits == {'train': 10, 'validation': 2}


@pytest.fixture
def interrupted(folder, tmp_path, small_shards):
    """The folder's spec, and a data_dir where preparing it was interrupted after the training images."""

    def interrupt(split, done, total):
        if split == 'validation':
            raise KeyboardInterrupt

    spec = folder_source.make_folder_spec(folder, name='pets', record_size=32)
    with pytest.raises(KeyboardInterrupt):
        writer.prepare(spec, data_dir=tmp_path / 'a', workers=1, progress=interrupt)
    return spec, tmp_path / 'a'


def test_prepare_ignores_shards_of_changed_source(folder, interrupted, tmp_path):
    Image.new('RGB', (32, 32), 'red').save(folder / 'train' / 'cat' / '0.png')
    spec = folder_source.make_folder_spec(folder, name='pets', record_size=32)

    went_on = writer.prepare(spec, data_dir=interrupted[1], workers=1)
    assert went_on.fingerprint == writer.prepare(spec, data_dir=tmp_path / 'b', workers=1).fingerprint


def test_prepare_ignores_damaged_shards(interrupted, tmp_path):
    spec, data_dir = interrupted
    shard = data_dir / '.pets.partial' / 'shards' / 'train-00001'
    shard.write_bytes(shard.read_bytes()[:-1])

    went_on = writer.prepare(spec, data_dir=data_dir, workers=1)
    assert went_on.fingerprint == writer.prepare(spec, data_dir=tmp_path / 'b', workers=1).fingerprint


def test_verify_finds_shard_that_changed_before_work_went_on(interrupted):
    spec, data_dir = interrupted
    shard = data_dir / '.pets.partial' / 'shards' / 'train-00001'
    shard.write_bytes(shard.read_bytes()[:-1] + b'?')

    writer.prepare(spec, data_dir=data_dir, workers=1)
    with pytest.raises(InputError, match=r'is damaged: pets-train.array_record-00001-of-00005; prepare it again'):
        verify_dataset('pets', data_dir=data_dir)


def test_prepare_keeps_shards_when_images_are_unusable(folder, tmp_path, small_shards):
    (folder / 'train' / 'cat' / 'bad.png').write_bytes(b'')
    spec = folder_source.make_folder_spec(folder, name='pets', record_size=32)
    with pytest.raises(InputError, match='1 unusable files'):
        writer.prepare(spec, data_dir=tmp_path / 'data', workers=1)

    seen = []
    done = writer.prepare(
        spec, data_dir=tmp_path / 'data', workers=1, skip_unusable=True, progress=lambda *state: seen.append(state)
    )
    assert (done.splits, done.skipped) == ({'train': 10, 'validation': 2}, ('train/cat/bad.png: not an image',))
    assert seen == []
    assert os.listdir(tmp_path / 'data') == ['pets']


def test_prepare_on_full_disk_is_one_line_and_keeps_shards(folder, tmp_path, small_shards, monkeypatch):
    class Writer(shards.ArrayRecordWriter):
        written = 0

        def write(self, record):
            Writer.written += 1
            if Writer.written == 5:
                raise RuntimeError('write() failed: No space left on device; writing ...')  # as ArrayRecord says it
            super().write(record)

    spec = folder_source.make_folder_spec(folder, name='pets', record_size=32)
    with monkeypatch.context() as full:
        full.setattr(shards, 'ArrayRecordWriter', Writer)
        with pytest.raises(InputError, match='is full; the same command goes on when there is space'):
            writer.prepare(spec, data_dir=tmp_path / 'data', workers=1)

    seen = []
    writer.prepare(spec, data_dir=tmp_path / 'data', workers=1, progress=lambda *state: seen.append(state))
    assert seen[0] == ('train', 4, 10)


@pytest.mark.slow
def test_workers_exit_with_killed_parent(folder, tmp_path):
    (tmp_path / 'program.py').write_text(ORPHANS)  # spawned processes read it again
    command = [sys.executable, str(tmp_path / 'program.py'), str(folder), str(tmp_path / 'data')]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {'PYTHONPATH': '.'})

    workers = [int(pid) for pid in run.stdout.split()]
    assert (run.returncode, len(workers)) == (-signal.SIGKILL, 3), run.stderr
    patience = time.monotonic() + 10
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != 'zombie' for pid in workers):
        assert time.monotonic() < patience
        time.sleep(0.05)
