"""How far a run is, read from its folder and its log: what the table shows and what a search goes by."""

from __future__ import annotations

import json
import pathlib
from typing import Any

MARK = 'launch.sweep: '  # begins the line that a sweep adds to a run's log at its end
_TAIL = 8192  # bytes of a log in which its last lines are looked for


class Progress:
    """The numbers of one run folder so far.

    Attributes:
      step: of the last line of metrics.jsonl, 0 before there is one.
      loss: nats, mean of the last training line; None before there is one.
      errors: {step: centre top-1 error of the validation split}.
      images_per_second: of the last training line.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._path, self._offset = folder / 'metrics.jsonl', 0
        self.step, self.loss = 0, None
        self.errors: dict[int, float] = {}
        self.images_per_second: float | None = None

    def refresh(self) -> None:
        """Reads the lines that are new."""
        try:
            with self._path.open('rb') as file:
                if file.seek(0, 2) < self._offset:  # a resumed run drops what it will write again
                    self._offset = 0
                file.seek(self._offset)
                whole, _, _ = file.read().rpartition(b'\n')
        except FileNotFoundError:
            return
        self._offset += len(whole) + 1 if whole else 0
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # of a run that was killed, or the middle of a line that was
                continue
            self.step = entry['step']
            if entry['split'] == 'train':
                self.loss, self.images_per_second = entry['loss'], entry['images_per_second']
            elif entry['protocol'] == 'centre':
                self.errors[self.step] = entry['top1_error']

    @property
    def error(self) -> float | None:
        """The last validation error, centre top-1."""
        return self.errors[max(self.errors)] if self.errors else None


def result_of(folder: pathlib.Path) -> dict[str, Any] | None:
    """result.json of a run that is finished; None where it is missing or not whole."""
    try:
        result = json.loads((folder / 'result.json').read_text())
        return result if result['steps'] and result['centre'] and result['ten_view'] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def ended_as(log: pathlib.Path) -> tuple[str, str]:
    """What a sweep noted at the end of a run's log, and the last line of the run itself; '' where there is none.

    A run that goes on writes below the note, so that only counts as the last line.
    """
    try:
        with log.open('rb') as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL))
            lines = [line for line in file.read().decode(errors='replace').splitlines() if line.strip()]
    except FileNotFoundError:
        return '', ''
    note = lines.pop().removeprefix(MARK) if lines and lines[-1].startswith(MARK) else ''
    own = next((line for line in reversed(lines) if not line.startswith(MARK)), '')
    return note, own
