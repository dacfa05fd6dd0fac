"""Finds the images that a user asks to have prepared, and makes the spec of their dataset."""

import dataclasses
import os
import pathlib
import re
from typing import Any

from alexnet_jax.data.photo import QUALITY
from alexnet_jax.data.preparing import folder, imagenet, tfds
from alexnet_jax.data.preparing.dataset_spec import DatasetSpec
from alexnet_jax.data.preprocessing import PAPER
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
    preprocessing: str = PAPER
    keep_originals: bool = False
    validation_share: float | None = None
    validation_seed: int = 0
    validation_only: bool = False

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
    form['preprocessing'] = args.preprocessing
    if args.keep_originals and dataset in (None, 'demo'):
        raise InputError('--keep_originals is for TFDS datasets: a folder and demo must be prepared')
    if args.images is None and args.validation_share is not None:
        raise InputError(f'--validation_share is for --images: {dataset} has splits of its own')
    if args.images is None and args.validation_only and dataset != 'imagenet2012':
        raise InputError('--validation_only is for --images and --dataset=imagenet2012: leave it out')
    if args.images is not None:
        choices: Any = {key: getattr(args, key) for key in ('validation_share', 'validation_seed', 'validation_only')}
        return folder.make_folder_spec(args.images, **choices, **form)
    assert dataset is not None
    if dataset == 'demo':
        if args.size != RECORD:
            raise InputError(f'--dataset=demo is drawn at {RECORD}x{RECORD}: leave --size out')
        if args.preprocessing != PAPER:
            raise InputError('--dataset=demo is drawn as squares: leave --preprocessing out')
        from alexnet_jax.data.preparing import demo  # here, because only this renders

        return demo.make_demo_spec()
    tfds_dir = _expand_home(args.tfds_dir, option='tfds_dir')
    builder = tfds.find_builder(dataset, tfds_dir=tfds_dir)
    from_archives = args.manual_dir is not None or not builder.is_prepared()
    if dataset == 'imagenet2012' and from_archives and not args.keep_originals:
        archives = args.manual_dir or pathlib.Path(tfds_dir) / 'downloads' / 'manual'  # as TFDS has it
        archives = _expand_home(archives, option='manual_dir')
        return imagenet.make_imagenet_spec(archives, validation_only=args.validation_only, **form)
    if args.validation_only:
        raise InputError(f'{args.tfds_dir} has all of ImageNet: give --manual_dir=DIR, or leave --validation_only out')
    if not make and not builder.is_prepared():
        size = f', downloading {builder.info.download_size}' if builder.info.download_size else ''
        raise InputError(f'{dataset} is not in {args.tfds_dir} yet: without --check TFDS makes it first{size}')
    tfds.make_tfds_dataset(builder, dataset=dataset, manual_dir=args.manual_dir)
    return tfds.make_tfds_spec(builder, dataset=dataset, keep_originals=args.keep_originals, **form)


def _expand_home(folder: str | os.PathLike[str], *, option: str) -> str:
    """Puts the home directory in the place of ~; `InputError` where there is none."""
    expanded = os.path.expanduser(os.fspath(folder))
    if expanded.startswith('~'):
        raise InputError(f'--{option}={expanded}: there is no such home directory: give --{option} without ~')
    return expanded
