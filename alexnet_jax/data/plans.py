"""Finds the plan of what a user asks to have prepared."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from typing import Any

from alexnet_jax import InputError
from alexnet_jax.data import folder_source, imagenet_source, tfds_source
from alexnet_jax.data.items import Plan
from alexnet_jax.data.photo import QUALITY
from alexnet_jax.data.statistics import RECORD


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What to prepare: a folder of images, or a dataset by name.

    Attributes:
      images: the folder (`folder_source`), or None.
      dataset: 'demo', 'imagenet2012' or another TFDS name, or None.
      name: what the result is to be called; None is the dataset's name.
      tfds_dir: where TFDS keeps its datasets.
      manual_dir: folder of archives that TFDS cannot download.
      quality: JPEG quality of the records, 1..100.
      size: their side in pixels.
      keep_originals: leave the images where TFDS has them.
    """

    images: str | None = None
    dataset: str | None = None
    name: str | None = None
    tfds_dir: str | os.PathLike[str] = '~/tensorflow_datasets'
    manual_dir: str | os.PathLike[str] | None = None
    quality: int = QUALITY
    size: int = RECORD
    keep_originals: bool = False

    def __post_init__(self) -> None:
        if (self.images is None) == (self.dataset is None):
            raise InputError('give --images=DIR --name=NAME, or --dataset=NAME (demo is the embedded one)')


def name_of(request: Request) -> str:
    """What the result will be called; `InputError` if that is not known."""
    if request.name == 'demo' and request.dataset != 'demo':
        raise InputError('--name=demo is the embedded dataset, which configs take by default: choose another')
    if request.images is not None:
        if request.name is None:
            raise InputError('--images needs --name=NAME, what the dataset is to be called')
        return request.name
    assert request.dataset is not None
    if request.dataset == 'demo' and request.name not in (None, 'demo'):
        raise InputError('--dataset=demo keeps its name; leave --name out')
    return re.sub(r'[/:.]', '_', request.dataset) if request.name is None else request.name


def plan_of(request: Request, *, make: bool = True) -> Plan:
    """Finds the images; `make` allows TFDS to make what it does not have, which may download much.

    ImageNet is read from its archives unless TFDS has it already and no `manual_dir` was named.

    Raises:
      InputError: what the source of the images cannot do, as said there.
    """
    dataset, name = request.dataset, name_of(request)
    form: dict[str, Any] = {'quality': request.quality, 'record_size': request.size}
    if request.keep_originals and dataset in (None, 'demo'):
        raise InputError('--keep_originals is for TFDS datasets: a folder and demo must be prepared')
    if dataset == 'demo' and request.size != RECORD:
        raise InputError(f'--dataset=demo is drawn at {RECORD}x{RECORD}: leave --size out')
    if request.images is not None:
        return folder_source.plan(request.images, name=name, **form)
    assert dataset is not None
    if dataset == 'demo':
        from alexnet_jax.data import demo  # here, because only this renders

        return demo.plan()
    builder = tfds_source.find_builder(dataset, tfds_dir=request.tfds_dir)
    from_archives = request.manual_dir is not None or not builder.is_prepared()
    if dataset == 'imagenet2012' and from_archives and not request.keep_originals:
        archives = request.manual_dir or pathlib.Path(request.tfds_dir) / 'downloads' / 'manual'  # as TFDS has it
        return imagenet_source.plan(archives, name=name, **form)
    if not make and not builder.is_prepared():
        size = builder.info.download_size
        raise InputError(
            f'{dataset} is not in {request.tfds_dir} yet: without --check TFDS makes it first'
            + (f', downloading {size}' if size else '')
        )
    tfds_source.make(builder, dataset=dataset, manual_dir=request.manual_dir)
    return tfds_source.plan(builder, dataset=dataset, name=name, keep_originals=request.keep_originals, **form)
