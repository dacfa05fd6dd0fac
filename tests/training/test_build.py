"""From configs to the augmentation of each variant: how long it is lit, who shares a crop, what is sent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import run_with

from alexnet_jax.run.batches import iter_batches, make_batches
from alexnet_jax.training.build import describe_schedule
from alexnet_jax.training.config import make_config
from alexnet_jax.training.schedule import Plateau
from alexnet_jax.training.step import rates_at


@pytest.mark.parametrize(
    ('values', 'lit'),
    [
        ({'variant': 'released', 'epochs': 91.0}, 66 * 5),  # 40 images: 5 steps an epoch; the last 25 are dark
        ({'variant': 'released', 'epochs': 90.0}, 326),  # 326.4
        ({'variant': 'released', 'epochs': 4.0}, 15),  # 14.5: a short run has its dark end too
        ({'variant': 'released', 'steps': 1}, 1),
        ({'variant': 'released', 'steps': 91, 'epochs': 1.0}, 66),
        ({'variant': 'paper', 'epochs': 91.0}, 91 * 5),
    ],
)
def test_build_run_ends_the_released_noise_after_66_of_91_epochs_and_the_paper_s_never(values, lit):
    assert run_with(**values).lighting_steps == lit


def test_build_run_slows_the_released_conv1_at_epoch_67_and_freezes_it_at_72_of_91():
    """CHM layers/layers-145.cfg's log; 5 steps an epoch."""
    changes = run_with(variant='released', epochs=91.0).lr_multipliers
    assert [(change.layer, change.step, change.factor) for change in changes] == [
        ('conv1', 66 * 5, 0.1),
        ('conv1', 71 * 5, 0.0),
    ]
    assert run_with(variant='paper', epochs=91.0).lr_multipliers == ()


@pytest.mark.parametrize(('variant', 'rate'), [('released', 0.02), ('paper', 1e-5), ('caffenet', 2e-5)])
def test_build_run_keeps_the_released_biases_at_their_first_rate_to_the_end(variant, rate):
    """At a weights' rate of 1e-5, the last one: CHM layers/layer-params-145.cfg, [conv2a] epsW=0.00001 epsB=0.02."""
    drops = {'schedule': 'steps', 'drop_epochs': (1.0, 2.0, 3.0)}
    run = run_with(examples=80, variant=variant, mesh=(1, 1), learning_rate=0.01, **drops)  # 10 steps an epoch
    rates = rates_at(jnp.int32(30), Plateau.start(), schedule=run.schedule, variant=run.variant)
    optimizer, params = run.optimizer, {'conv2': {'kernel': jnp.zeros(3), 'bias': jnp.zeros(3)}}
    gradients = jax.tree.map(jnp.ones_like, params)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params, **rates)
    np.testing.assert_allclose(updates['conv2']['bias'], -rate, rtol=1e-6)
    np.testing.assert_allclose(updates['conv2']['kernel'], -1e-5, rtol=1e-6)


def test_build_run_never_drops_beyond_what_a_run_can_count():
    drops = {'schedule': 'steps', 'drop_epochs': (1.0, 2.0**30), 'learning_rate': 0.5, 'drop_factor': 0.5}
    rate = run_with(examples=80, **drops).schedule  # 10 steps an epoch
    assert [float(rate(step, Plateau.start())) for step in (9, 10, 2**31 - 2)] == [0.5, 0.25, 0.25]


def test_make_batches_lights_and_cuts_as_the_variant_says(tiny):
    released = make_batches(run_with(variant='released', steps=3), tiny)  # lit for 2.2 steps
    assert [bool(released[step].lighting.any()) for step in range(3)] == [True, True, False]
    assert released.images_per_crop == 32
    paper = make_batches(run_with(variant='paper', steps=3), tiny)
    assert all(paper[step].lighting.all() for step in range(3))
    assert paper.images_per_crop == 1
    assert make_batches(run_with(variant='released', images_per_crop=1), tiny).images_per_crop == 1
    assert make_batches(run_with(variant='paper', images_per_crop=5), tiny).images_per_crop == 5
    assert not make_batches(run_with(variant='released', lighting=False), tiny)[0].lighting.any()
    assert make_config(None, mesh=(1, 2)).images_per_crop == 1  # its steps of 32 would show one window each


