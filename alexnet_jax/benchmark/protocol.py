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
from collections.abc import Callable, Mapping
from typing import Any, Literal

from alexnet_jax.benchmark.sampling import Program, Sample, take_sample, wait_until_idle
from alexnet_jax.errors import InputError
from alexnet_jax.sharding.backend import release_free_memory, tune_allocator

Allocator = Literal['tuned', 'default']


@dataclasses.dataclass(frozen=True)
class Setting:
    """Parameters that all measured processes have in common.

    Attributes:
      batch: images of one call.
      width: of the network, as a fraction of the paper's.
      classes: outputs of fc8.
      allocator: 'tuned' (sharding.backend) or 'default', the C library's own settings.
      dataset: the prepared dataset whose reading is measured, '' where none is.
      data_dir: the folder of that dataset.
      photos: a folder of photographs of any size, whose reading is measured likewise.
      scratch: a folder for the processes' own files, deleted after they have ended.
    """

    batch: int
    width: float
    classes: int
    allocator: Allocator
    dataset: str = ''
    data_dir: str = ''
    photos: str = ''
    scratch: str = ''


def parse_batch_sizes(values: list[str]) -> list[int]:
    """Parses the numbers of --batch; `InputError` unless they are positive and different."""
    if not values or not all(value.isdecimal() and int(value) for value in values) or len({*values}) < len(values):
        raise InputError(f'--batch={",".join(values)}: give different positive numbers, as in --batch=128,32')
    return [int(value) for value in values]


def run_worker(make_programs: Callable[[str, Setting], tuple[Mapping[str, Program], Mapping[str, str]]]) -> None:
    """Runs a measured process: `python -m MODULE NAME SETTING`, as `Worker` starts it.

    Makes and warms up all programs, then answers requests until standard input ends. What libraries print goes to
    standard error.

    Args:
      make_programs: returns the programs of NAME and {library: version}. It has to be what first imports numpy, jax or
        torch: the allocator is set before it is called.

    Raises:
      RuntimeError: the setting asks for a tuned allocator, and this system's cannot be tuned.
    """
    name, argument = sys.argv[1:]
    answers = os.fdopen(os.dup(sys.stdout.fileno()), 'w', buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    setting = Setting(**json.loads(argument))
    if setting.allocator == 'tuned' and not tune_allocator():
        raise RuntimeError('the allocator of this system cannot be tuned')
    programs, versions = make_programs(name, setting)
    for program in programs.values():
        program.call()
    release_free_memory()  # what compiling took is not the programs' peak
    for program in programs.values():
        program.call()
    work = {name: {'flop': program.flop, 'moved': program.moved} for name, program in programs.items()}
    print(json.dumps({'programs': work, 'versions': dict(versions)}), file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        sample = take_sample(programs[request['do']], seconds=request['seconds'])
        wait_until_idle()  # the next turn is another's
        print(json.dumps(dataclasses.asdict(sample)), file=answers)


class Worker:
    """A process that is measured, as the benchmark sees it.

    Attributes:
      name: its name in figures.
      programs: {what it can do: {'flop', 'moved'} of one call as in sampling.Program}, after `wait_until_ready`.
      versions: {library: version}, after `wait_until_ready`.
    """

    def __init__(self, name: str, command: list[str], setting: Setting, *, environment: Mapping[str, str]) -> None:
        """Starts Python with `command` and the setting, which `run_worker` reads there."""
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

    def wait_until_ready(self) -> None:
        """Waits until all programs are built and warm.

        Raises:
          RuntimeError: the process ended; the message has the end of what it printed.
        """
        ready = self._read_answer()
        self.programs, self.versions = ready['programs'], ready['versions']

    def sample(self, program: str, *, seconds: float) -> Sample:
        """Measures one of `programs` for at least `seconds`; raises as `wait_until_ready` does."""
        assert self._process.stdin
        print(json.dumps({'do': program, 'seconds': seconds}), file=self._process.stdin, flush=True)
        return Sample(**self._read_answer())

    def close(self) -> None:
        """Ends the process and waits for it."""
        self._process.terminate()
        self._process.communicate()
        self._errors.close()

    def _read_answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            end = self._errors.read()[-2000:]
            raise RuntimeError(f'{self.name} ended with code {code} (-9: probably out of memory)\n{end}')
        return json.loads(line)
