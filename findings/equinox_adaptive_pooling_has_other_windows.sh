#!/usr/bin/env bash
# Equinox 0.13.8: AdaptiveAvgPool2d and AdaptiveMaxPool2d cut the image into pieces of two sizes where PyTorch's layers of the
# same names lay overlapping windows over it: a ported torchvision AlexNet gives other logits for all but a few image sizes.
#
# Guess: with PyTorch's weights, names and argument they give PyTorch's numbers, which its documentation leads one to expect.
# Seen: they agree only where the output divides the input. From 7 to 6, which is what AlexNet's last pooling meets in images
#       of 256x256, the windows are one of two pixels and five of one, [0, 2) [2, 3) ... [6, 7), where PyTorch averages six
#       windows of two. Of uniform noise the results are up to 0.5 apart. From 6 to 6, images of 224x224, both copy.
# What to do: pool explicitly: window i is [floor(i * n / m), ceil((i + 1) * n / m)) of n pixels for m outputs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check equinox==0.13.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import equinox as eqx
import jax.numpy as jnp
import numpy as np


def pool(x, windows, reduce):
    """Reduces x (channels, n, n) over the windows, pairs of (first, after the last), along both sides."""
    return np.array([[[reduce(plane[a:b, c:d]) for c, d in windows] for a, b in windows] for plane in x])


def torch_windows(n, m):
    """Returns the windows of PyTorch's adaptive pooling: they overlap where m does not divide n."""
    return [(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]


def piece_windows(n, m):
    """Returns m pieces without overlap, the first n % m of them a pixel longer."""
    ends = np.cumsum([n // m + (i < n % m) for i in range(m)])
    return [(int(end - n // m - (i < n % m)), int(end)) for i, end in enumerate(ends)]


for n, m in ((6, 6), (12, 6), (7, 6), (8, 6), (13, 6)):
    x = np.random.default_rng(0).random((2, n, n), np.float32)
    for layer, reduce in ((eqx.nn.AdaptiveAvgPool2d, np.mean), (eqx.nn.AdaptiveMaxPool2d, np.max)):
        found = np.asarray(layer(m)(jnp.asarray(x)))
        apart = float(np.abs(found - pool(x, torch_windows(n, m), reduce)).max())
        print(f'{layer.__name__} {n} to {m}: {apart:.2f} from PyTorch')
        np.testing.assert_allclose(found, pool(x, piece_windows(n, m), reduce), rtol=1e-6)
        assert (apart < 1e-6) == (n % m == 0), (n, m)
assert piece_windows(7, 6) == [(0, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7)]
assert torch_windows(7, 6) == [(0, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7)]
PYTHON
echo 'unchanged: adaptive pooling of Equinox 0.13.8 is not that of PyTorch'
