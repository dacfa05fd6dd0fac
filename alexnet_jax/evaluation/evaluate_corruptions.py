"""Tests a network on corrupted images: which, the errors, and the table of them."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from alexnet_jax.console import align_columns, suggest
from alexnet_jax.data.corrupted import CorruptedSource, PixelSource
from alexnet_jax.data.corrupted_files import CorruptedFiles, open_corrupted
from alexnet_jax.data.corruption_constants import CORRUPTIONS, SEVERITIES, SIZES, load_frost
from alexnet_jax.data.dataset import Dataset, Source
from alexnet_jax.distributed.hosts import check_same_on_hosts
from alexnet_jax.distributed.phases import PROGRESS
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation import corruption_measures
from alexnet_jax.evaluation.evaluation_settings import OF_DATASET, EvaluationSettings
from alexnet_jax.evaluation.evaluator import Result
from alexnet_jax.evaluation.measures import measure_errors
from alexnet_jax.evaluation.open_networks import get_batch_size, make_evaluator, match_classes
from alexnet_jax.files import hash_json
from alexnet_jax.logs.progress import show_progress
from alexnet_jax.model.network import Network
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.weights.class_names import IMAGENET, find_classes, read_class_names

_OTHER_CLASSES = "no mCE: AlexNet's published errors are of ImageNet's 1000 classes, and these are others"
_NOT_ALL = 'no mCE: it is of all fifteen corruptions at severities 1 to 5'


@dataclasses.dataclass(frozen=True)
class CorruptionPlan:
    """Which corruptions are tested, in the published order, at which severities, and of which folder; None: of none."""

    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    files: CorruptedFiles | None


def plan_corruptions(settings: EvaluationSettings) -> CorruptionPlan | None:
    """Reads what is to be tested; None: images as they are.

    Raises:
      InputError: there is no such corruption or severity, frost's pictures are not installed, the folder holds no
        corrupted images, or an option does not go with them.
    """
    if not settings.corruptions and settings.corrupted is None:
        if settings.severities or settings.seed:
            raise InputError('--severities and --seed are for --corruptions=all, or names of some')
        return None
    if settings.corrupted is not None and settings.seed:
        raise InputError('--seed is of what corruptions draw, and the images of --corrupted are corrupted already')
    if settings.corrupted is not None and settings.dataset is None and settings.preprocessing is not None:
        raise InputError('--preprocessing is of the images of a dataset, and those of --corrupted are squares already')
    if tuple(settings.protocols) not in ((), ('centre',)):
        raise InputError(
            'corrupted images are tested in the centre view, as the published errors: leave out --protocols'
        )
    names = list(settings.corruptions) or ['all']
    if unknown := [name for name in names if name not in CORRUPTIONS and name != 'all']:
        known = f'known are all, {", ".join(CORRUPTIONS)}'
        hint = suggest(unknown[0], CORRUPTIONS)
        raise InputError(f'--corruptions={unknown[0]}: {hint if hint.startswith("did") else known}')
    files = None if settings.corrupted is None else open_corrupted(settings.corrupted)
    available = CORRUPTIONS if files is None else files.corruptions
    if absent := [name for name in names if name not in available and name != 'all']:
        raise InputError(f'--corrupted={settings.corrupted} has no {absent[0]}: it has {", ".join(available)}')
    chosen = tuple(name for name in available if name in names or 'all' in names)
    if 'frost' in chosen and files is None:
        load_frost()
    return CorruptionPlan(chosen, parse_severities(settings.severities), files)


def parse_severities(given: Sequence[str]) -> tuple[int, ...]:
    """Parses numbers and ranges, '1..3', to severities, each once, in order; () are all. `InputError` for others."""
    found: set[int] = set()
    for part in given or ['1..5']:
        match = re.fullmatch(r'(\d)(?:\.\.(\d))?', part.strip(), re.ASCII)
        numbers = range(int(match[1]), int(match[2] or match[1]) + 1) if match else range(0)
        if not numbers or not set(numbers) <= set(SEVERITIES):
            raise InputError(f'--severities={part}: they are 1 to 5: give 1..5, or some, as 1,3,5')
        found |= set(numbers)
    return tuple(sorted(found))


def evaluate_corruptions(
    network: Network,
    dataset: Dataset | None,
    plan: CorruptionPlan,
    settings: EvaluationSettings,
    *,
    preprocessing: str | None,
    quiet: bool,
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Tests a network; all processes must call it.

    Args:
      dataset: what is corrupted on the fly, or where `plan` is of a folder, what the clean error is of; None: nothing.
      preprocessing: how its images become squares.

    Returns:
      What is in result.json of it, and the rows of corruptions.csv.

    Raises:
      InputError: records have a size that there are no constants for, are damaged, or are of other classes.
    """
    size, tested = network.variant.record_size, plan.files or dataset
    if plan.files is None and size not in SIZES:
        sizes = ' and '.join(f'{known}x{known}' for known in SIZES)
        raise InputError(
            f'corruptions are defined for records of {sizes}, and those of {network.source} are {size}x{size}'
        )
    clean_records = None if dataset is None else dataset.records(settings.split, preprocessing=preprocessing)

    def open_records(corruption: str, severity: int) -> PixelSource:
        if plan.files is not None:
            return plan.files.open(corruption, severity, record_size=size)
        return CorruptedSource(clean_records, corruption, severity, seed=settings.seed, record_size=size)

    among = match_classes(network, tested) if tested is not None and settings.among == OF_DATASET else None
    first = open_records(plan.corruptions[0], plan.severities[0])
    test = _make_test(network, settings, first, among=among, quiet=quiet)
    clean = None if clean_records is None else test('clean', clean_records, dataset)
    published = (
        None if tested is None or not _is_imagenet(tested.classes) else corruption_measures.load_published_errors()
    )
    found: dict[str, Any] = {}
    measured: dict[str, corruption_measures.CorruptionErrors] = {}
    rows: list[dict[str, Any]] = []
    for corruption in plan.corruptions:
        results: dict[int, Result] = {}
        for severity in plan.severities:
            records = open_records(corruption, severity)
            if plan.files is not None:
                check_same_on_hosts({'images': hash_json(records.labels.tolist())}, remedy='give all the same folder')
            results[severity] = test(f'{corruption} {severity}', records, tested)
            theirs = None if published is None else published.corrupted[corruption][severity - 1]
            row = {'corruption': corruption, 'severity': severity} | dataclasses.asdict(results[severity])
            rows.append(row | {'published_top1_error': theirs})
        errors = {severity: result.top1_error for severity, result in results.items()}
        clean_error = None if clean is None else clean.top1_error
        measured[corruption] = corruption_measures.measure_corruption(
            corruption, errors, clean=clean_error, published=published
        )
        severities = {str(severity): dataclasses.asdict(result) for severity, result in results.items()}
        found[corruption] = {'severities': severities} | dataclasses.asdict(measured[corruption])
        if published is not None:
            found[corruption]['published'] = {str(s): published.corrupted[corruption][s - 1] for s in SEVERITIES}
    return {
        'corrupted': None if plan.files is None else str(plan.files.directory),
        'constants': SIZES[size] if plan.files is None else None,
        'seed': settings.seed if plan.files is None else None,
        'clean': None if clean is None else dataclasses.asdict(clean),
        'corruptions': found,
        'mean': dataclasses.asdict(corruption_measures.average_corruptions(measured)),
        'imagenet': published is not None,
    }, {'corruptions.csv': rows}


