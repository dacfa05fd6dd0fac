"""Diagnoses healthy runs, and the same with one piece broken at a time; prints verdicts and figures.

    python -m experiments.doctor_cases       on the embedded dataset, by the recipe of configs/two_device.py: minutes
    python -m experiments.doctor_cases NAME  on data/NAME, by the same network and rate

Prints the table of docs/doctor.md. No piece says of itself that it is broken: pixels, labels, the mean image, weights,
the dropout function or settings are others, and that is all that the doctor gets. tests/doctor/test_cases.py holds
the doctor to the same cases, on a small network.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.data.dataset import Dataset
from alexnet_jax.data.pipeline import HostBatch
from alexnet_jax.doctor.examine import STEPS, Diagnosis, examine
from alexnet_jax.doctor.network_stats import Instruments
from alexnet_jax.doctor.snapshot import Snapshot, make_snapshot
from alexnet_jax.model import ops
from alexnet_jax.run.run_dir import open_or_render
from alexnet_jax.sharding.backend import prepare_backend
from alexnet_jax.training.config import DEMO, make_config
from alexnet_jax.training.validation import validate_config

Change = Callable[[HostBatch], HostBatch]


class Lab:
    """Makes snapshots of one dataset and recipe, and examines them; compiles once for all that share a program."""

    def __init__(self, dataset: Dataset, settings: dict[str, Any], *, steps: int) -> None:
        self.dataset, self.settings, self.steps = dataset, settings, steps

    @functools.cached_property
    def healthy(self) -> Snapshot:
        """Makes what the recipe would train."""
        return self.make_snapshot(dataset=self.dataset)

    @functools.cached_property
    def instruments(self) -> Instruments:
        """Makes the programs of the healthy case."""
        return Instruments(self.healthy.run)

    def make_snapshot(self, *, dataset: Dataset | None = None, **settings: Any) -> Snapshot:
        """Makes what the recipe would train with other `settings`, or on another `dataset`."""
        if dataset is None and not settings:  # a diagnosis uses up the state
            return dataclasses.replace(self.healthy, state=jax.tree.map(jnp.copy, self.healthy.state))
        dataset = dataset or self.dataset
        config = make_config(None if dataset.name == DEMO else dataset.name)
        config.update(self.settings | settings)
        return make_snapshot(validate_config(config), dataset, name='a case')

    def examine(self, snapshot: Snapshot, *, own_program: bool = False) -> Diagnosis:
        """Examines `snapshot`; with `own_program` its network, mesh or code is not that of the healthy case."""
        return examine(snapshot, steps=self.steps, instruments=None if own_program else self.instruments)

    def examine_batches(self, change: Change, **pieces: Any) -> Diagnosis:
        """Examines the recipe with each batch changed."""
        snapshot = self.make_snapshot(**pieces)
        return self.examine(dataclasses.replace(snapshot, batches=lambda step: map(change, snapshot.batches(step))))

    def examine_weights(self, layer: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Diagnosis:
        """Examines the recipe with the {'kernel', 'bias'} of `layer` changed."""
        snapshot = self.make_snapshot()
        params = snapshot.state.params
        params = params | {layer: params[layer] | change(params[layer])}
        return self.examine(dataclasses.replace(snapshot, state=dataclasses.replace(snapshot.state, params=params)))

    def examine_mean_image(self, factor: float) -> Diagnosis:
        """Examines the recipe with the mean image multiplied."""
        other = dataclasses.replace(self.dataset, mean_image=self.dataset.mean_image * np.float32(factor))
        return self.examine(self.make_snapshot(dataset=other))


def examine_healthy(lab: Lab) -> Diagnosis:
    """Nothing is broken."""
    return lab.examine(lab.make_snapshot())


def examine_paper(lab: Lab) -> Diagnosis:
    """Biases of 1, std 0.01 everywhere, the norm behind ReLU: the paper's text."""
    return lab.examine(lab.make_snapshot(variant='paper'), own_program=True)


