"""The diagnosis: opens a config or a run folder, measures, judges."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable

import ml_collections

from alexnet_jax.diagnosis.case import Case, Finding
from alexnet_jax.diagnosis.data import look_at_data
from alexnet_jax.diagnosis.network import Instruments, train_and_look
from alexnet_jax.diagnosis.subject import Subject, config_of, mesh_shape, of_config, of_workdir
from alexnet_jax.diagnosis.verdict import findings, notes
from alexnet_jax.parallel.devices import prepare_backend
from alexnet_jax.training import config as configs
from alexnet_jax.training.recipe import variant_of
from alexnet_jax.training.workdir import open_or_render

STEPS = 20  # a rate a hundred times too large shows after 6


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What was measured, and what it means.

    Attributes:
      case: the measurements.
      findings: what is wrong, the first to be mended first.
      notes: what is worth knowing.
    """

    case: Case
    findings: list[Finding]
    notes: list[str]


def examine(
    subject: Subject,
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
    data = look_at_data(subject.batches(start), classes=subject.classes, examples=subject.examples, say=say)
    network = train_and_look(subject, steps=steps, say=say, instruments=instruments)
    case = Case(subject, data, network)
    return Diagnosis(case, findings(case), notes(case))


def examine_config(
    config: ml_collections.ConfigDict, *, name: str, steps: int = STEPS, say: Callable[[str], None]
) -> Diagnosis:
    """`examine` of what `config` would train; `InputError` where it, its dataset or the devices cannot be used."""
    configs.validate(config)
    prepare_backend(mesh_shape(config), deterministic=config.deterministic)
    dataset = open_or_render(config.dataset, config.data_dir).read_by(variant_of(config))
    return examine(of_config(config, dataset, name=name), steps=steps, say=say)


def examine_workdir(workdir: pathlib.Path, *, steps: int = STEPS, say: Callable[[str], None]) -> Diagnosis:
    """`examine` of the run in `workdir` where it stands; nothing in the folder is changed.

    Raises:
      InputError: it holds no run, or its checkpoints, its dataset or the devices cannot be used.
    """
    config = config_of(workdir)
    prepare_backend(mesh_shape(config), deterministic=config.deterministic)
    dataset = open_or_render(config.dataset, config.data_dir).read_by(variant_of(config))
    return examine(of_workdir(workdir, config, dataset), steps=steps, say=say)
