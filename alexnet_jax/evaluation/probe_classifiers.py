"""Fits a linear or a nearest-neighbour classifier to features, by scikit-learn; alone imports it."""

import dataclasses
from typing import Any

import numpy as np

from alexnet_jax.errors import InputError

CLASSIFIERS = ('linear', 'neighbours')
ALPHAS = tuple(float(10.0**power) for power in range(8))  # of ridge regression on standardised features
NEIGHBOURS = (1, 3, 5, 9, 15, 25)
FOLDS = 5


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What a classifier makes of a split.

    Attributes:
      scores: float64 (n, classes), the largest for the class that it says; -inf of classes without a training image.
      chosen: the regularisation, 'alpha 1000', or 'k 5', that did best on held-out images of the training split.
      held_out: how well, of 'linear' minus the mean square, of 'neighbours' the share that was right.
    """

    scores: np.ndarray
    chosen: str
    held_out: float


def check_classifiers() -> None:
    """Checks that scikit-learn is here; `InputError` where it is not."""
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise InputError("alexnet probe needs scikit-learn: pip install 'alexnet-jax[probe]'") from error


def fit_classifier(
    kind: str, features: np.ndarray, labels: np.ndarray, tested: np.ndarray, *, num_classes: int
) -> Fitted:
    """Fits one of CLASSIFIERS to (n, numbers) and labels (n,), and lets it judge the rows of `tested`.

    'linear' is ridge regression to -1 and 1 on standardised features, its alpha chosen by leaving out one image at a
    time; 'neighbours' votes by cosine distance, its k chosen by leaving out fifths.

    Raises:
      InputError: there are too few images to choose by, or of one class alone.
    """
    counts = np.bincount(labels, minlength=num_classes)
    if (counts > 0).sum() < 2:
        raise InputError('the training images are of fewer than two classes: there is nothing to tell apart')
    found, chosen, held_out = (_fit_linear if kind == 'linear' else _fit_neighbours)(features, labels)
    if kind == 'linear':
        scores = found.decision_function(tested)
        scores = np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores
    else:
        scores = found.predict_proba(tested)
    whole = np.full((len(tested), num_classes), -np.inf)
    whole[:, found.classes_] = scores
    return Fitted(whole, chosen, held_out)


def _fit_linear(features: np.ndarray, labels: np.ndarray) -> tuple[Any, str, float]:
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found = make_pipeline(StandardScaler(), RidgeClassifierCV(ALPHAS)).fit(features, labels)
    ridge = found[-1]
    return found, f'alpha {ridge.alpha_:g}', float(ridge.best_score_)


def _fit_neighbours(features: np.ndarray, labels: np.ndarray) -> tuple[Any, str, float]:
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.neighbors import KNeighborsClassifier

    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    fewest = len(labels) * (FOLDS - 1) // FOLDS
    grid = {'n_neighbors': [k for k in NEIGHBOURS if k <= fewest]}
    search = GridSearchCV(KNeighborsClassifier(metric='cosine', weights='distance'), grid, cv=folds)
    search.fit(features, labels)
    return search.best_estimator_, f'k {search.best_params_["n_neighbors"]}', float(search.best_score_)