def _make_test(
    network: Network, settings: EvaluationSettings, first: Source, *, among: list[int] | None, quiet: bool
) -> Callable[..., Result]:
    """Makes test(title, records, of), with one compiled program for `first` and all others; `of` has their classes."""
    batch_size = settings.batch_size or get_batch_size([network])
    evaluator, placed = make_evaluator(network, make_mesh(*settings.mesh), first, batch_size=batch_size, among=among)

    def test(title: str, records: Source, of: Dataset | CorruptedFiles) -> Result:
        mapping = match_classes(network, of)
        if among is not None and mapping != among:
            raise InputError(f'--among=dataset: {of.name} has other classes than the corrupted images')
        PROGRESS.enter(f'{title} test')
        with show_progress() as report:
            progress = None if quiet else lambda done: report(title, done, len(records))
            found = evaluator.with_records(records).predict(*placed, protocol='centre', progress=progress)
        if bad := int(np.isnan(found.probabilities).any(axis=1).sum()):
            raise InputError(f'{network.source} gives no numbers for {bad} images: its weights are damaged')
        if mapping is not None and among is None:
            found = dataclasses.replace(found, labels=np.asarray(mapping, np.int32)[found.labels])
        return measure_errors(found)

    return test


def _is_imagenet(classes: Sequence[str]) -> bool:
    names = read_class_names(IMAGENET)
    return len(classes) == len(names) and find_classes(names, classes) is not None


def format_corruptions(result: dict[str, Any]) -> str:
    """Makes the table of top-1 errors: a row for each corruption, a column for each severity."""
    rows, theirs = [], result['imagenet']
    severities = list(next(iter(result['corruptions'].values()))['severities'])
    columns = ['mean', 'above clean', *(('AlexNet', 'CE', 'relative CE') if theirs else ())]
    rows.append(['top-1 error at severity:', *severities, *columns])
    for name, one in result['corruptions'].items():
        errors = [f'{one["severities"][severity]["top1_error"]:.2%}' for severity in severities]
        published = [f'{sum(one["published"].values()) / len(one["published"]):.2%}'] if theirs else []
        rows.append([f'  {name}', *errors, *_format_errors(one, published, theirs=theirs)])
    rows.append(['  mean', *[''] * len(severities), *_format_errors(result['mean'], [''] * theirs, theirs=theirs)])
    lines = [align_columns(rows, right=tuple(range(1, len(rows[0]))))]
    if result['clean'] is not None:
        lines.append(f'clean: {result["clean"]["top1_error"]:.2%} of {result["clean"]["examples"]:,} images')
    if result['mean']['ce'] is None:
        lines.append(_NOT_ALL if theirs else _OTHER_CLASSES)
    return '\n'.join(lines)


def _format_errors(one: dict[str, Any], published: Sequence[str], *, theirs: bool) -> list[str]:
    keys = ('relative_error', 'ce', 'relative_ce') if theirs else ('relative_error',)
    above, *ratios = ('' if one[key] is None else f'{one[key]:.2%}' for key in keys)
    return [f'{one["mean_error"]:.2%}', above, *published, *ratios]
