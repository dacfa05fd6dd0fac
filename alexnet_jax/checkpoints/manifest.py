"""Where a run's checkpoints are, and the manifest of each: what it holds, hash by hash, with a hash of itself."""

import dataclasses
import json
import pathlib
import re

from alexnet_jax.errors import InputError
from alexnet_jax.files import hash_json, write_file

FOLDER, SET_ASIDE = 'checkpoints', 'damaged_checkpoints'  # in the run folder
MANIFEST = pathlib.Path('hashes', 'metadata')  # in a checkpoint; Orbax's name for a JSON item
_SHA256 = re.compile('[0-9a-f]{64}')
NON_FINITE = 'no numbers'  # in place of a hash: values that are NaN or infinite


class DamagedError(InputError):
    """A checkpoint is not what was saved."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a checkpoint says of itself.

    Attributes:
      step: updates made.
      saved_at: seconds since 1970.
      shapes: {leaf: its shape}.
      pieces: {name: sha256, or NON_FINITE} of `hashes.iter_pieces`.
      top1_error: of the validation images at this step, 0..1; None: not tested.
      tested: False where the run was told to stop before the test of this step; that may have come later.
      data_order: how often the run was rolled back; each time, its images come in another order.
      permanent: it stays, whatever comes after it.
      rate_factors: {layer: multiple of the rate} of what made it, where that is not 1; 0 of a frozen layer.
    """

    step: int
    saved_at: float
    shapes: dict[str, list[int]]
    pieces: dict[str, str]
    top1_error: float | None = None
    tested: bool = True
    data_order: int = 0
    permanent: bool = False
    rate_factors: dict[str, float] = dataclasses.field(default_factory=dict)

    def write(self, folder: pathlib.Path) -> None:
        """Writes JSON with a hash of all else in it to CHECKPOINT/hashes, `folder`; `InputError` where that fails."""
        content = dataclasses.asdict(self)
        write_file(folder / MANIFEST.name, json.dumps(content | {'whole': hash_json(content)}, indent=1))


def list_steps(workdir: pathlib.Path) -> list[int]:
    """Lists the steps of all checkpoints of a run folder, whatever is in them, oldest first."""
    return sorted(int(path.name) for path in (workdir / FOLDER).glob('*') if path.name.isdigit())


def read_manifest(checkpoint: pathlib.Path) -> Manifest:
    """Reads the manifest of a checkpoint.

    Raises:
      DamagedError: it is gone, not as it was written, of a format from before the first release, or of a state that is
        not finite: the loss of its last step still was, and only the next one shows it.
    """
    try:
        content = json.loads((checkpoint / MANIFEST).read_text())
        if content and all(isinstance(found, str) and _SHA256.fullmatch(found) for found in content.values()):
            raise DamagedError('it is of a format from before the first release, which is no longer read')
        if content.pop('whole', None) != hash_json(content):
            raise DamagedError('its manifest is not as it was written')
        manifest = Manifest(**content)
        non_finite = sorted(name for name, found in manifest.pieces.items() if found == NON_FINITE)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        if isinstance(error, DamagedError):
            raise
        raise DamagedError(f'its manifest cannot be read: {str(error)[:200] or repr(error)}') from error
    if str(manifest.step) != checkpoint.name:
        raise DamagedError(f'its manifest is that of step {manifest.step}')
    if non_finite:
        raise DamagedError(f'{non_finite[0]} was NaN or infinite when it was saved')
    return manifest
