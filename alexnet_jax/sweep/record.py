"""ROOT/sweep.json: the points of a sweep, also those of earlier starts; and the locks of a sweep's folder."""

import json
import math
import pathlib
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import IO, Any

from alexnet_jax.errors import InputError
from alexnet_jax.files import hold_lock, is_litter, try_lock, write_json
from alexnet_jax.sweep.plan import Plan, Point

FILE = 'sweep.json'
_LOCATION_KEYS = ('data_dir',)  # may differ between starts: they do not change what is trained


class SweepRecord:
    """The points that a folder's sweep has been asked for.

    Attributes:
      root: the sweep's folder.
      search: {key: text} of a search's space; None where points are listed.
      points: {name: overrides} requested by the last start.
      previous_points: {name: overrides} that only earlier starts requested.
      new: number of points that no start requested before.
    """

    def __init__(self, plan: Plan, points: Iterable[Point], *, search: dict[str, str] | None = None) -> None:
        """Makes the plan's folder that of this sweep, or checks that it is.

        `points` are those requested now; none for a search, which adds its points. `search` must be the same at every
        start, like the config.

        Raises:
          InputError: the folder cannot be written, or holds something else.
        """
        self.root, self.search = plan.root, search
        fixed = {'config': plan.file, 'settings': plan.base.to_dict(), 'search': search}
        self._fixed = json.loads(json.dumps(fixed))
        requested = {point.name: point.overrides for point in points}
        with self._lock():
            known = self._load_points()
            self.points = requested or known
            self.previous_points = {name: known[name] for name in known if name not in self.points}
            self.new = len(requested.keys() - known.keys())
            self._write()

    def add(self, point: Point) -> None:
        """Adds a point of a search."""
        with self._lock():
            self.points[point.name] = point.overrides
            self._write()

    def _lock(self) -> AbstractContextManager[None]:
        """Lets one task of a job array at a time read and write sweep.json."""
        return hold_lock(self.root, '.lock', option='--workdir', busy=f'writes {FILE}', patience=math.inf)

    def _load_points(self) -> dict[str, dict[str, Any]]:
        """Loads the points of earlier starts, which had the same config and search, or there were no points."""
        path = self.root / FILE
        if not path.exists():
            if any(not file.name.startswith('.') and not is_litter(file.name) for file in self.root.iterdir()):
                raise InputError(f'{self.root} is not empty and holds no sweep: choose another --workdir')
            return {}
        try:
            saved = json.loads(path.read_text())
            known = {name: dict(point) for name, point in (saved['points'] | saved['earlier']).items()}
            settings, search = dict(saved['settings']), saved.get('search')
        except OSError as error:
            raise InputError(f'cannot read {path}: {error.strerror}; mend that, or choose another --workdir') from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f'{path} is damaged: choose another --workdir') from error
        current = self._fixed['settings']
        # A key that another version of the code does not know is no difference.
        keys = [key for key in current if key in settings and key not in _LOCATION_KEYS]
        changed = [f'config.{k} {settings[k]!r}, now {current[k]!r}' for k in keys if settings[k] != current[k]]
        if search != self.search:
            changed.append(f'search {search!r}, now {self.search!r}')
        if changed and known:
            raise InputError(f'{self.root} holds a sweep with {"; ".join(changed)}: choose another --workdir')
        return known

    def _write(self) -> None:
        write_json(self.root / FILE, self._fixed | {'points': self.points, 'earlier': self.previous_points})


def lock_point(root: pathlib.Path, name: str) -> IO[str] | None:
    """Opens ROOT/NAME.log to append to and locks it; None where another process holds the lock.

    A run's process inherits the file as its output, so the lock lasts as long as that process, even where the process
    that started it is killed.
    """
    return try_lock(root / f'{name}.log')
