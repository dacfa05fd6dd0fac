"""What can be wrong with what the network is fed: pixels, labels, dropout. Pure rules.

The thresholds stand between what healthy and what broken runs gave; docs/doctor.md has the figures. "Healthy" below are
the embedded dataset and 3,068 photos of clothes with `released`, which both learned (docs/results.md).
"""

from __future__ import annotations

from alexnet_jax.diagnosis.case import Case, Finding, Rule

TELLING = 200  # images of which a probe learns enough to be missed where it fails


def pixels_without_content(case: Case) -> Finding | None:
    """Spread of the pixels under 1 of 255, but for 0..1: nothing is in the images. Healthy: 46 and 65."""
    look = case.data
    if look.pixel_spread >= 1 or look.pixel_range == (0, 1):
        return None
    return Finding(
        'empty images',
        f'the pixels are all about {look.pixel_mean:.0f} (spread {look.pixel_spread:.2f})',
        'look at the dataset: python -m alexnet_jax.prepare --show=NAME',
    )


def pixels_in_another_range(case: Case) -> Finding | None:
    """Spread of the pixels under 10 of 255, or of what the network reads: they are in 0..1, or -1..1.

    Healthy: 46 and 65, and after lighting's divisor of 1.1 42 and 59. Pixels of 0..1 have a spread of 0.2 to 0.5.
    The initial weights of all variants expect 0..255 (CHM convdata_jpeg.py and Caffe subtract the mean and divide by
    nothing), or what Variant.pixel_std makes of it.
    """
    spread = min(case.data.pixel_spread, case.network.inputs.spread)
    if spread >= 10:
        return None
    low, high = case.data.pixel_range
    where = f'the pixels go from {low} to {high}' if case.data.pixel_spread < 10 else 'the pixels are as they should be'
    return Finding(
        'input range',
        f'{where}, and what the network reads has a spread of {spread:.2f} where about 50 is expected',
        'prepare the dataset again from images of 0..255: they were scaled to 0..1 or are nearly black',
    )


def mean_left_in(case: Case) -> Finding | None:
    """A channel's mean of more than 20 of 255 is left in what the network reads.

    Healthy: at most 5. Not subtracted, it is 103 to 120 (photos, and the embedded dataset), and 33 with MNIST, the
    darkest that is commonly trained on.
    """
    if case.left <= 20:
        return None
    return Finding(
        'mean not subtracted',
        f'of pixels with a mean of {case.data.pixel_mean:.0f}, {case.left:.0f} are left in what the network reads',
        "make the mean image fit the images: prepare the dataset again, with --overwrite (it is the training split's)",
    )


def one_class(case: Case) -> Finding | None:
    """One class in all images, or one that has 90 % of them: answering it is nearly always right. Healthy: 11, 26 %."""
    look = case.data
    if look.largest < 0.9:
        return None
    return Finding(
        'one class',
        f'{look.largest:.1%} of {look.images:,} labels are the same',
        'look at how the labels were made: there should be more of the other classes',
    )


def labels_unrelated(case: Case) -> Finding | None:
    """The probe is less than 3 standard deviations better than with permuted labels, of TELLING images or more.

    Healthy: 5.4 and 5.1 of 128 images, 8.8 and 17 of 350, 35 and 68 of 2,000. Shuffled: -1.2 to 0.9. Not tried on more
    than ten classes. A run whose validation error says otherwise is believed.
    """
    found = case.data.probe
    if found is None or found.sigmas >= 3 or case.data.images < TELLING or case.has_learned:
        return None
    return Finding(
        'labels shuffled',
        f'labels have nothing to do with their images: a linear probe is right on {found.accuracy:.1%}, and on '
        f'{found.permuted_accuracy:.1%} with the labels permuted ({found.sigmas:+.1f} standard deviations)',
        'look at how images and labels are brought together: python -m alexnet_jax.prepare --show=NAME',
    )


def classes_in_turn(case: Case) -> Finding | None:
    """Labels within a batch spread less than 70 % of what chance would give. Healthy: 96 to 101 %."""
    order = case.data.order
    if not order < 0.7:
        return None
    return Finding(
        'order of the images',
        f'batches hold few classes at a time: the entropy of their labels is {order:.0%} of what random order gives',
        'shuffle: training expects the images in random order',
    )


def same_dropout(case: Case) -> Finding | None:
    """A correlation of 0.1 or more between units that should be dropped independently.

    By chance 0.01 at most (10,000 units and more are compared); 1 where the same key is used twice.
    """
    look = case.network.dropout
    for what, found in (look.alike if look else {}).items():
        if found is not None and abs(found) >= 0.1:
            cause = 'same dropout in both towers' if what == 'towers' else f'same dropout in all {what}'
            return Finding(
                cause,
                f'units are dropped together, with a correlation of {found:.2f} between {what} where 0 is expected',
                f'give each of the {what} a key of its own: model.layers.dropout folds in layer, image and tower',
            )
    return None


def wrong_dropout_rate(case: Case) -> Finding | None:
    """Kept units differ from 1 - dropout_rate by 0.05 or more. By chance 0.005 (10,000 units)."""
    look, keep = case.network.dropout, 1 - case.subject.variant.dropout_rate
    if look is None or look.kept is None or abs(look.kept - keep) < 0.05:
        return None
    return Finding(
        'dropout rate',
        f'{look.kept:.0%} of the hidden units are kept where {keep:.0%} are expected',
        'look at model.layers.dropout: a rate is the probability of dropping, not of keeping',
    )


INPUT: tuple[Rule, ...] = (pixels_without_content, pixels_in_another_range, mean_left_in)
LABELS: tuple[Rule, ...] = (one_class, labels_unrelated, classes_in_turn)
DROPOUT: tuple[Rule, ...] = (same_dropout, wrong_dropout_rate)
