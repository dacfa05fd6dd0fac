"""Progress of a run, read from its folder and its log: for the table of a sweep, and for the pruning of a search."""

from __future__ import annotations

import json
import pathlib
from typing import Any

NOTE = 'alexnet sweep: '  # begins the line that a sweep appends to a run's log
_TAIL_BYTES = 8192  # of a log, searched for its last lines


class RunProgress:
    """The numbers of one run folder so far.

    Attributes:
      step: step of the last line of metrics.jsonl; 0 before there is one.
      loss: mean loss in nats of the last training line; None before there is one.
      errors: {step: centre top-1 error of the validation split}.
      images_per_second: speed of the last training line; None before there is one.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._path, self._offset = folder / 'metrics.jsonl', 0
        self.step = 0
        self.loss: float | None = None
        self.errors: dict[int, float] = {}
        self.images_per_second: float | None = None

    def refresh(self) -> None:
        """Reads the lines that are new since the last call."""
        try:
            with self._path.open('rb') as file:
                if file.seek(0, 2) < self._offset:  # a resumed run drops the lines that it will write again
                    self._offset = 0
                file.seek(self._offset)
                whole, newline, _ = file.read().rpartition(b'\n')
        except FileNotFoundError:
            return
        self._offset += len(whole + newline)
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # written by a run that was killed, or read from the middle
                continue
            self.step = entry['step']
            if entry['split'] == 'train':
                self.loss, self.images_per_second = entry['loss'], entry['images_per_second']
            elif entry['protocol'] == 'centre':
                self.errors[self.step] = entry['top1_error']

    @property
    def error(self) -> float | None:
        """The last centre top-1 error of the validation split; None before there is one."""
        return self.errors[max(self.errors)] if self.errors else None


def read_json(path: pathlib.Path) -> Any:
    """Reads a file that a run writes; None where it is missing or cut off."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def read_result(folder: pathlib.Path) -> dict[str, Any] | None:
    """Reads result.json of a finished run; None where it is missing or incomplete."""
    result = read_json(folder / 'result.json')
    complete = isinstance(result, dict) and all(map(result.get, ('steps', 'centre', 'ten_view')))
    return result if complete else None


def read_log_end(log: pathlib.Path) -> tuple[str, str]:
    """Reads the sweep's note at the end of a run's log and the run's own last line; '' for each that is missing.

    XX
    """
    try:
        with log.open('rb') as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            lines = [line for line in file.read().decode(errors='replace').splitlines() if line.strip()]
    except FileNotFoundError:
        return '', ''
    note = lines.pop().removeprefix(NOTE) if lines and lines[-1].startswith(NOTE) else ''
    return note, next((line for line in reversed(lines) if not line.startswith(NOTE)), '')
