"""Sends a run's numbers to wandb, mlflow or trackio; each is imported only where it is asked for.

All keep their files in the run folder and send nothing, unless the variables that are named here say otherwise.
"""

import json
import os
import pathlib
import struct
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

PROJECT = 'alexnet_jax'  # that runs are in, unless the tracker's own variables say otherwise
INSTALL = {
    'wandb': "pip install 'alexnet-jax[tracking]'",
    'mlflow': "pip install 'alexnet-jax[tracking]'",
    'trackio': "pip install 'alexnet-jax[trackio]' && pip install --no-deps trackio",
}


class Tracker(Protocol):
    """One run in a tracker; made as TRACKERS[name](run, workdir, settings), `run` None for a new one."""

    run: str  # what the tracker finds it by when it is resumed

    def get_last_steps(self) -> dict[str, int] | None:
        """Returns {group: last step} of what the tracker has of this run; None where it cannot be asked."""

    def log(self, step: int, values: dict[str, float | str]) -> None:
        """Takes what was found after `step` updates, {GROUP/NAME: value}."""

    def close(self, ending: str) -> None:
        """Ends the run, 'done', 'stopped' or 'failed', once all is written."""


def _find_last_steps(records: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Finds {group: last step} of (GROUP/NAME, step)."""
    last: dict[str, int] = {}
    for name, step in records:
        group = name.split('/')[0]
        last[group] = max(last.get(group, -1), step)
    return last


class _Mlflow:
    """A run in WORKDIR/mlflow.db, or where MLFLOW_TRACKING_URI says; in the experiment MLFLOW_EXPERIMENT_NAME."""

    def __init__(self, run: str | None, workdir: pathlib.Path, settings: dict[str, Any]) -> None:
        os.environ.setdefault('MLFLOW_DISABLE_TELEMETRY', 'true')  # read when it is imported
        from mlflow import MlflowClient, entities

        self._entities = entities
        local = f'sqlite:///{workdir.resolve() / "mlflow.db"}'
        self._client = MlflowClient(tracking_uri=os.environ.get('MLFLOW_TRACKING_URI') or local)
        if run is not None:
            self.run = run
            self._client.update_run(run, status='RUNNING')
            return
        name = os.environ.get('MLFLOW_EXPERIMENT_NAME') or PROJECT
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        self.run = self._client.create_run(experiment, run_name=workdir.name).info.run_id
        self._client.log_batch(self.run, params=[entities.Param(key, str(value)) for key, value in settings.items()])

    def get_last_steps(self) -> dict[str, int] | None:
        names = self._client.get_run(self.run).data.metrics
        histories = {name: self._client.get_metric_history(self.run, name) for name in names}
        return _find_last_steps((name, metric.step) for name, history in histories.items() for metric in history)

    def log(self, step: int, values: dict[str, float | str]) -> None:
        now, metric, tag = int(time.time() * 1000), self._entities.Metric, self._entities.RunTag
        self._client.log_batch(
            self.run,
            metrics=[metric(k, v, now, step) for k, v in values.items() if not isinstance(v, str)],
            tags=[tag(k, v) for k, v in values.items() if isinstance(v, str)],
        )

    def close(self, ending: str) -> None:
        status = {'done': 'FINISHED', 'stopped': 'KILLED', 'failed': 'FAILED'}[ending]
        self._client.set_terminated(self.run, status=status)


class _Wandb:
    """A run in WORKDIR/wandb, for `wandb sync`, or where WANDB_MODE=online says; in the project WANDB_PROJECT."""

    def __init__(self, run: str | None, workdir: pathlib.Path, settings: dict[str, Any]) -> None:
        os.environ.setdefault('WANDB_ERROR_REPORTING', 'false')  # to its makers
        import wandb

        self.run = run or uuid.uuid4().hex[:8]
        mode = os.environ.get('WANDB_MODE') or 'offline'
        self._files = workdir.glob(f'wandb/offline-run-*-{self.run}/*.wandb') if mode == 'offline' else None
        flush = {'x_transaction_log_flush_interval': 0.5}  # seconds; what is not in the file goes with a killed process
        quiet = wandb.Settings(console='off', silent=True, disable_git=True, save_code=False, **flush)
        project = os.environ.get('WANDB_PROJECT') or PROJECT
        place = {'project': project, 'id': self.run, 'name': workdir.name, 'mode': mode, 'dir': workdir}
        self._run = wandb.init(**place, resume='allow', config=settings, allow_val_change=True, settings=quiet)

    def get_last_steps(self) -> dict[str, int] | None:
        if self._files is None:
            return None
        from wandb.proto.wandb_internal_pb2 import Record

        found = []
        for path in self._files:
            for record in map(Record.FromString, _iter_leveldb_records(path)):
                items = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
                found += [(name, json.loads(items['_step'])) for name in items if not name.startswith('_')]
        return _find_last_steps(found)

    def log(self, step: int, values: dict[str, float | str]) -> None:
        self._run.log(values, step=step)

    def close(self, ending: str) -> None:
        self._run.finish(exit_code=0 if ending == 'done' else 1)


def _iter_leveldb_records(path: pathlib.Path) -> Iterator[bytes]:
    """Yields the whole records of a .wandb file, which is a log of LevelDB behind 7 bytes of wandb's own.

    Blocks of 32 KiB hold pieces: a checksum of 4 bytes, the length, what it is (1 all of a record, 2 its beginning, 3 a
    part, 4 its end), and the bytes. Less than 7 bytes at the end of a block are padding.
    """
    data, place, record = path.read_bytes(), 7, b''
    while place + 7 <= len(data):
        if (left := -place % 32768) < 7 and left:
            place += left
            continue
        length, kind = struct.unpack_from('<HB', data, place + 4)
        place += 7
        if place + length > len(data):
            return  # the process was killed while it wrote
        record = data[place : place + length] if kind in (1, 2) else record + data[place : place + length]
        place += length
        if kind in (1, 4):
            yield record


class _Trackio:
    """A run in WORKDIR/trackio, or where TRACKIO_DIR, TRACKIO_SPACE_ID or TRACKIO_SERVER_URL say."""

    def __init__(self, run: str | None, workdir: pathlib.Path, settings: dict[str, Any]) -> None:
        os.environ.setdefault('TRACKIO_DIR', str(workdir.resolve() / 'trackio'))  # read when it is imported
        import trackio

        self.run = run or f'{workdir.name}-{uuid.uuid4().hex[:8]}'  # it finds runs by name
        texts, resume = {key: str(value) for key, value in settings.items()}, 'never' if run is None else 'must'
        quiet = {'embed': False, 'auto_log_gpu': False, 'auto_log_cpu': False}
        self._run = trackio.init(project=PROJECT, name=self.run, resume=resume, config=texts, **quiet)
        trackio.context_vars.current_run.set(None)  # or it would be ended a second time when Python exits

    def get_last_steps(self) -> dict[str, int] | None:
        if os.environ.get('TRACKIO_SPACE_ID') or os.environ.get('TRACKIO_SERVER_URL'):
            return None
        from trackio.sqlite_storage import SQLiteStorage

        entries = SQLiteStorage.get_logs(PROJECT, self.run)
        return _find_last_steps((name, entry['step']) for entry in entries for name in entry)

    def log(self, step: int, values: dict[str, float | str]) -> None:
        self._run.log(values, step=step)

    def close(self, ending: str) -> None:
        self._run.finish()


TRACKERS: dict[str, Callable[[str | None, pathlib.Path, dict[str, Any]], Tracker]] = {
    'wandb': _Wandb,
    'mlflow': _Mlflow,
    'trackio': _Trackio,
}
