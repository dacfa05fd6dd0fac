"""Lines of JSON between the benchmark and a process that it measures: one request on stdin, one answer on stdout.

    (started)                        -> {"programs": {"train": {"flop": 529358880768, ...}}, "versions": {"jax": ...}}
    {"do": "train", "seconds": 1.0}  -> {"calls": 2, "seconds": 0.71, ...}, a sampling.Sample

The process builds and warms up everything before its first line, computes only while a request is open, and ends with
its standard input. Standard library only, so that a peer written in anything can be measured the same way.
"""

import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from subprocess import PIPE, Popen
from typing import Any, Literal

from alexnet_jax.benchmark.sampling import Program, Sample, take_sample, wait_until_idle
from alexnet_jax.sharding.backend import release_free_memory, tune_allocator


@dataclasses.dataclass(frozen=True)
class Setting:
    """Parameters that all measured processes have in common."""

    batch: int  # images of one call
    width: float  # of the network, as a fraction of the paper's
    classes: int  # outputs of fc8
    allocator: Literal['tuned', 'default']  # as sharding.backend does, or the C library's own settings
    dataset: str = ''  # the prepared dataset whose reading is measured, '' where none is
    data_dir: str = ''  # the folder of that dataset
    photos: str = ''  # a folder of photographs of any size, whose reading is measured likewise
    scratch: str = ''  # a folder for the processes' own files, deleted after they have ended
    device: Literal['cpu', 'gpu'] = 'cpu'  # what the networks run on
    # Of products: float32, tf32 (float32 arrays whose products keep 10 bits, GPUs alone), or everything in bfloat16.
    precision: Literal['float32', 'tf32', 'bfloat16'] = 'float32'


def run_worker(make_programs: Callable[[str, Setting], tuple[Mapping[str, Program], Mapping[str, str]]]) -> None:
    """Runs a measured process, `python -m MODULE NAME SETTING`: warms up all programs, then answers requests.

    Calls `make_programs` with NAME and the setting for the programs and {library: version}, once the allocator is set:
    nothing may import numpy, jax or torch before. Sends what libraries print to standard error. Raises RuntimeError
    where the setting asks for a tuned allocator and this system's cannot be tuned.
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
    """A process that is measured, as the benchmark sees it."""

    def __init__(
        self,
        name: str,
        command: list[str],
        setting: Setting,
        *,
        environment: Mapping[str, str],
        python: str = sys.executable,
    ) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile('w+')  # noqa: SIM115 - open for as long as the process runs
        arguments = [python, *command, json.dumps(dataclasses.asdict(setting))]
        variables = {**os.environ, **environment}
        # In a session of its own: a terminal's Ctrl-C reaches this process alone, which ends the other.
        options: dict[str, Any] = {'env': variables, 'text': True, 'start_new_session': True}
        self._process = Popen(arguments, stdin=PIPE, stdout=PIPE, stderr=self._errors, **options)

    def wait_until_ready(self) -> None:
        """Waits until all programs are warm; raises RuntimeError, with the end of its output, if the process ended."""
        ready = self._read_answer()
        self.programs: dict[str, dict[str, int]] = ready['programs']  # by name: {'flop', 'moved'} of a call
        self.versions: dict[str, str] = ready['versions']  # by library

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
