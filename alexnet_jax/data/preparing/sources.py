"""Finds the images that a user asks to have prepared, and makes the spec of their dataset."""

import dataclasses
import os
import pathlib
import re
from typing import Any

from alexnet_jax.data.photo import QUALITY
from alexnet_jax.data.preparing import folder, imagenet, tfds
from alexnet_jax.data.preparing.dataset_spec import DatasetSpec
from alexnet_jax.data.statistics import RECORD
from alexnet_jax.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceArgs:
    """The options of `alexnet prepare` that say what to prepare; its --help has their meaning."""

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


def get_dataset_name(args: SourceArgs) -> str:
    """Returns the result's name; `InputError` if it is not given or not allowed."""
    if args.name == 'demo' and args.dataset != 'demo':
        raise InputError('--name=demo is the embedded dataset, which configs take by default: choose another')
    if args.dataset == 'demo' and args.name not in (None, 'demo'):
        raise InputError('--dataset=demo keeps its name; leave --name out')
    if args.name is not None:
        return args.name
    if args.dataset is None:
        raise InputError('--images needs --name=NAME, what the dataset is to be called')
    return re.sub(r'[/:.]', '_', args.dataset)


def make_spec(args: SourceArgs, *, make: bool = True) -> DatasetSpec:
    """Finds the images; `InputError` where their source cannot be used, as said there.

    `make` lets TFDS make a dataset that it does not have, which may download much. ImageNet is read from its archives
    unless TFDS has it already and no `manual_dir` was named.
    """
    dataset = args.dataset
    form: dict[str, Any] = {'name': get_dataset_name(args), 'quality': args.quality, 'record_size': args.size}
    if args.keep_originals and dataset in (None, 'demo'):
        raise InputError('--keep_originals is for TFDS datasets: a folder and demo must be prepared')
    if args.images is not None:
        return folder.make_folder_spec(args.images, **form)
    assert dataset is not None
    if dataset == 'demo':
        if args.size != RECORD:
            raise InputError(f'--dataset=demo is drawn at {RECORD}x{RECORD}: leave --size out')
        from alexnet_jax.data.preparing import demo  # here, because only this renders

        return demo.make_demo_spec()
    builder = tfds.find_builder(dataset, tfds_dir=args.tfds_dir)
    from_archives = args.manual_dir is not None or not builder.is_prepared()
    if dataset == 'imagenet2012' and from_archives and not args.keep_originals:
        archives = args.manual_dir or pathlib.Path(args.tfds_dir) / 'downloads' / 'manual'  # as TFDS has it
        return imagenet.make_imagenet_spec(archives, **form)
    if not make and not builder.is_prepared():
        size = f', downloading {builder.info.download_size}' if builder.info.download_size else ''
        raise InputError(f'{dataset} is not in {args.tfds_dir} yet: without --check TFDS makes it first{size}')
    tfds.make_tfds_dataset(builder, dataset=dataset, manual_dir=args.manual_dir)
    return tfds.make_tfds_spec(builder, dataset=dataset, keep_originals=args.keep_originals, **form)