def scale_pixels(lab: Lab) -> Diagnosis:
    """Pixels and mean image in 0..1."""

    def darken(batch: HostBatch) -> HostBatch:
        return dataclasses.replace(batch, images=(batch.images / 255).round().astype(np.uint8))

    return lab.examine_batches(
        darken, dataset=dataclasses.replace(lab.dataset, mean_image=lab.dataset.mean_image / 255)
    )


def shuffle_labels(lab: Lab) -> Diagnosis:
    """Each image has the label of another one, the same in every epoch."""
    records = lab.dataset.records('train')
    labels = np.random.default_rng(1).permutation([records[i][1] for i in range(len(records))]).astype(np.int32)
    return lab.examine_batches(lambda batch: dataclasses.replace(batch, labels=labels[batch.records]))


def scale_rate(factor: float, lab: Lab) -> Diagnosis:
    """Another learning rate."""
    return lab.examine(lab.make_snapshot(learning_rate=lab.settings['learning_rate'] * factor))


def raise_decay(lab: Lab) -> Diagnosis:
    """A thousand times the weight decay."""
    return lab.examine(lab.make_snapshot(weight_decay=0.5), own_program=True)


@contextlib.contextmanager
def patch_dropout(change: Callable[[Any], dict[str, Any]]) -> Iterator[None]:
    """The network's dropout draws from a stream with some of its fields changed."""
    real = ops.dropout

    def dropout(x: Any, stream: Any, **options: Any) -> Any:
        return real(x, stream and dataclasses.replace(stream, **change(stream)), **options)

    with mock.patch.object(ops, 'dropout', dropout):
        yield


def share_tower_key(lab: Lab) -> Diagnosis:
    """Each of two devices drops as if it had tower 0."""
    with patch_dropout(lambda stream: {'towers': jnp.zeros_like(stream.towers)}):
        return lab.examine(lab.make_snapshot(mesh=(1, 2)), own_program=True)


def repeat_step_key(lab: Lab) -> Diagnosis:
    """The key does not depend on the step."""
    with patch_dropout(lambda stream: {'key': jax.random.key(0)}):
        return lab.examine(lab.make_snapshot(), own_program=True)


def blacken_images(lab: Lab) -> Diagnosis:
    """All pixels 0, as of files that could not be read."""
    return lab.examine_batches(lambda batch: dataclasses.replace(batch, images=np.zeros_like(batch.images)))


def keep_one_class(lab: Lab) -> Diagnosis:
    """All labels 0."""
    return lab.examine_batches(lambda batch: dataclasses.replace(batch, labels=np.zeros_like(batch.labels)))


