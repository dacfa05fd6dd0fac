"""The cases: a healthy run, and the same with one piece broken at a time.

No piece says of itself that it is broken: pixels, labels, the mean image, weights, the dropout function or settings are
others, and that is all that the doctor gets.
"""

import dataclasses
import functools
import os

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.diagnosis.examine import examine
from alexnet_jax.diagnosis.network import Instruments
from alexnet_jax.diagnosis.subject import of_config
from alexnet_jax.model import layers
from alexnet_jax.training.config import DEMO, recipe, validate

EMBEDDED = os.environ.get('DOCTOR_DATA_DIR')  # where the embedded dataset is or is to be, for the table


class Lab:
    """Makes subjects of one dataset and recipe, and examines them; compiles once for all that share a program."""

    def __init__(self, dataset, settings, *, steps):
        self.dataset, self.settings, self.steps = dataset, settings, steps
        self._instruments = None

    def subject(self, *, dataset=None, **settings):
        dataset = dataset or self.dataset
        config = recipe(None if dataset.name == DEMO else dataset.name)
        config.update(self.settings | settings)
        validate(config)
        return of_config(config, dataset, name='a case')

    def examine(self, subject, *, own_program=False):
        """`own_program`: of another network, mesh or code than the healthy one's."""
        if own_program:
            return examine(subject, steps=self.steps)
        self._instruments = self._instruments or Instruments(self.subject())
        return examine(subject, steps=self.steps, instruments=self._instruments)

    def with_batches(self, change, **subject):
        """A subject with each batch changed."""
        found = self.subject(**subject)
        return dataclasses.replace(found, batches=lambda step: map(change, found.batches(step)))

    def with_weights(self, layer, change):
        """A subject with the {'kernel', 'bias'} of `layer` changed."""
        found = self.subject()
        params = found.state.params | {layer: change(found.state.params[layer])}
        return dataclasses.replace(found, state=dataclasses.replace(found.state, params=params))


def healthy(lab, patch):
    return lab.examine(lab.subject())


def late_norm(lab, patch):
    return lab.examine(lab.subject(variant='paper'), own_program=True)


def pixels_of_one(lab, patch):
    def darken(batch):
        return dataclasses.replace(batch, images=(batch.images / 255).round().astype(np.uint8))

    return lab.examine(
        lab.with_batches(darken, dataset=dataclasses.replace(lab.dataset, mean_image=lab.dataset.mean_image / 255))
    )


def shuffled_labels(lab, patch):
    records = lab.dataset.records('train')
    labels = np.random.default_rng(1).permutation([records[i][1] for i in range(len(records))]).astype(np.int32)
    return lab.examine(lab.with_batches(lambda batch: dataclasses.replace(batch, labels=labels[batch.records])))


def rate_times(factor, lab, patch):
    rate = lab.subject().config.learning_rate
    return lab.examine(lab.subject(learning_rate=rate * factor))


def mean_left_in(lab, patch):
    zero = dataclasses.replace(lab.dataset, mean_image=np.zeros_like(lab.dataset.mean_image))
    return lab.examine(lab.subject(dataset=zero))


def mean_of_one(lab, patch):
    """The mean image of pixels in 0..1 under pixels in 0..255."""
    other = dataclasses.replace(lab.dataset, mean_image=lab.dataset.mean_image / 255)
    return lab.examine(lab.subject(dataset=other))


def same_key_in_both_towers(lab, patch):
    def dropout(x, stream, **options):
        return real(x, stream and dataclasses.replace(stream, towers=jnp.zeros_like(stream.towers)), **options)

    real = layers.dropout
    patch.setattr(layers, 'dropout', dropout)
    return lab.examine(lab.subject(mesh=(1, 2)), own_program=True)


def same_key_in_every_step(lab, patch):
    def dropout(x, stream, **options):
        return real(x, stream and dataclasses.replace(stream, key=jax.random.key(0)), **options)

    real = layers.dropout
    patch.setattr(layers, 'dropout', dropout)
    return lab.examine(lab.subject(), own_program=True)


def one_class(lab, patch):
    return lab.examine(lab.with_batches(lambda batch: dataclasses.replace(batch, labels=np.zeros_like(batch.labels))))


def classes_in_turn(lab, patch):
    """Batches as of a folder read in its order: those of one class, then those of the next."""
    found = lab.subject()

    def batches(step):
        every = [next_ for next_, _ in zip(found.batches(0), range(max(40, 4 * lab.steps)), strict=False)]
        names = ('images', 'labels', 'lighting', 'records')
        together = {name: np.concatenate([getattr(batch, name) for batch in every]) for name in names}
        order = np.argsort(together['labels'], kind='stable')
        for at in range(0, len(order), len(every[0].labels)):
            rows = order[at : at + len(every[0].labels)]
            yield dataclasses.replace(every[0], **{name: together[name][rows] for name in names})

    few = dataclasses.replace(found, batches=batches, examples=min(found.examples, 160))
    return lab.examine(few)


def dead_layer(lab, patch):
    return lab.examine(lab.with_weights('fc6', lambda both: both | {'bias': both['bias'] - 1000}))


def bad_weight(lab, patch):
    return lab.examine(lab.with_weights('conv3', lambda both: both | {'bias': both['bias'].at[0].set(jnp.nan)}))


def loud_classifier(lab, patch):
    return lab.examine(lab.with_weights('fc8', lambda both: both | {'kernel': both['kernel'] * 20}))


# (case, what makes it, the causes that the verdict must name, the first of them first)
CASES = (
    ('healthy', healthy, []),
    ('biases of 1, std 0.01, the norm behind ReLU (`paper`)', late_norm, ['slow start']),
    ('pixels in 0..1', pixels_of_one, ['input range']),
    ('labels shuffled', shuffled_labels, ['labels shuffled']),
    ('learning rate x 100', functools.partial(rate_times, 100), ['learning rate too large']),
    ('learning rate / 100', functools.partial(rate_times, 0.01), ['learning rate too small']),
    ('mean not subtracted', mean_left_in, ['mean not subtracted']),
    ('both towers fed the same dropout key', same_key_in_both_towers, ['same dropout in both towers']),
    ('one class', one_class, ['one class']),
    ('classes one after another', classes_in_turn, ['order of the images']),
    ('ReLUs of fc6 dead', dead_layer, ['dead ReLUs']),
    ('NaN in a weight', bad_weight, ['bad numbers']),
    ('weights of fc8 20 times too large', loud_classifier, ['start too confident']),
)
if EMBEDDED:  # what costs more time than it adds
    CASES += (
        ('the mean of pixels in 0..1', mean_of_one, ['mean not subtracted']),
        ('every step the same dropout key', same_key_in_every_step, ['same dropout in all steps']),
    )
