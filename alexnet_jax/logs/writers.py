"""Writes a run's numbers to metrics.jsonl and to a TensorBoard file: at once, and whole lines only."""

import errno
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from alexnet_jax.errors import InputError
from alexnet_jax.files import write_file


def iter_metrics(path: pathlib.Path, step: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the lines of a metrics.jsonl, where it exists, of up to `step` updates, each with what it says."""
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # the last line of a killed run may be half written
            continue
        if entry['step'] <= step:
            yield line, entry


def get_group(split: str, values: dict[str, Any]) -> str:
    """Returns what TensorBoard and trackers file values of a split under: 'train', or SPLIT_PROTOCOL of a test."""
    return f'{split}_{values["protocol"]}' if 'protocol' in values else split


class JsonlWriter:
    """Writes metrics.jsonl: one JSON object a line, each on disk when `write` returns."""

    def __init__(self, path: pathlib.Path, *, until: int) -> None:
        """Opens the file for more lines, with only those up to step `until` left in it."""
        self._waiting = b''  # lines that the disk did not take
        kept = list(iter_metrics(path, until))
        self.written = {(entry['step'], entry['split'], entry.get('protocol')) for _, entry in kept}
        write_file(path, ''.join(f'{line}\n' for line, _ in kept))
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        self._end = os.fstat(self._descriptor).st_size

    def write(self, entry: dict[str, Any]) -> None:
        """Adds a line, and before it those that could not be written when they came; raises OSError, keeping it."""
        self._waiting += json.dumps(entry).encode() + b'\n'
        try:
            if os.write(self._descriptor, self._waiting) < len(self._waiting):  # a part fitted
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.ftruncate(self._descriptor, self._end)
            raise
        self._end += len(self._waiting)
        self._waiting = b''

    def close(self) -> None:
        """Closes the file."""
        os.close(self._descriptor)


class TensorBoardWriter:
    """Writes a TensorBoard file of scalars.

    tensorboardX's own SummaryWriter writes from a thread: on a full disk that dies, and training then waits for it
    for ever.
    """

    def __init__(self, folder: pathlib.Path, *, purge_step: int) -> None:
        """Opens a new file in `folder`; TensorBoard forgets what earlier ones say of `purge_step` and later."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / 'events'))
        self._write(purge_step, file_version='brain.Event:2')
        self._write(purge_step, session_log=SessionLog(status=SessionLog.START))

    def _write(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._writer.write_event(Event(step=step, wall_time=time.time(), **content))

    def write(self, step: int, group: str, values: dict[str, Any]) -> None:
        """Writes the numbers among `values` as GROUP/NAME; raises OSError."""
        from tensorboardX.summary import scalar

        for name, value in values.items():
            if isinstance(value, int | float):
                self._write(step, summary=scalar(f'{group}/{name}', value))
        self._writer.flush()

    def close(self) -> None:
        """Closes the file; raises OSError."""
        self._writer.close()


class MetricWriter:
    """Writes both files of a run folder; what the disk refuses ends the run, or is said once and tried again."""

    def __init__(self, workdir: pathlib.Path, *, until: int, patient: bool, info: Callable[[str], None]) -> None:
        """Opens them with what is up to step `until`; `patient` to go on where a disk is full, telling `info`."""
        self._workdir, self._patient, self._info = workdir, patient, info
        self._jsonl = JsonlWriter(workdir / 'metrics.jsonl', until=until)
        self._board: TensorBoardWriter | None = TensorBoardWriter(workdir / 'tensorboard', purge_step=until + 1)
        self._failing = False

    def write(self, step: int, split: str, values: dict[str, Any]) -> None:
        """Adds what was found after `step` updates, unless the run that this one resumes has.

        Raises:
          InputError: the disk does not take it.
        """
        if (step, split, values.get('protocol')) in self._jsonl.written:
            return
        try:
            self._jsonl.write({'step': step, 'split': split, **values})
            self._failing = False
        except OSError as error:
            self._report('metrics.jsonl', error, 'its lines are kept and tried again')
        try:
            if self._board:
                self._board.write(step, get_group(split, values), values)
        except OSError as error:
            self._board = None
            self._report('tensorboard', error, 'no more is written there')

    def _report(self, name: str, error: OSError, consequence: str) -> None:
        text = f'cannot write {self._workdir / name}: {error.strerror}'
        if not self._patient:
            raise InputError(text) from error
        if not self._failing:
            self._failing = True
            self._info(f'WARNING: {text}; {consequence}')

    def close(self) -> None:
        """Closes both."""
        self._jsonl.close()
        if self._board:
            self._board.close()
