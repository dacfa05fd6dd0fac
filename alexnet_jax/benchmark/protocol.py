"""Lines of JSON between the benchmark and a process that it measures: one request on stdin, one answer on stdout.

    (started)                        -> {"programs": {"train": {"flop": 529358880768, ...}}, "versions": {"jax": ...}}
    {"do": "train", "seconds": 1.0}  -> {"calls": 2, "seconds": 0.71, ...}, a sampling.Sample

The process builds and warms up everything before its first line, computes only while a request is open, and ends with
its standard input. Standard library only, so that a peer written in anything can be measured the same way.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any, Literal, TextIO

from alexnet_jax import InputError
from alexnet_jax.benchmark import sampling
from alexnet_jax.parallel.allocator import release_free_memory, tune_allocator

Allocator = Literal['tuned', 'default']


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all subjects have in common.

    Attributes:
      batch: images of one call.
      width: of the network, as a fraction of the paper's.
      classes: outputs of fc8.
      allocator: 'tuned' (parallel.allocator) or 'default', the C library's own settings.
      dataset: the prepared dataset whose reading is measured, '' where none is.
      data_dir: where it lies.
      photos: a folder of photographs of any size, likewise.
    """

    batch: int
    width: float
    classes: int
    allocator: Allocator
    dataset: str = ''
    data_dir: str = ''
    photos: str = ''


def batch_sizes(values: list[str]) -> list[int]:
    """The numbers of --batch; `InputError` where they are none, or not different."""
    if not values or not all(value.isdecimal() and int(value) for value in values) or len({*values}) < len(values):
        raise InputError(f'--batch={",".join(values)}: give different positive numbers, as in --batch=128,32')
    return [int(value) for value in values]


def begin(argument: str) -> tuple[Setting, TextIO]:
    """The setting that `Subject` gave on the command line, put into force, and the stream for `serve`'s answers.

    To be called before jax or torch is imported. What libraries print goes to standard error from here on.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), 'w', buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    setting = Setting(**json.loads(argument))
    if setting.allocator == 'tuned' and not tune_allocator():
        raise RuntimeError('the allocator of this system cannot be tuned')
    return setting, answers


def serve(answers: TextIO, programs: Mapping[str, sampling.Program], *, versions: Mapping[str, str]) -> None:
    """Warms up all programs, then answers requests until standard input ends."""
    for program in programs.values():
        program.call()
    release_free_memory()  # what compiling took is not the programs' peak
    for program in programs.values():
        program.call()
    work = {name: {'flop': program.flop, 'moved': program.moved} for name, program in programs.items()}
    print(json.dumps({'programs': work, 'versions': dict(versions)}), file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        sample = sampling.take(programs[request['do']], seconds=request['seconds'])
        sampling.wait_until_idle()  # the next turn is another's
        print(json.dumps(dataclasses.asdict(sample)), file=answers)


class Subject:
    """A process that is measured, seen from the benchmark.

    Attributes:
      name: how reports call it.
      programs: {what it can do: {'flop', 'moved'} of one call as in sampling.Program}, after `wait`.
      versions: {library: version}, after `wait`.
    """

    def __init__(self, name: str, command: list[str], setting: Setting, *, environment: Mapping[str, str]) -> None:
        self.name = name
        self.programs: dict[str, dict[str, int]] = {}
        self.versions: dict[str, str] = {}
        self._errors = tempfile.TemporaryFile('w+')  # noqa: SIM115 - open for as long as the process runs
        self._process = subprocess.Popen(
            [sys.executable, *command, json.dumps(dataclasses.asdict(setting))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **environment},
            text=True,
        )

    def wait(self) -> None:
        """Until it is built and warm.

        Raises:
          RuntimeError: it ended, with the end of what it printed.
        """
        ready = self._answer()
        self.programs, self.versions = ready['programs'], ready['versions']

    def sample(self, program: str, *, seconds: float) -> sampling.Sample:
        """Measures one of `programs` for at least `seconds`; raises as `wait` does."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({'do': program, 'seconds': seconds}) + '\n')
        self._process.stdin.flush()
        return sampling.Sample(**self._answer())

    def close(self) -> None:
        """Ends the process and waits for it."""
        self._process.terminate()
        self._process.communicate()
        self._errors.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            end = self._errors.read()[-2000:]
            raise RuntimeError(f'{self.name} ended with code {code} (-9: probably out of memory)\n{end}')
        return json.loads(line)
