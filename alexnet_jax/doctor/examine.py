"""The diagnosis: opens a config or a run folder, measures, judges."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable

from alexnet_jax.checkpoints.load import load_config
from alexnet_jax.doctor.data_stats import measure_data
from alexnet_jax.doctor.measurements import Finding, Measurements
from alexnet_jax.doctor.network_stats import Instruments, measure_network
from alexnet_jax.doctor.snapshot import Snapshot, load_snapshot, make_snapshot, mesh_shape
from alexnet_jax.doctor.verdict import find_causes, list_notes
from alexnet_jax.run.run_dir import open_or_render
from alexnet_jax.sharding.backend import prepare_backend
from alexnet_jax.training.build import make_variant
from alexnet_jax.training.config import Config

STEPS = 20  # a rate a hundred times too large shows after 6


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What was measured, and what it means.

    Attributes:
      case: the measurements.
      findings: what is wrong, the first to be mended first.
      notes: what is worth knowing.
    """

    case: Measurements
    findings: list[Finding]
    notes: list[str]


def examine(
    subject: Snapshot,
    *,
    steps: int = STEPS,
    say: Callable[[str], None] = lambda text: None,
    instruments: Instruments | None = None,
) -> Diagnosis:
    """Looks at the data of `subject`, then at `steps` training steps of it, whose outcome is thrown away.

    Args:
      subject: what is diagnosed; its state is used up.
      steps: at least 1.
      say: is told what goes on.
      instruments: those of an earlier subject with the same network, mesh and update rule, which saves compiling.
    """
    start = max(0, int(subject.state.step))
    data = measure_data(subject.batches(start), classes=subject.classes, examples=subject.examples, say=say)
    network = measure_network(subject, steps=steps, say=say, instruments=instruments)
    case = Measurements(subject, data, network)
    return Diagnosis(case, find_causes(case), list_notes(case))


def examine_config(config: Config, *, name: str, steps: int = STEPS, say: Callable[[str], None]) -> Diagnosis:
    """`examine` of what `config` would train; `InputError` where it, its dataset or the devices cannot be used."""
    prepare_backend(mesh_shape(config), deterministic=config.deterministic)
    dataset = open_or_render(config.dataset, config.data_dir).read_by(make_variant(config))
    return examine(make_snapshot(config, dataset, name=name), steps=steps, say=say)


def examine_workdir(workdir: pathlib.Path, *, steps: int = STEPS, say: Callable[[str], None]) -> Diagnosis:
    """`examine` of the run in `workdir` where it stands; nothing in the folder is changed.

    Raises:
      InputError: it holds no run, or its checkpoints, its dataset or the devices cannot be used.
    """
    config = load_config(workdir)
    prepare_backend(mesh_shape(config), deterministic=config.deterministic)
    dataset = open_or_render(config.dataset, config.data_dir).read_by(make_variant(config))
    return examine(load_snapshot(workdir, config, dataset), steps=steps, say=say)
