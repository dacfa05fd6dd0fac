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

import jax

from alexnet_jax.console import info
from alexnet_jax.errors import InputError, Interrupted
from alexnet_jax.files import write_json
from alexnet_jax.logs.trackers import INSTALL, TRACKERS
from alexnet_jax.logs.writers import get_group, iter_metrics
from alexnet_jax.training.config import Config

PATIENCE = 60.0  # seconds for a tracker to take what is left at the end


def check_tracker(name: str) -> None:
    """Checks that the tracker `name` is installed; imports nothing.

    Raises:
      InputError: it is not; the line has the command that installs it.
    """
    found = util.find_spec(name)
    if found is None or found.origin is None:  # without an origin it is only a folder of that name
        raise InputError(f'config.tracking is {name!r}, which is not installed: {INSTALL[name]}')


class Tracking:
    """Sends what a run finds to its tracker; a context manager. With config.tracking '' it does nothing."""

    def __init__(self, config: Config, workdir: pathlib.Path, *, start: int, silent: bool = False) -> None:
        """Opens the run that has made `start` steps, or a new one; `silent`: of a process that leaves it to another.

        Raises:
          InputError: a new run cannot be opened. Of a resumed one that is said only.
        """
        self.info: Callable[[str], None] = info  # called with the one line about a tracker that fails
        self._name = config.tracking
        self._path = workdir / 'tracking.json'
        self._thread: threading.Thread | None = None
        if silent or not self._name:
            return
        self._runs = _read_runs(self._path)
        before = self._runs.get(self._name, {})
        try:
            with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
                self._tracker = TRACKERS[self._name](before.get('run'), workdir, config.to_json())
                asked = self._tracker.get_last_steps()
        except Exception as error:
            text = f'{self._name} does not open a run: {_format_error(error)}'
            if not before:
                raise InputError(f'{text}; without it: --config.tracking=') from error
            self.info(f'WARNING: {text}; the run goes on without')
            return
        self._keeps = asked is None  # tracking.json keeps what the tracker cannot be asked for
        self._logged = before.get('logged', {}) if asked is None else asked
        self._runs[self._name] = before | {'run': self._tracker.run}
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

    def log_result(self, result: dict[str, Any]) -> None:
        """Sends what run.train.train_run returns, as result/NAME and result/NAME/NAME."""
        if self._thread:
            leaves = jax.tree.leaves_with_path(result)  # None is none
            named = {jax.tree_util.keystr(path, simple=True, separator='/'): value for path, value in leaves}
            self._waiting.put((result['steps'], 'result', named))

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if not self._thread:
            return
        self._ending = 'done' if kind is None else 'stopped' if issubclass(kind, Interrupted) else 'failed'
        self._waiting.put(None)
        with contextlib.redirect_stdout(sys.stderr):
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
            text = _format_error(error)
            self.info(f'WARNING: {self._name} failed: {text}; the run goes on without; metrics.jsonl has all')


def _read_runs(path: pathlib.Path) -> dict[str, Any]:
    """Reads {tracker: {'run': id, 'logged': {group: step}}}."""
    try:
        runs = json.loads(path.read_text()) if path.exists() else {}
        assert all(isinstance(run['run'], str) for run in runs.values())
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise InputError(f'{path} is damaged: delete it, and the tracker begins a new run') from error
    return runs


def _format_error(error: Exception) -> str:
    return f'{type(error).__name__}: {" ".join(str(error).split())[:300]}'
