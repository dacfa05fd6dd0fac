"""From what the user gave to checked points: each with a name, its config, and the options that make it.

Values of points are read as those of --config.KEY=VALUE are: by ml_collections, from text.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import functools
import hashlib
import importlib.util
import pathlib
import re
import sys
from collections.abc import Iterable
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from alexnet_jax import InputError
from alexnet_jax.training.config import total_steps, validate

LONGEST = 100  # characters of a name; file systems take 255 bytes with what is added to it
_OPTION = re.compile(r'--?sweep\.([a-zA-Z_]\w*)(?:=(.*))?', re.DOTALL | re.ASCII)


@dataclasses.dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
      name: of its folder under the sweep's.
      overrides: what sets it apart from the sweep's config, as the config has it.
      config: its whole config, validated.
    """

    name: str
    overrides: dict[str, Any]
    config: ml_collections.ConfigDict = dataclasses.field(compare=False, repr=False)

    @property
    def options(self) -> tuple[str, ...]:
        """The overrides as options of alexnet_jax.main."""
        return options_of(self.overrides)

    @property
    def setting(self) -> dict[str, Any]:
        """The overrides without the seed: what runs have in common over which a mean is taken."""
        return {key: value for key, value in self.overrides.items() if key != 'seed'}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What all runs have in common.

    Attributes:
      file: FILE or FILE:DATASET of --config.
      common: the options --config.KEY=VALUE of all runs.
      base: the config with those, not validated.
    """

    file: str
    common: tuple[str, ...]
    base: ml_collections.ConfigDict

    def command(self, point: Point, root: pathlib.Path, *, module: str = 'alexnet_jax.main') -> list[str]:
        """What runs a point, in its folder under `root`."""
        options = (f'--config={self.file}', *self.common, *point.options, f'--workdir={root / point.name}')
        return [sys.executable, '-m', module, *options]


def split_options(argv: list[str]) -> tuple[list[str], dict[str, str]]:
    """`argv` without its --sweep.KEY=VALUES options, and those.

    Raises:
      InputError: one has no values, or is there twice.
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


def values_of(base: ml_collections.ConfigDict, key: str, text: str) -> list[Any]:
    """The values in `text`, as `key` of the config takes them: separated by commas, those of tuples by semicolons.

    Raises:
      InputError: the config has no such key, or it takes no such value.
    """
    require_key(base, key)
    parts = text.split(';' if issubclass(base.get_type(key), tuple | list) else ',')
    try:
        return [overridden(base, {key: part})[key] for part in parts]
    except InputError as error:
        raise InputError(f'--sweep.{key}={text}: {error}') from error


def require_key(base: ml_collections.ConfigDict, key: str) -> None:
    """Raises InputError with the nearest known key where the config has no `key`."""
    if key not in base:
        near = difflib.get_close_matches(str(key), list(base), n=1, cutoff=0.5)
        hint = f'did you mean {near[0]!r}?' if near else 'alexnet_jax/training/config.py has them all'
        raise InputError(f'unknown config key {key!r}: {hint}')


def overridden(base: ml_collections.ConfigDict, overrides: dict[str, Any]) -> ml_collections.ConfigDict:
    """A copy of `base` with the overrides as alexnet_jax.main would read them; InputError where it would not."""
    for key, value in overrides.items():
        require_key(base, key)
        if value is None:
            raise InputError(f'config.{key} cannot be set to None: leave it out')
    argv = ['sweep', *options_of(overrides)]
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict('config', copy.deepcopy(base), flag_values=values, sys_argv=argv)
    try:
        values(argv)
    except flags.Error as error:
        raise InputError(' '.join(str(error).replace('flag --', '').split())) from error
    return values.config


def options_of(overrides: dict[str, Any]) -> tuple[str, ...]:
    """Overrides as options of a command."""
    return tuple(f'--config.{key}={_text(value)}' for key, value in overrides.items())


def check(base: ml_collections.ConfigDict, sweep: Iterable[dict[str, Any]]) -> list[Point]:
    """The points of a sweep, all of them valid and no two the same.

    Raises:
      InputError: one line that names the point and what is wrong with it.
    """
    points: dict[str, Point] = {}
    for overrides in sweep:
        if not isinstance(overrides, dict):
            raise InputError(f'sweep() must give dicts of config overrides, not {overrides!r}')
        point = checked(base, overrides)
        if point.name in points:
            raise InputError(f'point {point.name} is there twice: leave one out')
        points[point.name] = point
    if not points:
        raise InputError('nothing to sweep: give --sweep.KEY=VALUES, or a config file with a sweep()')
    return list(points.values())


def checked(base: ml_collections.ConfigDict, overrides: dict[str, Any], *, name: str | None = None) -> Point:
    """One point, under `name` or one made of its overrides; InputError as `check`."""
    try:
        config = overridden(base, overrides)
        taken = {key: config[key] for key in overrides}
        validate(config)
    except InputError as error:
        raise InputError(f'point {_joined(overrides)}: {error}') from error
    return Point(name or name_of(taken), taken, config)


def name_of(overrides: dict[str, Any]) -> str:
    """A folder name that says what the overrides are: keys in alphabetical order, the seed last; 'base' of none.

    Where characters had to be replaced, or it would be too long, it ends in a hash of all that it stands for.
    """
    whole = _joined(overrides)
    name = re.sub(r'[^\w.+=,-]', '-', whole, flags=re.ASCII)
    if name == whole and len(name) <= LONGEST:
        return name
    return f'{name[: LONGEST - 9]}-{hashlib.sha256(repr(sorted(overrides.items())).encode()).hexdigest()[:8]}'


def own_sweep(file: str) -> list[dict[str, Any]] | None:
    """What the config file's sweep() gives; None where it has none."""
    path = file.split(':')[0]
    spec = importlib.util.spec_from_file_location('alexnet_jax_sweep', path)
    if spec is None or spec.loader is None:
        raise InputError(f'{path} is no Python file')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module.sweep()) if hasattr(module, 'sweep') else None


@functools.cache
def _examples(dataset: str, data_dir: str) -> int:
    from alexnet_jax.training.workdir import open_or_render

    return open_or_render(dataset, data_dir).examples('train')


def steps_of(point: Point) -> int:
    """Updates of a point's run; renders the embedded dataset where it is wanted and missing.

    Raises:
      InputError: the dataset is not prepared.
    """
    return total_steps(point.config, _examples(point.config.dataset, point.config.data_dir))


def shown(value: Any) -> str:
    """A value as names and tables have it: of a tuple 1x2."""
    if isinstance(value, tuple | list):
        return 'x'.join(map(shown, value)) or 'none'
    return str(value)


def _joined(overrides: dict[str, Any]) -> str:
    keys = sorted(overrides, key=lambda key: (key == 'seed', str(key)))
    return ','.join(f'{key}={shown(overrides[key])}' for key in keys) or 'base'


def _text(value: Any) -> str:
    if not isinstance(value, tuple | list):
        return str(value)
    return ','.join(map(repr, value)) if len(value) > 1 else repr(tuple(value))
