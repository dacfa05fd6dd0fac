"""Finds the images that a user asks to have prepared, and makes the spec of their dataset."""

import dataclasses
import os
import pathlib
import re
from typing import Any

from alexnet_jax.data.dataset import Dataset, open_dataset
from alexnet_jax.data.photo import QUALITY
from alexnet_jax.data.preparing import folder, imagenet, tfds
from alexnet_jax.data.preparing.dataset_spec import DatasetSpec
from alexnet_jax.data.preparing.rewriting import make_rewriting_spec
from alexnet_jax.data.preprocessing import PAPER
from alexnet_jax.data.raw import JPEG, RAW
from alexnet_jax.data.statistics import RECORD
from alexnet_jax.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceArgs:
    """The options of `alexnet prepare` that say what to prepare; its --help has their meaning."""

    images: str | None = None
    dataset: str | None = None
    from_dataset: str | None = None
    encoding: str = JPEG
    name: str | None = None
    tfds_dir: str | os.PathLike[str] = '~/tensorflow_datasets'
    manual_dir: str | os.PathLike[str] | None = None
    quality: int | None = None
    size: int | None = None
    preprocessing: str | None = None
    keep_originals: bool = False
    validation_share: float | None = None
    validation_seed: int = 0
    validation_only: bool = False

    def __post_init__(self) -> None:
        if [self.images, self.dataset, self.from_dataset].count(None) != 2:
            raise InputError(
                'give --images=DIR --name=NAME, or --dataset=NAME (demo is the embedded one), or --from=NAME'
            )
        if self.encoding == RAW and self.quality is not None:
            raise InputError('--quality is of JPEG records: leave it out with --encoding=raw')
        if self.encoding == RAW and self.keep_originals:
            raise InputError('--keep_originals writes no records: leave it or --encoding=raw out')
        if self.from_dataset is not None and self.encoding != RAW:
            raise InputError(f'--from={self.from_dataset} rewrites JPEG records as raw ones: add --encoding=raw')
        of_images = [key for key in ('manual_dir', 'validation_share', 'validation_only') if getattr(self, key)]
        if self.from_dataset is not None and of_images:
            raise InputError(f'--from={self.from_dataset} keeps splits and records: leave --{of_images[0]} out')


def get_dataset_name(args: SourceArgs) -> str:
    """Returns the result's name; `InputError` if it is not given or not allowed."""
    if args.name == 'demo' and args.dataset != 'demo':
        raise InputError('--name=demo is the embedded dataset, which configs take by default: choose another')
    if args.dataset == 'demo' and args.name not in (None, 'demo'):
        raise InputError('--dataset=demo keeps its name; leave --name out')
    if args.from_dataset is not None and args.name == args.from_dataset:
        raise InputError(f'--name={args.name} is the dataset that is read: choose another')
    if args.name is not None:
        return args.name
    if args.from_dataset is not None:
        return f'{args.from_dataset}_raw'
    if args.dataset is None:
        raise InputError('--images needs --name=NAME, what the dataset is to be called')
    return re.sub(r'[/:.]', '_', args.dataset)


def make_spec(args: SourceArgs, *, data_dir: str | os.PathLike[str] | None = None, make: bool = True) -> DatasetSpec:
    """Finds the images; `InputError` where their source cannot be used, as said there.

    `data_dir` holds the prepared dataset that is to be rewritten. `make` lets TFDS make a dataset that it does not
    have, which may download much. ImageNet is read from its archives unless TFDS has it already and no `manual_dir`
    was named.
    """
    dataset, name = args.dataset, get_dataset_name(args)
    if args.from_dataset is not None:
        assert data_dir is not None
        return _make_rewriting_spec(args, open_dataset(args.from_dataset, data_dir=data_dir), name=name)
    quality = None if args.encoding == RAW else args.quality or QUALITY
    form: dict[str, Any] = {'name': name, 'quality': quality, 'record_size': args.size or RECORD}
    form['preprocessing'] = args.preprocessing or PAPER
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
        if args.size not in (None, RECORD):
            raise InputError(f'--dataset=demo is drawn at {RECORD}x{RECORD}: leave --size out')
        if args.encoding == RAW:
            raise InputError(
                '--dataset=demo has JPEG records: prepare it, and then `alexnet prepare --from=demo --encoding=raw`'
            )
        if args.preprocessing not in (None, PAPER):
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


def _make_rewriting_spec(args: SourceArgs, dataset: Dataset, *, name: str) -> DatasetSpec:
    """Makes the spec of a prepared dataset's other encoding; `InputError` where `args` ask for other pixels."""
    for option, value, stored in (
        ('size', args.size, dataset.record_size),
        ('preprocessing', args.preprocessing, dataset.preprocessing),
    ):
        if value not in (None, stored):
            raise InputError(
                f'--{option}={value}: the records of {dataset.name} have {option} {stored}, and --from keeps their '
                f'pixels: leave --{option} out, or prepare the images again'
            )
    return make_rewriting_spec(dataset, name=name)


def _expand_home(folder: str | os.PathLike[str], *, option: str) -> str:
    """Puts the home directory in the place of ~; `InputError` where there is none."""
    expanded = os.path.expanduser(os.fspath(folder))
    if expanded.startswith('~'):
        raise InputError(f'--{option}={expanded}: there is no such home directory: give --{option} without ~')
    return expanded
