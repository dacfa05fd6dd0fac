"""How far a linear model gets on a prepared dataset: python -m experiments.linear_baseline DATASET [DATA_DIR].

Softmax regression on pixels, centred and scaled, at 32x32 and 64x64, by L-BFGS. The weight decay is the one of five
that does best on a tenth of the training images, held out; the validation images are looked at once.
"""

import io
import sys

import numpy as np
from PIL import Image
from scipy.optimize import minimize

from alexnet_jax.data.dataset import open_dataset

DECAYS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


def pixels(records, side: int) -> tuple[np.ndarray, np.ndarray]:
    """All images of a split at side x side, float32 (n, side * side * 3), and their labels (n,)."""
    images, labels = zip(*(records[i] for i in range(len(records))), strict=True)
    small = [np.asarray(Image.open(io.BytesIO(jpeg)).resize((side, side), Image.Resampling.BOX)) for jpeg in images]
    return np.stack(small).reshape(len(small), -1).astype(np.float32), np.array(labels)


def fit(x: np.ndarray, y: np.ndarray, *, classes: int, decay: float) -> np.ndarray:
    """Weights (pixels, classes) of least mean cross-entropy + decay / 2 * |weights|^2."""
    targets = np.eye(classes, dtype=np.float32)[y]

    def loss(flat):
        weights = flat.reshape(-1, classes).astype(np.float32)
        logits = x @ weights
        logits -= logits.max(axis=1, keepdims=True)
        total = np.exp(logits).sum(axis=1, keepdims=True)
        value = (np.log(total[:, 0]) - (logits * targets).sum(axis=1)).mean() + decay / 2 * (weights**2).sum()
        gradient = x.T @ ((np.exp(logits) / total - targets) / len(x)) + decay * weights
        return float(value), gradient.ravel().astype(np.float64)

    start = np.zeros(x.shape[1] * classes)
    return minimize(loss, start, jac=True, method='L-BFGS-B', options={'maxiter': 60}).x.reshape(-1, classes)


def main(name: str, data_dir: str = 'data') -> None:
    """Prints the validation error at each size."""
    dataset = open_dataset(name, data_dir=data_dir)
    for side in (32, 64):
        (x, y), (x_val, y_val) = (pixels(dataset.records(split), side) for split in ('train', 'validation'))
        mean, scale = x.mean(axis=0), x.std()
        x, x_val = (x - mean) / scale, (x_val - mean) / scale
        held_out = np.arange(len(x)) % 10 == 0

        def error(weights, images, labels):
            return float(((images @ weights).argmax(axis=1) != labels).mean())

        def held_out_error(decay, x=x, y=y, held_out=held_out, error=error):
            weights = fit(x[~held_out], y[~held_out], classes=len(dataset.classes), decay=decay)
            return error(weights, x[held_out], y[held_out])

        best = min(DECAYS, key=held_out_error)
        weights = fit(x, y, classes=len(dataset.classes), decay=best)
        print(
            f'{name}, linear on {side}x{side} pixels: training error {error(weights, x, y):.1%}, '
            f'validation error {error(weights, x_val, y_val):.1%} (weight decay {best:g})'
        )


if __name__ == '__main__':
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*sys.argv[1:])
