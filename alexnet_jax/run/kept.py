"""What the runs of one process share, so that it is opened, traced and compiled once."""

import dataclasses
import gc
from collections import OrderedDict
from typing import Any

from alexnet_jax.data.dataset import Dataset
from alexnet_jax.distributed import hosts
from alexnet_jax.distributed.hosts import ProcessGroup, sync_hosts
from alexnet_jax.distributed.phases import PROGRESS
from alexnet_jax.evaluation.evaluator import Evaluator
from alexnet_jax.run.run_dir import open_or_render
from alexnet_jax.sharding.backend import release_free_memory
from alexnet_jax.training.build import Run, make_variant
from alexnet_jax.training.config import Config

MAX_PROGRAMS = 32  # settings whose programs a process keeps: a search has any number of them


class Kept:
    """What the runs of one process share: the dataset, and the programs of runs that differ in their seed alone."""

    def __init__(self) -> None:
        self._opened: tuple[Any, Dataset] | None = None
        self._programs: OrderedDict[Any, tuple[Any, Evaluator]] = OrderedDict()

    def open_dataset(self, config: Config, group: ProcessGroup) -> Dataset:
        """Opens the dataset of `config`, unless the run before had it; of cache 'memory' decoded records stay too."""
        key = (config.dataset, config.data_dir, config.cache)
        if self._opened is None or self._opened[0] != key:
            self._opened = None  # first: the memory that one has taken is the next one's
            self._programs.clear()  # which read its records
            gc.collect()
            release_free_memory()  # to the system, which says whether the next one fits
            self._opened = key, _open_in_turn(config, group)
        return self._opened[1].check_variant(make_variant(config))

    def make_programs(self, run: Run, dataset: Dataset) -> tuple[Any, Evaluator]:
        """Makes the training step and the evaluator of `run`, once for all seeds; the last MAX_PROGRAMS pairs stay."""
        key = (dataclasses.replace(run.config, seed=0), run.mesh)
        if key not in self._programs:
            evaluate = Evaluator(
                run.variant,
                run.mesh,
                dataset.records('validation'),
                num_classes=run.num_classes,
                batch_size=run.config.batch_size,
                dtype=run.dtype,
            )
            self._programs[key] = run.make_train_step(), evaluate
        self._programs.move_to_end(key)
        if len(self._programs) > MAX_PROGRAMS:
            self._programs.popitem(last=False)
        return self._programs[key]


def _open_in_turn(config: Config, group: ProcessGroup) -> Dataset:
    """Opens the dataset, one process after another: only the first on each disk has to render the embedded one."""
    PROGRESS.enter('dataset')
    for index in range(group.count):
        if index == group.index:
            dataset = open_or_render(config.dataset, config.data_dir)
        sync_hosts('dataset')
    processes = hosts.count_host_processes()  # whatever this one's settings are: those are compared later
    return dataset.keep_in_memory(processes=processes) if config.cache == 'memory' else dataset