def sort_classes(lab: Lab) -> Diagnosis:
    """Batches as of a folder read in its order: those of one class, then those of the next."""
    snapshot = lab.make_snapshot()
    size, examples = snapshot.run.config.batch_size, min(snapshot.run.examples, 2000)

    def batches(step: int) -> Iterator[HostBatch]:
        epoch = [batch for batch, _ in zip(snapshot.batches(0), range(examples // size), strict=False)]
        names = ('images', 'labels', 'lighting', 'records')
        together = {name: np.concatenate([getattr(batch, name) for batch in epoch]) for name in names}
        order = np.argsort(together['labels'], kind='stable')
        while True:
            for at in range(0, len(order), size):
                rows = order[at : at + size]
                yield dataclasses.replace(epoch[0], **{name: values[rows] for name, values in together.items()})

    return lab.examine(dataclasses.replace(snapshot, batches=batches))


CASES: dict[str, tuple[Callable[[Lab], Diagnosis], list[str]]] = {
    # The case: (what makes it, the causes that the verdict must name, the first of them first).
    'healthy': (examine_healthy, []),
    'biases of 1, std 0.01, the norm behind ReLU (`paper`)': (examine_paper, ['slow start']),
    'pixels in 0..1': (scale_pixels, ['input range']),
    'labels shuffled': (shuffle_labels, ['labels shuffled']),
    'learning rate x 100': (functools.partial(scale_rate, 100), ['learning rate too large']),
    'mean not subtracted': (functools.partial(Lab.examine_mean_image, factor=0), ['mean not subtracted']),
    'both towers fed the same dropout key': (share_tower_key, ['same dropout in both towers']),
    # Not among the six of the project's plan, and as common.
    'the mean image of pixels in 0..1': (
        functools.partial(Lab.examine_mean_image, factor=1 / 255),
        ['mean not subtracted'],
    ),
    'learning rate / 100': (functools.partial(scale_rate, 0.01), ['learning rate too small']),
    'weight decay x 1000': (raise_decay, ['weight decay too large']),
    'every step fed the same dropout key': (repeat_step_key, ['same dropout in all steps']),
    'images all black': (blacken_images, ['empty images']),
    'one class': (keep_one_class, ['one class']),
    'classes one after another': (sort_classes, ['order of the images']),
    'ReLUs of fc6 dead': (
        lambda lab: lab.examine_weights('fc6', lambda both: {'bias': both['bias'] - 1000}),
        ['dead ReLUs'],
    ),
    'NaN in a weight': (
        lambda lab: lab.examine_weights('conv3', lambda both: {'bias': both['bias'].at[0].set(jnp.nan)}),
        ['bad numbers'],
    ),
    'weights of fc8 20 times too large': (
        lambda lab: lab.examine_weights('fc8', lambda both: {'kernel': both['kernel'] * 20}),
        ['start too confident'],
    ),
}


def format_figures(diagnosis: Diagnosis) -> str:
    """Formats what the rules judge, short."""
    measurements = diagnosis.measurements
    data, network = measurements.data, measurements.network
    correlations = network.dropout.correlations if network.dropout else {}
    dead, later = (max(measurements.get_dead_shares(after=after).values()) for after in (False, True))
    parts = [
        f'pixels {data.pixel_mean:.0f} ± {data.pixel_spread:.2g}',
        f'mean left {measurements.residual_mean:.1f}',
        f'read ± {network.inputs.spread:.2g}',
        f'probe {data.probe.sigmas:+.1f} σ' if data.probe else 'no probe',
        f'order {data.order:.2f}',
        f'fc7 differs {list(network.before.values())[-2].variation:.1%}',
        f'update/weight {measurements.update_ratio:.1g}',
        f'dead {dead:.0%}, later {later:.0%}',
        *(f'{what} {correlations[what]:+.2f}' for what in ('towers', 'steps') if correlations.get(what) is not None),
    ]
    return ', '.join(parts)


def format_row(name: str, diagnosis: Diagnosis) -> str:
    """Formats one case as a row of Markdown."""
    losses = diagnosis.measurements.network.losses
    says = [f'**{finding.cause}**: {finding.seen}' for finding in diagnosis.findings] or ['nothing found']
    return f'| {name} | {"; ".join(says)} | {losses[0]:.2f} → {losses[-1]:.3g} | {format_figures(diagnosis)} |'


def main(dataset: str = DEMO) -> None:
    """Prints the table; exits with 1 where a verdict is another than it should be."""
    prepare_backend((1, 2))
    small = make_config(None)
    settings = {key: small[key] for key in ('variant', 'width', 'batch_size', 'learning_rate', 'images_per_crop')}
    lab = Lab(open_or_render(dataset, 'data'), settings, steps=STEPS)
    print('| case | the doctor says | loss | figures |\n|---|---|---|---|')
    wrong = []
    for name, (examine_case, causes) in CASES.items():
        diagnosis = examine_case(lab)
        print(format_row(name, diagnosis), flush=True)
        if [finding.cause for finding in diagnosis.findings] != causes:
            wrong.append(name)
    if wrong:
        sys.exit(f'wrongly diagnosed: {", ".join(wrong)}')


if __name__ == '__main__':
    main(*sys.argv[1:])
