"""Reads what a report needs of a run folder: its settings, log, result and network."""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from alexnet_jax.checkpoints.load import load_config, load_network
from alexnet_jax.checkpoints.manifest import list_steps
from alexnet_jax.errors import InputError
from alexnet_jax.logs.writers import iter_metrics
from alexnet_jax.model.alexnet import init_parameters
from alexnet_jax.model.colour import tower_colours
from alexnet_jax.model.network import Network
from alexnet_jax.model.spec import LayerSize, get_layer_sizes
from alexnet_jax.training.config import Config
from alexnet_jax.training.config_rules import MAX_STEPS


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFolder:
    """A run, finished or not."""

    name: str  # its folder's name, or the whole path where two have the same
    index: int  # its place among the runs of the report, from 0, by which it has its colour
    workdir: pathlib.Path
    config: Config
    metadata: dict[str, Any]  # run.json: 'versions', 'commit', 'devices', 'mesh', 'host', ...; {} where there is none
    train: list[dict[str, Any]]  # lines of metrics.jsonl: of training
    centre: list[dict[str, Any]]  # of its tests under the centre protocol
    centre_training: list[dict[str, Any]]  # and of the same on training images (config.test_training_images)
    probes: list[dict[str, Any]]  # and of looks into single steps (training.layer_probe)
    result: dict[str, Any] | None  # result.json; None where the run has not come to its end
    startup: dict[str, Any] | None  # startup.json; None where there is none
    network: Network  # of its newest checkpoint
    initial_kernel: np.ndarray  # the first layer's kernel before any update: a function of the seed
    colour_history: dict[int, dict[str, float]]  # {step: model.colour.tower_colours}, from step 0; {} without towers

    @property
    def step(self) -> int:
        """Returns the number of updates that its network has seen."""
        return self.network.about['step']

    @property
    def kernel(self) -> np.ndarray:
        """Returns the first layer's kernel, (kh, kw, 3, filters)."""
        return self.network.params['conv1']['kernel']

    @property
    def has_towers(self) -> bool:
        """Returns whether its network has two towers."""
        return self.network.variant.towers > 1

    @property
    def layer_sizes(self) -> list[LayerSize]:
        """Returns the sizes of its network's layers."""
        return get_layer_sizes(self.network.variant, num_classes=len(self.network.classes))

    @property
    def network_label(self) -> str:
        """Formats its network's name: 'released, width 0.5, without norm'."""
        name = self.network.name
        width = [f'width {name.width:g}'] if name.width != 1 else []
        units = [f'{name.activation} units'] if name.activation else []
        return ', '.join([name.variant, *width, *(f'without {part}' for part in name.without), *units])

    @property
    def dataset_fingerprint(self) -> str | None:
        """Returns the fingerprint of its dataset; None where it is not recorded."""
        return self.metadata.get('identity', {}).get('dataset_fingerprint')

    @property
    def images_fingerprint(self) -> str | None:
        """Returns that of the dataset whose images it saw, whatever their encoding; None where it is not recorded."""
        return self.metadata.get('identity', {}).get('rewritten_from') or self.dataset_fingerprint

    @property
    def seconds(self) -> float | None:
        """Returns the time of all steps, without tests and saves; None without a log, which a resumed run continues."""
        if not self.train:
            return None
        steps = [0, *(line['step'] for line in self.train)]
        images = ((step - before) * self.config.batch_size for before, step in itertools.pairwise(steps))
        return sum(n / line['images_per_second'] for n, line in zip(images, self.train, strict=True))

    @property
    def images_per_second(self) -> float | None:
        """Returns the mean speed over all its steps; None without a log."""
        seconds = self.seconds
        return self.train[-1]['step'] * self.config.batch_size / seconds if seconds else None

    def get_test(self, protocol: str) -> dict[str, Any] | None:
        """Returns its last test under a protocol: of its result, or of the log where it has not come to its end."""
        if self.result:
            return self.result.get(protocol)
        return self.centre[-1] if protocol == 'centre' and self.centre else None


def load_run_folder(workdir: pathlib.Path, *, name: str, index: int = 0) -> RunFolder:
    """Reads a run folder; `name` and `index` as in RunFolder.

    Raises:
      InputError: it is no run folder, it has no checkpoint yet, or a file in it is damaged.
    """
    config, network = load_config(workdir), load_network(workdir)
    lines = [entry for _, entry in iter_metrics(workdir / 'metrics.jsonl', MAX_STEPS)]
    tests = [line for line in lines if line.get('protocol') == 'centre']
    centre = [line for line in tests if line['split'] == 'validation']
    create = jax.jit(lambda key: init_parameters(network.variant, key, num_classes=len(network.classes))['conv1'])
    initial_kernel = np.asarray(create(jax.random.key(config.seed))['kernel'])
    return RunFolder(
        name=name,
        index=index,
        workdir=workdir,
        config=config,
        metadata=_read_json(workdir / 'run.json') or {},
        train=[line for line in lines if line['split'] == 'train'],
        centre=centre,
        centre_training=[line for line in tests if line['split'] == 'training_images'],
        probes=[line for line in lines if line['split'] == 'probe'],
        result=_read_json(workdir / 'result.json'),
        startup=_read_json(workdir / 'startup.json'),
        network=network,
        initial_kernel=initial_kernel,
        colour_history=_read_colour_history(workdir, network, initial_kernel=initial_kernel, centre=centre),
    )


def make_run_names(workdirs: Sequence[pathlib.Path]) -> list[str]:
    """Makes a unique name for each run: its folder's, or the whole path where two have the same."""
    short = [workdir.resolve().name for workdir in workdirs]
    return [str(path) if short.count(name) > 1 else name for path, name in zip(workdirs, short, strict=True)]


def _read_colour_history(
    workdir: pathlib.Path, network: Network, *, initial_kernel: np.ndarray, centre: list[dict[str, Any]]
) -> dict[int, dict[str, float]]:
    """Reads the history from the log, or for a run of an earlier version from the checkpoints that it kept."""
    if network.variant.towers < 2:
        return {}
    initial = tower_colours(initial_kernel)
    history = {line['step']: {name: line[name] for name in initial} for line in centre if 'colour_tower0' in line}
    if not history:
        for step in list_steps(workdir):
            history[step] = tower_colours(load_network(workdir, step=step).params['conv1']['kernel'])
    history[network.about['step']] = tower_colours(network.params['conv1']['kernel'])
    return {0: initial} | dict(sorted(history.items()))


def _read_json(path: pathlib.Path) -> dict[str, Any] | None:
    """Reads a JSON file; None where there is none."""
    try:
        return json.loads(path.read_text()) if path.exists() else None
    except (OSError, ValueError) as error:
        raise InputError(f'{path} is damaged: {type(error).__name__} {error}') from error
