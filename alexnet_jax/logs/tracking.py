"""Experiment trackers beside metrics.jsonl and TensorBoard: wandb, mlflow or trackio, where config.tracking names one.

They get the same numbers under TensorBoard's names, the config as parameters and at the end the result. Nothing goes
over a network unless the user's environment says so: logs/trackers.py.

A tracker must not change training. Its package is imported only when asked for, numbers go to it from a thread of their
own, and where it fails that is said once and the run goes on without.

WORKDIR/tracking.json keeps the run's id, so that a resumed run goes on in the same one. What the tracker lacks of the
steps before, because it failed or was killed with what it had not written yet, comes from metrics.jsonl. What a killed
run had logged after its last checkpoint is not logged again when those steps are made again, also where a rolled back
run makes them differently: a tracker's curve has each step once, in order, and metrics.jsonl is what holds.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import queue
import sys
import threading
from collections.abc import Callable
from importlib import util
from typing import Any

from alexnet_jax.console import info
from alexnet_jax.errors import InputError, Interrupted
from alexnet_jax.files import write_json
from alexnet_jax.logs.trackers import INSTALL, TRACKERS, Tracker
from alexnet_jax.logs.writers import get_group, iter_metrics
from alexnet_jax.training.config import Config

PATIENCE = 60.0  # seconds for a tracker to take what is left at the end


def check_tracker(name: str) -> None:
    """That the tracker `name` ('' for none) is installed; imports nothing.

    Raises:
      InputError: it is not; the line has the command that installs it.
    """
    if not name:
        return
    found = util.find_spec(name)
    if found is None or found.origin is None:  # without one it is only a folder of that name
        raise InputError(f'config.tracking is {name!r}, which is not installed: {INSTALL[name]}')


class Tracking:
    """What a run tells its tracker; a context manager. With the name '' all of it is silence.

    Attributes:
      info: called with the one line about a tracker that fails.
    """

    def __init__(self, config: Config, workdir: pathlib.Path, *, start: int, silent: bool = False) -> None:
        """Opens the run that has made `start` steps, or a new one; `silent`: of a process that leaves it to another.

        Raises:
          InputError: a new run cannot be opened. Of a resumed one that is said only.
        """
        self.info: Callable[[str], None] = info
        self._name = '' if silent else config.tracking
        self._path = workdir / 'tracking.json'
        self._thread: threading.Thread | None = None
        if not self._name:
            return
        check_tracker(self._name)
        runs = _read(self._path)
        before = runs.get(self._name, {})
        try:
            with _off_standard_output():
                self._tracker: Tracker = TRACKERS[self._name](before.get('run'), workdir, config.to_json())
                asked = self._tracker.logged()
                self._keeps = asked is None  # tracking.json keeps what the tracker cannot be asked for
                self._logged = before.get('logged', {}) if asked is None else asked
        except Exception as error:
            text = f'{self._name} does not open a run: {_line(error)}'
            if not before:
                raise InputError(f'{text}; without it: --config.tracking=') from error
            self.info(f'WARNING: {text}; the run goes on without')
            return
        self._runs = runs | {self._name: before | {'run': self._tracker.run}}
        write_json(self._path, self._runs)
        self._ending = 'done'
        self._waiting: queue.SimpleQueue[tuple[int, str, dict[str, Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name='tracking', daemon=True)
        self._thread.start()
        for _, entry in iter_metrics(workdir / 'metrics.jsonl', start):
            step, split = entry.pop('step'), entry.pop('split')
            self.log(step, get_group(split, entry), entry)

    def __enter__(self) -> Tracking:
        return self

    def log(self, step: int, group: str, values: dict[str, Any]) -> None:
        """Sends the numbers among `values`, found after `step` updates, as GROUP/NAME; returns at once."""
        if self._thread:
            self._waiting.put((step, group, {k: v for k, v in values.items() if isinstance(v, int | float)}))

    def result(self, result: dict[str, Any]) -> None:
        """Sends what run.loop.run returns, as result/NAME and result/NAME/NAME."""
        if self._thread:
            self._waiting.put((result['steps'], 'result', _flat(result)))

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if not self._thread:
            return
        self._ending = 'done' if kind is None else 'stopped' if issubclass(kind, Interrupted) else 'failed'
        self._waiting.put(None)
        with _off_standard_output():
            self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self.info(f'WARNING: {self._name} has not taken everything after {PATIENCE:.0f} s; the rest is lost to it')

    def _work(self) -> None:
        try:
            while item := self._waiting.get():
                step, group, values = item
                if step <= self._logged.get(group, -1):
                    continue
                self._logged[group] = step
                if self._keeps:  # first, so that a step can be missing after a crash, but never double
                    self._runs[self._name]['logged'] = self._logged
                    write_json(self._path, self._runs)
                self._tracker.log(step, {f'{group}/{name}': value for name, value in values.items()})
            self._tracker.close(self._ending)
        except Exception as error:
            self.info(f'WARNING: {self._name} failed: {_line(error)}; the run goes on without; metrics.jsonl has all')


def _read(path: pathlib.Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        runs = json.loads(path.read_text())
        assert all(isinstance(run['run'], str) for run in runs.values())
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise InputError(f'{path} is damaged: delete it, and the tracker begins a new run') from error
    return runs


def _flat(values: dict[str, Any], prefix: str = '') -> dict[str, float | str]:
    flat: dict[str, float | str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f'{prefix}{name}/')
        elif value is not None:
            flat[prefix + name] = value
    return flat


def _line(error: Exception) -> str:
    return f'{type(error).__name__}: {" ".join(str(error).split())[:300]}'


def _off_standard_output() -> contextlib.AbstractContextManager[object]:
    """Standard output is for results: what trackers print goes to standard error."""
    return contextlib.redirect_stdout(sys.stderr)
