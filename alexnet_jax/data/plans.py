"""Finds the plan of what a user asks to have prepared."""

from __future__ import annotations

import os
import pathlib

from alexnet_jax import InputError
from alexnet_jax.data import folder_source, imagenet_source, tfds_source
from alexnet_jax.data.items import Plan
from alexnet_jax.data.photo import QUALITY


def name_of(*, images: str | None, dataset: str | None, name: str | None) -> str:
    """What the result will be called."""
    if images is not None:
        if name is None:
            raise InputError('--images needs --name=NAME, what the dataset is to be called')
        return name
    assert dataset is not None
    if dataset == 'demo' and name not in (None, 'demo'):
        raise InputError('--dataset=demo keeps its name; leave --name out')
    return tfds_source.default_name(dataset) if name is None else name


def plan_of(
    *,
    images: str | None,
    dataset: str | None,
    name: str,
    tfds_dir: str | os.PathLike[str],
    manual_dir: str | os.PathLike[str] | None = None,
    quality: int = QUALITY,
    keep_originals: bool = False,
    make: bool = True,
) -> Plan:
    """The plan of a folder `images`, or of `dataset`: 'demo', ImageNet's archives, or a TFDS dataset.

    ImageNet is read from its archives unless TFDS has it already and no `manual_dir` was named. `make` allows TFDS to
    make what it does not have, which may download much. Other arguments and errors are those of the sources.
    """
    if keep_originals and (images is not None or dataset == 'demo'):
        raise InputError('--keep_originals is for TFDS datasets: a folder and demo must be prepared')
    if images is not None:
        return folder_source.plan(images, name=name, quality=quality)
    if dataset == 'demo':
        from alexnet_jax.data import demo  # here, because only this renders

        return demo.plan()
    assert dataset is not None
    builder = tfds_source.find_builder(dataset, tfds_dir=tfds_dir)
    if dataset == 'imagenet2012' and not keep_originals and (manual_dir is not None or not builder.is_prepared()):
        archives = manual_dir or pathlib.Path(tfds_dir) / 'downloads' / 'manual'  # where TFDS looks for them
        return imagenet_source.plan(archives, name=name, quality=quality)
    if not make and not builder.is_prepared():
        size = builder.info.download_size
        raise InputError(
            f'{dataset} is not in {tfds_dir} yet: without --check TFDS makes it first'
            + (f', downloading {size}' if size else '')
        )
    tfds_source.make(builder, dataset=dataset, manual_dir=manual_dir)
    return tfds_source.plan(builder, dataset=dataset, name=name, quality=quality, keep_originals=keep_originals)
