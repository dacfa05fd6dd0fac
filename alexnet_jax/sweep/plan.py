"""Points of a sweep, checked before any of them runs: each has a name, a config, and the options that make it.

Values of points are parsed as those of --config.KEY=VALUE are: from text, by ml_collections.
"""

import copy
import dataclasses
import functools
import hashlib
import pathlib
import re
import runpy
import sys
from collections.abc import Iterable
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from alexnet_jax.console import suggest
from alexnet_jax.errors import InputError
from alexnet_jax.training.config import Config
from alexnet_jax.training.validation import validate_config

MODULE = 'alexnet_jax.main'  # whose processes can make several runs in turn
MAX_NAME_LENGTH = 100  # characters; file systems take 255 bytes, and suffixes are added
_OPTION = re.compile(r'--?sweep\.([a-zA-Z_]\w*)(?:=(.*))?', re.DOTALL | re.ASCII)


@dataclasses.dataclass(frozen=True)
class Point:
    """One run of a sweep."""

    name: str  # of its folder under the sweep's
    overrides: dict[str, Any]  # what differs from the sweep's config, of the config's types
    config: Config = dataclasses.field(compare=False, repr=False)  # whole and validated


@dataclasses.dataclass(frozen=True)
class Plan:
    """What all runs of a sweep have in common."""

    root: pathlib.Path  # the sweep's folder
    file: str  # FILE or FILE:DATASET of --config
    common: tuple[str, ...]  # options --config.KEY=VALUE of all runs
    base: ml_collections.ConfigDict  # the config with those options, not validated
    module: str = MODULE  # runs a point

    def make_command(self, point: Point) -> list[str]:
        """Makes the command that runs `point`, from its start or its last checkpoint."""
        return [sys.executable, '-m', self.module, *self.make_arguments(point)]

    def make_arguments(self, point: Point) -> list[str]:
        """Makes the arguments of that command, behind the module."""
        options = (*self.common, *format_options(point.overrides), f'--workdir={self.root / point.name}')
        return [f'--config={self.file}', *options]


def split_options(argv: list[str]) -> tuple[list[str], dict[str, str]]:
    """Splits `argv` into the other arguments and {KEY: VALUES} of its --sweep.KEY=VALUES.

    Raises:
      InputError: an option has no values, or is given twice.
    """
    rest, found = [], {}
    for argument in argv:
        option = _OPTION.fullmatch(argument)
        if option is None:
            rest.append(argument)
        elif option[2] in (None, ''):
            raise InputError(f'{argument}: options of the sweep look like --sweep.learning_rate=0.01,0.1')
        elif option[1] in found:
            raise InputError(f'--sweep.{option[1]} is given twice: put all its values into one, with commas')
        else:
            found[option[1]] = option[2]
    return rest, found


def parse_values(base: ml_collections.ConfigDict, key: str, text: str) -> list[Any]:
    """Parses values of the config's `key`, separated by commas; values that are tuples by semicolons.

    Raises:
      InputError: the config has no such key, or does not take a value.
    """
    check_key(base, key)
    parts = text.split(';' if issubclass(base.get_type(key), tuple | list) else ',')
    try:
        return [apply_overrides(base, {key: part})[key] for part in parts]
    except InputError as error:
        raise InputError(f'--sweep.{key}={text}: {error}') from error


def check_key(base: ml_collections.ConfigDict, key: str) -> None:
    """Raises InputError with what is known where the config has no `key`."""
    if key not in base:
        raise InputError(f'unknown config key {key!r}: {suggest(str(key), base)}')


def apply_overrides(base: ml_collections.ConfigDict, overrides: dict[str, Any]) -> ml_collections.ConfigDict:
    """Returns a copy of `base` with `overrides`, parsed as alexnet_jax.main does; InputError where it would refuse."""
    for key, value in overrides.items():
        check_key(base, key)
        if value is None:
            raise InputError(f'config.{key} cannot be set to None: leave it out')
    argv, values = ['sweep', *format_options(overrides)], flags.FlagValues()
    config_flags.DEFINE_config_dict('config', copy.deepcopy(base), flag_values=values, sys_argv=argv)
    try:
        values(argv)
    except flags.Error as error:
        raise InputError(' '.join(str(error).replace('flag --', '').split())) from error
    return values.config