def test_iter_batches_sends_150556_bytes_an_image_to_the_device(tiny):
    """224 * 224 * 3 of pixels, 4 of label, 12 of lighting, 12 of where the crop was and whether it is mirrored."""
    batches = make_batches(run_with(variant='released', steps=3), tiny)
    batch = next(iter_batches(run_with(mesh=(1, 1), variant='released', steps=3), tiny, start=0))
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(batch)) == 8 * (150_528 + 28)
    np.testing.assert_array_equal(batch.lighting, batches[0].lighting)


@pytest.mark.parametrize(
    ('values', 'plan'),
    [
        ({}, 'rate 0.01, times 0.1 when 5 tests in a row bring no lower error, at most 3 times'),
        ({'drop_epochs': (1.0,)}, 'rate 0.01, times 0.1 when 5 tests in a row bring no lower error, at most 3 times'),
        ({'patience': 1, 'max_drops': 1}, 'rate 0.01, times 0.1 when 1 test brings no lower error, at most once'),
        ({'max_drops': 0}, 'rate 0.01 throughout'),
        ({'schedule': 'steps', 'drop_epochs': (1.0, 2.5, 4.0)}, 'rate 0.01, times 0.1 after steps 10, 25'),
        ({'schedule': 'steps', 'drop_epochs': (1.0,), 'drop_factor': 0.5}, 'rate 0.01, times 0.5 after step 10'),
        ({'schedule': 'steps'}, 'rate 0.01 throughout'),  # 24 epochs are not reached
        ({'rate_batch_size': 4}, 'rate 0.02, times 0.1 when 5 tests in a row bring no lower error, at most 3 times'),
        (
            {'max_drops': 0, 'frozen': ('conv1', 'conv2'), 'rate_factors': {'fc8': 10.0}, 'warmup_epochs': 0.5},
            'rate 0.01 throughout; fc8 times 10; conv1, conv2 frozen; grows over the first 5 steps',
        ),
        (
            {'schedule': 'polynomial', 'trust_coefficient': 0.002},
            'rate 0.01, times (the part of the steps that is left) ** 2; LARS, trust 0.002',
        ),
    ],
)
def test_describe_schedule_says_what_the_rate_will_do(values, plan):
    """Of two schedules' settings only those of the chosen one count; 80 images: 10 steps an epoch."""
    assert describe_schedule(run_with(examples=80, steps=30, **values)) == f'30 steps of 8 images (3 epochs): {plan}'


def test_describe_schedule_names_the_steps_after_which_the_rate_drops():
    run = run_with(examples=80, steps=30, schedule='steps', drop_epochs=(1.01, 2.5))
    rates = [float(run.schedule(jnp.int32(made), Plateau.start())) for made in range(30)]  # of the step after `made`
    np.testing.assert_allclose(rates, [0.01] * 11 + [0.001] * 14 + [0.0001] * 5, rtol=1e-6)
    assert describe_schedule(run).endswith('after steps 11, 25')


def test_build_run_gives_the_optimizer_the_factors_of_its_layers():
    """One step of rate 0.5 from 0, of gradients of 1; `paper` has one rate for kernels and biases."""
    optimizer = run_with(variant='paper', weight_decay=0.0, rate_factors={'fc8': 10.0, 'conv1': 0.5}).optimizer
    zeros = {layer: {'kernel': np.zeros(2, 'f4'), 'bias': np.zeros(1, 'f4')} for layer in ('conv1', 'fc7', 'fc8')}
    ones = {layer: {name: leaf + 1 for name, leaf in leaves.items()} for layer, leaves in zeros.items()}
    updates, _ = optimizer.update(ones, optimizer.init(zeros), zeros, learning_rate=jnp.float32(0.5))
    for layer, factor in (('conv1', 0.5), ('fc7', 1.0), ('fc8', 10.0)):
        np.testing.assert_allclose(updates[layer]['kernel'], -0.5 * factor)
        np.testing.assert_allclose(updates[layer]['bias'], -0.5 * factor)
