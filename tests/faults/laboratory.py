"""Starts real runs with faults in them, waits for their end, and compares what they come to with an undisturbed run."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import cli
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from PIL import Image

ALL = os.environ.get('FAULTS') == 'all'  # `make faults`: every row, with the programs that users have
SABOTEUR = pathlib.Path(__file__).parent / 'saboteur.py'
STEPS = 24
OPTIONS = (
    f'--config.variant={"released" if ALL else "no_norm"}',  # norms take most of compiling
    *(f'--config.width={0.0625 if ALL else 0.02}', '--config.batch_size=8'),
    f'--config.steps={STEPS}',
    *('--config.checkpoint_every=3', '--config.evaluate_every=4', '--config.log_every=5', '--config.patience=1'),
    *('--config.images_per_crop=1', '--config.deterministic=True', '--config.keep_checkpoints=10'),
)


@dataclasses.dataclass
class Ended:
    """A process that ended."""

    code: int
    out: str
    err: str
    seconds: float  # from the fault to the end

    def line(self, *words):
        """The one line of standard error with all of `words`; and there is no traceback beside it."""
        assert 'Traceback' not in self.err, self.err
        found = [line for line in self.err.splitlines() if all(word in line for word in words)]
        assert len(found) == 1, (words, self.err)
        return found[0]


class Laboratory:
    """One fault's place: a folder, a dataset, and the result to come to."""

    def __init__(self, folder, *, data_dir, cache, undisturbed=None, expected=None):
        self.folder, self.data_dir, self.cache = folder, data_dir, cache
        self.undisturbed, self.expected = undisturbed, expected
        self.workdir = folder / 'run'
        self.mark = folder / 'fault'
        self._started = []

    def start(self, *options, fault=None, index=None, port=None, processes=2, root=cli.ROOT):
        """Starts main on the dataset; `fault` is what the saboteur does; `index` of which process of `processes`."""
        command = [sys.executable, '-m', 'alexnet_jax.main']
        if fault:
            path = self.folder / f'fault{len(self._started)}.json'
            path.write_text(json.dumps({'mark': str(self.mark), **fault}))
            command = [sys.executable, str(SABOTEUR), str(path)]
        command += ['--config=configs/two_device.py:tiny', f'--config.data_dir={self.data_dir}', *OPTIONS]
        if index is not None:
            command += [f'--coordinator=127.0.0.1:{port}', f'--processes={processes}', f'--process_id={index}']
        return self._start([*command, f'--workdir={self.workdir}', *options], root=root)

    def _start(self, command, *, root):
        streams = [open(self.folder / f'{name}{len(self._started)}', 'w+') for name in ('out', 'err')]  # noqa: SIM115
        process = subprocess.Popen(
            command,
            cwd=root,
            env=cli.environment(self.cache, compile_less=not ALL) | {'PYTHONPATH': str(root)},
            stdout=streams[0],
            stderr=streams[1],
        )
        process.streams = streams
        self._started.append(process)
        return process

    def pair(self, *options, faults=(None, None)):
        """Two processes of one run, a fault in either or none."""
        port = free_port()
        return [self.start(*options, fault=fault, index=index, port=port) for index, fault in enumerate(faults)]

    def wait_for_fault(self, *, timeout=90):
        deadline = time.monotonic() + timeout
        while True:
            ended = any(process.poll() is not None for process in self._started)
            if self.mark.exists() and self.mark.read_text():
                break
            assert not ended and time.monotonic() < deadline, self.everything()
            time.sleep(0.02)
        return float(self.mark.read_text())

    def wait_for_checkpoint(self, step, *, timeout=30):
        """Until it is written: what is begun at a step is on disk some steps later."""
        deadline = time.monotonic() + timeout
        while not (self.workdir / f'checkpoints/{step}').exists():
            assert time.monotonic() < deadline, self.everything()
            time.sleep(0.02)

    def end(self, process, *, timeout=90):
        """Waits for a process that nobody disturbs any more."""
        try:
            code = process.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f'no end after {timeout} s\n{self.everything()}') from None
        seconds = time.time() - float(self.mark.read_text()) if self.mark.exists() else 0.0
        return Ended(code, *[pathlib.Path(stream.name).read_text() for stream in process.streams], seconds)

    def run(self, *options, **start):
        return self.end(self.start(*options, **start))

    def everything(self):
        """What all processes have said."""
        return '\n'.join(pathlib.Path(process.streams[1].name).read_text() for process in self._started)

    def clean(self):
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in process.streams:
                stream.close()

    def resume(self, *options, **start):
        """The same command again, to its end, and whether it came to what an undisturbed run comes to."""
        ended = self.run(*options, **start)
        assert ended.code == 0, ended.err
        self.compare()
        return ended

    def launch(self, *options, fault, victim):
        """Starts alexnet launch with a fault in one of the first start's processes."""
        path = self.folder / 'fault.json'
        path.write_text(json.dumps({'mark': str(self.mark), 'victim': victim, **fault}))
        command = [sys.executable, '-m', 'alexnet_jax', 'launch', *options, '--module=tests.faults.saboteur', '--']
        command += [str(path), '--config=configs/two_device.py:tiny', f'--config.data_dir={self.data_dir}']
        return self._start([*command, *OPTIONS, f'--workdir={self.workdir}'], root=cli.ROOT)

    def own_data(self):
        """A copy of the dataset, to be spoilt."""
        self.data_dir = shutil.copytree(self.data_dir, self.folder / 'data')

    def shard(self):
        """The file of the training records."""
        (shard,) = pathlib.Path(self.data_dir).glob('tiny/*/*train*array_record*')
        return shard

    def spoil_jpeg(self):
        """Record 7 of the training split keeps its place, length and label, and loses what its JPEG begins with."""
        shard = self.shard()
        reader = ArrayRecordReader(str(shard))
        records = [reader.read([index])[0] for index in range(reader.num_records())]
        reader.close()
        start = records[7].index(b'\xff\xd8\xff')
        records[7] = records[7][:start] + bytes(500) + records[7][start + 500 :]
        writer = ArrayRecordWriter(str(shard), 'group_size:1')
        for record in records:
            writer.write(record)
        writer.close()
        (manifest,) = pathlib.Path(self.data_dir).glob('tiny/*/manifest.json')
        content = json.loads(manifest.read_text())
        entry = content['files'][shard.name]
        entry |= {'bytes': shard.stat().st_size, 'sha256': hashlib.sha256(shard.read_bytes()).hexdigest()}
        manifest.write_text(json.dumps(content))

    def folder_of_images(self, count=1500):
        """The options that prepare artificial photographs in two classes, training and validation."""
        folder = self.folder / 'images'
        for index in range(count):
            split = 'validation' if index % 10 == 0 else 'train'
            path = folder / split / 'ab'[index % 2] / f'{index}.jpg'
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(index).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((300, 280), Image.Resampling.BICUBIC).save(path, quality=90)
        return f'--images={folder}', '--name=photos'

    def start_preparing(self, *options, into):
        command = [sys.executable, '-m', 'alexnet_jax', 'prepare', *options, f'--data_dir={self.folder / into}']
        return self._start(command, root=cli.ROOT)

    def prepare(self, *options, into, name='photos'):
        """Prepares dataset `name` to the end; sha256 of every file that came of it."""
        ended = self.end(self.start_preparing(*options, into=into))
        assert ended.code == 0, ended.err
        files = sorted(path for path in (self.folder / into / name).rglob('*') if path.is_file())
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def other_data(self):
        """A dataset of the same name in which one file is another, as its manifest says too."""
        other = shutil.copytree(self.data_dir, self.folder / 'other')
        (manifest,) = other.glob('tiny/*/manifest.json')
        content = json.loads(manifest.read_text())
        shard = next(entry for name, entry in content['files'].items() if 'train.array_record' in name)
        shard['sha256'] = shard['sha256'][::-1]
        manifest.write_text(json.dumps(content))
        return other

    def other_code(self):
        """A checkout in which one line of the package is another."""
        root = self.folder / 'checkout'
        for name in ('alexnet_jax', 'configs'):
            shutil.copytree(cli.ROOT / name, root / name, ignore=shutil.ignore_patterns('__pycache__'))
        with (root / 'alexnet_jax/model/ops.py').open('a') as file:
            file.write('# another line\n')
        return root

    @contextlib.contextmanager
    def small_disk(self, *, megabytes):
        """A file system of that size in memory, which the run folder is on; skips where this may not be mounted."""
        disk = self.folder / 'disk'
        disk.mkdir()
        mount = ['mount', '-t', 'tmpfs', '-o', f'size={megabytes}m', 'tmpfs', str(disk)]
        if not shutil.which('mount') or subprocess.run(mount, check=False, capture_output=True).returncode:
            pytest.skip('mounting a small file system takes a privilege that this user has not')
        self.workdir = disk / 'run'
        try:
            yield disk
        finally:
            self.clean()
            subprocess.run(['umount', '-l', str(disk)], check=True)

    def compare(self):
        assert outcome(self.workdir) == self.expected

    def compare_nearly(self, *, relative=1e-3):
        """On another mesh sums are of other order: `relative` of every validation loss, errors the same."""
        found, expected = outcome(self.workdir), self.expected
        assert found['steps'] == expected['steps']
        assert len(found['tests']) == len(expected['tests'])
        for (step, protocol, loss, error), wanted in zip(found['tests'], expected['tests'], strict=True):
            assert (step, protocol) == tuple(wanted[:2])
            assert abs(loss / wanted[2] - 1) < relative, (step, loss, wanted)
            assert abs(error - wanted[3]) < 1.5 / 13, (step, error, wanted)


def outcome(workdir):
    """All numbers of a run that do not come from the clock, or from where it was interrupted."""
    result = json.loads((workdir / 'result.json').read_text())
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    tests = [
        (line['step'], line['protocol'], line['loss'], line['top1_error'])
        for line in lines
        if line['split'] == 'validation'
    ]
    return {'steps': result['steps'], 'params': result['params_sha256'], 'tests': tests}


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]
