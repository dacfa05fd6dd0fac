"""The seal of a checkpoint: what it holds, hash by hash, in a file that has a hash of itself."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re

from alexnet_jax import InputError
from alexnet_jax.training.digests import digest_of_json

SEAL = pathlib.Path('hashes', 'metadata')  # in a checkpoint; Orbax's name for a JSON item
NO_NUMBERS = 'no numbers'  # in place of a hash: values that are NaN or infinite
_SHA256 = re.compile('[0-9a-f]{64}')


class Damaged(InputError):
    """A checkpoint is not what was saved."""


@dataclasses.dataclass(frozen=True)
class Seal:
    """What a checkpoint says of itself.

    Attributes:
      step: updates made.
      saved_at: seconds since 1970.
      shapes: {leaf: its shape}.
      pieces: {name: sha256} of `digests.pieces`, or NO_NUMBERS; of checkpoints before this format {leaf: sha256 of the
        whole}.
      top1_error: of the validation images at this step, 0..1; None: not tested.
      tested: False where the run was told to stop before the test of this step; that may have come later.
      data_order: how often the run was rolled back; each time, its images come in another order.
      old: whether `pieces` are whole leaves.
    """

    step: int
    saved_at: float
    shapes: dict[str, list[int]]
    pieces: dict[str, str]
    top1_error: float | None = None
    tested: bool = True
    data_order: int = 0
    old: bool = False

    def text(self) -> str:
        """What is written: JSON, with a hash of all else in it."""
        content = {name: value for name, value in dataclasses.asdict(self).items() if name != 'old'}
        return json.dumps(content | {'whole': digest_of_json(content)}, indent=1)


def read_seal(checkpoint: pathlib.Path) -> Seal:
    """The seal of a checkpoint.

    Raises:
      Damaged: it is gone, not as it was written, or of a state that the update of its last step has spoilt: the loss of
        that step was still a number, and only the next one shows it.
    """
    try:
        content = json.loads((checkpoint / SEAL).read_text())
        if 'whole' not in content:  # the format before: leaves alone, Orbax keeping the rest
            if not content or not all(_SHA256.fullmatch(found) for found in content.values()):
                raise Damaged('its seal is not as it was written')
            errors = checkpoint / 'metrics' / 'metrics'
            error = json.loads(errors.read_text())['top1_error'] if errors.exists() else None
            return Seal(int(checkpoint.name), checkpoint.stat().st_mtime, {}, content, error, old=True)
        if content.pop('whole') != digest_of_json(content):
            raise Damaged('its seal is not as it was written')
        seal = Seal(**content)
        spoilt = sorted(name for name, found in seal.pieces.items() if found == NO_NUMBERS)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        if isinstance(error, Damaged):
            raise
        raise Damaged(f'its seal cannot be read: {(str(error).splitlines() or [repr(error)])[0][:200]}') from error
    if str(seal.step) != checkpoint.name:
        raise Damaged(f'its seal is that of step {seal.step}')
    if spoilt:
        raise Damaged(f'{spoilt[0]} was NaN or infinite when it was saved')
    return seal
