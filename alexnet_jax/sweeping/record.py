"""ROOT/sweep.json: the points of a sweep, those of earlier starts among them; locks and files written whole."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import IO, Any

from alexnet_jax import InputError
from alexnet_jax.sweeping.plan import Plan, Point

FILE = 'sweep.json'
_ANYWHERE = ('data_dir',)  # settings that say where, not what


class Record:
    """The sweep of one folder.

    Attributes:
      root: the folder.
      points: {name: overrides} asked for by the last start.
      earlier: the same of earlier starts, no longer asked for.
      new: how many points no start asked for before.
      search: {key: text} of what is searched; None where points are listed.
    """

    def __init__(
        self, root: pathlib.Path, plan: Plan, points: Iterable[Point], *, search: dict[str, str] | None = None
    ) -> None:
        """Makes `root` this sweep's, or checks that it is.

        Args:
          root: the sweep's folder; made where it is missing.
          plan: what all runs have in common.
          points: what is asked for now; of a search nothing, its points are added.
          search: of a search what it is over, which must be the same at every start, as the config must.

        Raises:
          InputError: the folder cannot be written, or holds something else.
        """
        self.root, self.search = root, search
        fixed = {'config': plan.file, 'settings': plan.base.to_dict(), 'search': search}
        self._fixed = json.loads(json.dumps(fixed))
        now = {point.name: point.overrides for point in points}
        with _only_one(root):
            before = self._read()
            earlier = before.get('points', {}) | before.get('earlier', {})
            self.points = now if now else earlier
            self.earlier = {name: earlier[name] for name in earlier if name not in self.points}
            self.new = len(now.keys() - earlier.keys())
            self._write()

    def add(self, point: Point) -> None:
        """Takes a point of a search in."""
        with _only_one(self.root):
            self.points[point.name] = point.overrides
            self._write()

    def _read(self) -> dict[str, Any]:
        path = self.root / FILE
        if not path.exists():
            if any(not file.name.startswith('.') for file in self.root.iterdir()):
                raise InputError(f'{self.root} is not empty and holds no sweep: choose another --workdir')
            return {}
        try:
            before = json.loads(path.read_text())
            names = [*before['points'], *before['earlier']]
            settings = before['settings']
            search = before.get('search')
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f'{path} is damaged: choose another --workdir') from error
        now = self._fixed['settings']
        # A key that one of the two versions of the code does not know is no difference.
        changed = [f'config.{key} {settings[key]!r}, now {now[key]!r}' for key in now
                   if key not in _ANYWHERE and key in settings and settings[key] != now[key]]  # fmt: skip
        if search != self.search:
            changed.append(f'search {search!r}, now {self.search!r}')
        if changed and names:
            raise InputError(f'{self.root} holds a sweep with {"; ".join(changed)}: choose another --workdir')
        return before

    def _write(self) -> None:
        value = self._fixed | {'points': self.points, 'earlier': self.earlier}
        write_whole(self.root / FILE, json.dumps(value, indent=2) + '\n')


@contextlib.contextmanager
def _only_one(root: pathlib.Path) -> Iterator[None]:
    """Tasks of an array start together, and all of them read and write sweep.json."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with (root / '.lock').open('a') as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise InputError(f'cannot write to {root}: {error.strerror}; choose another --workdir') from error


def lock(root: pathlib.Path, name: str) -> IO[str] | None:
    """ROOT/NAME.log, open for more lines and held by whoever has it open through this; None: it is held already.

    A run's process inherits it as its output, so the run is held for as long as that lives, whatever becomes of the
    process that started it.
    """
    file = (root / f'{name}.log').open('a')
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def write_whole(path: pathlib.Path, content: str | bytes) -> None:
    """Writes a file whole or not at all, whoever else writes it too."""
    half = path.with_name(f'.{path.name}.{os.getpid()}.half')
    half.write_bytes(content.encode() if isinstance(content, str) else content)
    half.replace(path)
