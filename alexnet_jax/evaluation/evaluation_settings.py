"""What `alexnet evaluate` tests, as flags say it."""

import dataclasses
from collections.abc import Sequence

from alexnet_jax.evaluation.views import PROTOCOLS

ALL, OF_DATASET = 'all', 'dataset'


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What is to be tested.

    Attributes:
      dataset, data_dir, batch_size: None: those of the runs.
      mesh: (data, tower) devices.
      preprocessing: how images become squares (data/preprocessing.py); None: the network's own of photographs, and of
        prepared records what they are.
      among: the classes that compete: ALL of a network's, or those OF_DATASET.
      protocols: () for both, or where corruptions are tested, for the centre.
      output: the folder of results; None: WORKDIR/evaluation of the only run, or WORKDIR/corruptions.
      corruptions: names of corruption_constants.CORRUPTIONS, or 'all'; (): images as they are.
      severities: numbers and ranges, '1..5'; () for all.
      seed: of what corruptions draw.
      labels: a file of other labels than the dataset's (evaluation/relabelling.py).
      corrupted: a folder of corrupted images (data/corrupted_files.py) in place of a dataset.
    """

    dataset: str | None = None
    data_dir: str | None = None
    split: str = 'validation'
    protocols: Sequence[str] = ()
    mesh: tuple[int, int] = (1, 1)
    batch_size: int | None = None
    preprocessing: str | None = None
    among: str = ALL
    output: str | None = None
    corruptions: Sequence[str] = ()
    severities: Sequence[str] = ()
    seed: int = 0
    labels: str | None = None
    corrupted: str | None = None

    def list_protocols(self) -> Sequence[str]:
        """Lists the protocols of images as they are."""
        return self.protocols or tuple(PROTOCOLS)