def format_options(overrides: dict[str, Any]) -> tuple[str, ...]:
    """Formats overrides as options --config.KEY=VALUE."""
    return tuple(f'--config.{key}={_format_argument(value)}' for key, value in overrides.items())


def check_points(base: ml_collections.ConfigDict, sweep: Iterable[dict[str, Any]]) -> list[Point]:
    """Makes the points of a sweep, all valid and all different.

    Raises:
      InputError: one line that names the point and its mistake.
    """
    points: dict[str, Point] = {}
    for overrides in sweep:
        if not isinstance(overrides, dict):
            raise InputError(f'sweep() must give dicts of config overrides, not {overrides!r}')
        point = make_point(base, overrides)
        if point.name in points:
            raise InputError(f'point {point.name} is there twice: leave one out')
        points[point.name] = point
    if not points:
        raise InputError('nothing to sweep: give --sweep.KEY=VALUES, or a config file with a sweep()')
    return list(points.values())


def make_point(base: ml_collections.ConfigDict, overrides: dict[str, Any], *, name: str | None = None) -> Point:
    """Makes one point, called `name` or after its overrides; InputError as `check_points`."""
    try:
        raw = apply_overrides(base, overrides)
        parsed = {key: raw[key] for key in overrides}
        config = validate_config(raw)
    except InputError as error:
        raise InputError(f'point {_format_overrides(overrides)}: {error}') from error
    return Point(name or make_point_name(parsed), parsed, config)


def make_point_name(overrides: dict[str, Any]) -> str:
    """Makes a folder name of overrides: keys in alphabetical order, the seed last; 'base' where there are none.

    A name with replaced characters, or one cut to MAX_NAME_LENGTH, ends in a hash of all overrides.
    """
    whole = _format_overrides(overrides)
    name = re.sub(r'[^\w.+=,-]', '-', whole, flags=re.ASCII)
    if name == whole and len(name) <= MAX_NAME_LENGTH:
        return name
    digest = hashlib.sha256(repr(sorted(overrides.items())).encode()).hexdigest()[:8]
    return f'{name[: MAX_NAME_LENGTH - 9]}-{digest}'


def load_sweep(file: str) -> list[dict[str, Any]] | None:
    """Runs the config file FILE[:DATASET] and returns the points of its sweep(); None where it defines none."""
    sweep = runpy.run_path(file.split(':')[0]).get('sweep')
    return None if sweep is None else list(sweep())


@functools.cache
def _count_examples(dataset: str, data_dir: str) -> int:
    from alexnet_jax.run.run_dir import open_or_render

    return open_or_render(dataset, data_dir).examples('train')


def count_steps(point: Point) -> int:
    """Counts the updates of a point's run; renders the embedded dataset where it is needed and missing.

    Raises:
      InputError: the dataset is not prepared.
    """
    return point.config.get_total_steps(_count_examples(point.config.dataset, point.config.data_dir))


def format_value(value: Any) -> str:
    """Formats a value for names and tables; a tuple as 1x2."""
    if isinstance(value, tuple | list):
        return 'x'.join(map(format_value, value)) or 'none'
    return str(value)


def _format_overrides(overrides: dict[str, Any]) -> str:
    keys = sorted(overrides, key=lambda key: (key == 'seed', str(key)))
    return ','.join(f'{key}={format_value(overrides[key])}' for key in keys) or 'base'


def _format_argument(value: Any) -> str:
    if not isinstance(value, tuple | list):
        return str(value)
    return ','.join(map(repr, value)) if len(value) > 1 else repr(tuple(value))
