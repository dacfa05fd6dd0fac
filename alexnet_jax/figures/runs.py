"""What a run folder holds, read for a report: its settings, log, result and network."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from alexnet_jax import InputError
from alexnet_jax.model.alexnet import init_parameters
from alexnet_jax.model.filters import tower_colours
from alexnet_jax.model.network import Network
from alexnet_jax.training.config import MOST_STEPS
from alexnet_jax.training.inspection import checkpoint_steps
from alexnet_jax.training.records import lines_until
from alexnet_jax.training.trained import load_config, load_network


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run, finished or not.

    Attributes:
      name: its folder's name, or the whole path where two have the same.
      workdir: the folder.
      config: its settings.
      circumstances: run.json: 'versions', 'commit', 'devices', 'mesh', 'host', ...
      train, centre: lines of metrics.jsonl: of training, and of its tests under the centre protocol.
      result: result.json; None where the run has not come to its end.
      startup: startup.json; None where there is none.
      network: of its newest checkpoint.
      start: the first layer's kernel before any update: a function of the seed.
      course: {step: {'colour_tower0', 'colour_tower1'}} (model.filters.tower_colours), from step 0; {} without towers.
    """

    name: str
    workdir: pathlib.Path
    config: ml_collections.ConfigDict
    circumstances: dict[str, Any]
    train: list[dict[str, Any]]
    centre: list[dict[str, Any]]
    result: dict[str, Any] | None
    startup: dict[str, Any] | None
    network: Network
    start: np.ndarray
    course: dict[int, dict[str, float]]

    @property
    def step(self) -> int:
        """Updates that its network has seen."""
        return self.network.about['step']

    @property
    def kernel(self) -> np.ndarray:
        """The first layer's, (kh, kw, 3, filters)."""
        return self.network.params['conv1']['kernel']

    @property
    def has_towers(self) -> bool:
        """Whether its network has two."""
        return self.network.variant.towers > 1


def read_run(workdir: pathlib.Path, *, name: str) -> Run:
    """Reads a run folder.

    Raises:
      InputError: it is none, it has no checkpoint yet, or a file in it is damaged.
    """
    config, network = load_config(workdir), load_network(workdir)
    lines = [entry for _, entry in lines_until(workdir / 'metrics.jsonl', MOST_STEPS)]
    centre = [line for line in lines if line.get('protocol') == 'centre']
    create = jax.jit(lambda key: init_parameters(network.variant, key, num_classes=len(network.classes))['conv1'])
    start = np.asarray(create(jax.random.key(config.seed))['kernel'])
    return Run(
        name=name,
        workdir=workdir,
        config=config,
        circumstances=_json(workdir / 'run.json') or {},
        train=[line for line in lines if line['split'] == 'train'],
        centre=centre,
        result=_json(workdir / 'result.json'),
        startup=_json(workdir / 'startup.json'),
        network=network,
        start=start,
        course=_course(workdir, network, start=start, centre=centre),
    )


def names_of(workdirs: Sequence[pathlib.Path]) -> list[str]:
    """What to call the runs of these folders: each by a name of its own."""
    short = [workdir.resolve().name for workdir in workdirs]
    return [str(path) if short.count(name) > 1 else name for path, name in zip(workdirs, short, strict=True)]


def _course(
    workdir: pathlib.Path, network: Network, *, start: np.ndarray, centre: list[dict[str, Any]]
) -> dict[int, dict[str, float]]:
    """As the run logged it; of one of before, which did not, from the checkpoints that it kept."""
    if network.variant.towers < 2:
        return {}
    names = tuple(tower_colours(start))
    course = {line['step']: {name: line[name] for name in names} for line in centre if names[0] in line}
    if not course:
        for step in checkpoint_steps(workdir):
            course[step] = tower_colours(load_network(workdir, step=step).params['conv1']['kernel'])
    course[network.about['step']] = tower_colours(network.params['conv1']['kernel'])
    return {0: tower_colours(start)} | dict(sorted(course.items()))


def _json(path: pathlib.Path) -> dict[str, Any] | None:
    """What a JSON file holds; None where there is none."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f'{path} is damaged: {type(error).__name__} {error}') from error
