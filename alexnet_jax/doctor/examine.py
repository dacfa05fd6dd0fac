"""Examines a config or a run folder: opens it, measures it, and finds causes."""

import dataclasses
import pathlib
from collections.abc import Callable

from alexnet_jax.checkpoints.load import load_config
from alexnet_jax.data.dataset import Dataset
from alexnet_jax.doctor.data_stats import measure_data
from alexnet_jax.doctor.measurements import Measurements
from alexnet_jax.doctor.network_stats import Instruments, measure_network
from alexnet_jax.doctor.rules import Finding, find_causes, list_notes
from alexnet_jax.doctor.snapshot import Snapshot, load_snapshot, make_snapshot
from alexnet_jax.run.run_dir import open_or_render
from alexnet_jax.sharding.backend import prepare_backend
from alexnet_jax.training.build import make_variant
from alexnet_jax.training.config import Config

STEPS = 20  # a rate a hundred times too large shows after 6


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """Measurements, what is wrong (the first finding is to be mended first), and notes of what is worth knowing."""

    measurements: Measurements
    findings: list[Finding]
    notes: list[str]


def examine(
    snapshot: Snapshot,
    *,
    steps: int = STEPS,
    info: Callable[[str], None] = lambda text: None,
    instruments: Instruments | None = None,
) -> Diagnosis:
    """Measures the data of `snapshot`, then `steps` training steps of it, whose result is thrown away.

    Args:
      snapshot: what is diagnosed; its state is used up.
      steps: at least 1.
      info: prints a line of progress.
      instruments: those of an earlier snapshot with the same network, mesh and update rule, which saves compiling.
    """
    start = max(0, int(snapshot.state.step))
    sizes = {'classes': snapshot.run.num_classes, 'examples': snapshot.run.examples}
    data = measure_data(snapshot.batches(start), **sizes, info=info)
    network = measure_network(snapshot, steps=steps, info=info, instruments=instruments)
    measurements = Measurements(snapshot, data, network)
    return Diagnosis(measurements, find_causes(measurements), list_notes(measurements))


def examine_config(config: Config, *, name: str, steps: int = STEPS, info: Callable[[str], None]) -> Diagnosis:
    """Examines what `config` would train; `InputError` where its dataset or the devices cannot be used."""
    return examine(make_snapshot(config, _open_dataset(config), name=name), steps=steps, info=info)


def examine_workdir(workdir: pathlib.Path, *, steps: int = STEPS, info: Callable[[str], None]) -> Diagnosis:
    """Examines the run in `workdir` where it stands; nothing in the folder is changed.

    Raises:
      InputError: it holds no run, or its checkpoints, its dataset or the devices cannot be used.
    """
    config = load_config(workdir)
    return examine(load_snapshot(workdir, config, _open_dataset(config)), steps=steps, info=info)


def _open_dataset(config: Config) -> Dataset:
    """Opens the config's dataset, once JAX's backend has the devices of one replica."""
    prepare_backend((1, config.mesh[1]), deterministic=config.deterministic)
    return open_or_render(config.dataset, config.data_dir).check_variant(make_variant(config))
