"""Four programs' momentum, a NumPy recurrence each, and how they part: python -m experiments.update_rules [PICTURE].

All four are v <- 0.9 v + ..., w <- w + v with weight decay, and the same as long as the learning rate stays. They part
where it drops: three have the rate inside v, so what was learnt at the old rate goes on at the old rate for some ten
steps; PyTorch (and optax.sgd) keep it outside, and the whole of v slows down at once.
"""

import sys
from collections.abc import Callable, Sequence

import numpy as np

DECAY, MOMENTUM = 5e-4, 0.9
Rule = Callable[[np.ndarray, np.ndarray, np.ndarray, float], tuple[np.ndarray, np.ndarray]]


def paper(w: np.ndarray, v: np.ndarray, g: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Section 5: v <- 0.9 v - 0.0005 rate w - rate g; w <- w + v."""
    v = MOMENTUM * v - DECAY * rate * w - rate * g
    return w + v, v


def caffe(w: np.ndarray, v: np.ndarray, g: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """BVLC/caffe src/caffe/solvers/sgd_solver.cpp: Regularize, ComputeUpdateValue; the net then does w <- w - v."""
    diff = g + DECAY * w
    v = rate * diff + MOMENTUM * v
    return w - v, v


def pytorch(w: np.ndarray, v: np.ndarray, g: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """torch.optim.SGD, and optax.sgd: v <- 0.9 v + g + 0.0005 w; w <- w - rate v."""
    v = MOMENTUM * v + g + DECAY * w
    return w - rate * v, v


def cuda_convnet2(w: np.ndarray, v: np.ndarray, g: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """cuda-convnet2 cudaconvnet/src/weights.cu Weights::update, whose gradient points downhill already.

    inc.add(grad, 0.9, rate); inc.add(w, -0.0005 rate); w.add(inc). The code of 2012: the same (CHM src/weights.cu:146).
    """
    downhill = -g
    inc = MOMENTUM * v + rate * downhill
    inc = inc - DECAY * rate * w
    return w + inc, inc


RULES: dict[str, Rule] = {'paper': paper, 'Caffe': caffe, 'cuda-convnet2': cuda_convnet2, 'PyTorch, optax.sgd': pytorch}


def descend(
    rule: Rule, gradient: Callable[[np.ndarray, int], np.ndarray], start: np.ndarray, rates: Sequence[float]
) -> np.ndarray:
    """All points w of a descent, (steps + 1, n): `gradient(w, step)` at each, with the step's rate."""
    w, v, path = start, np.zeros_like(start), [start]
    for step, rate in enumerate(rates):
        w, v = rule(w, v, gradient(w, step), rate)
        path.append(w)
    return np.stack(path)


def noisy_valley(w: np.ndarray, step: int) -> np.ndarray:
    """The gradient of sum(curvature w^2) / 2, curvatures 0.1 to 10, and noise of the step: a small loss surface."""
    curvature = np.geomspace(0.1, 10, w.size)
    return curvature * w + np.random.default_rng([1, step]).normal(0, 1, w.shape)


def figure(path: str) -> None:
    """Two panels over 60 steps, the rate divided by 10 at step 20: how far w still moves, and how far rules part."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    rates = [0.02] * 20 + [0.002] * 40
    paths = {name: descend(rule, noisy_valley, np.ones(64), rates) for name, rule in RULES.items()}
    picture, (moves, apart) = pyplot.subplots(1, 2, figsize=(10, 3.6), constrained_layout=True)
    styles = {'paper': ('C0', 5), 'Caffe': ('C1', 3), 'cuda-convnet2': ('C2', 1.2), 'PyTorch, optax.sgd': ('C3', 1.8)}
    for name, path_of in paths.items():
        colour, width = styles[name]
        moves.plot(np.linalg.norm(np.diff(path_of, axis=0), axis=1), color=colour, linewidth=width, label=name)
        apart.plot(np.linalg.norm(path_of - paths['paper'], axis=1), color=colour, linewidth=width)
    for axes, title in ((moves, 'length of each step'), (apart, "distance from the paper's weights")):
        axes.axvline(20, color='grey', linewidth=0.8, linestyle=':')
        axes.set(xlabel='step; the learning rate is divided by 10 at 20', title=title)
    moves.legend(frameon=False)
    picture.savefig(path, dpi=110)


def main() -> None:
    """Prints how far the rules are from the paper's before and after the drop."""
    rates = [0.02] * 20 + [0.002] * 40
    paths = {name: descend(rule, noisy_valley, np.ones(64), rates) for name, rule in RULES.items()}
    print(f'{"rule":20}{"at the drop":>14}{"10 steps later":>16}{"at the end":>14}')
    for name, path in paths.items():
        distances = np.linalg.norm(path - paths['paper'], axis=1)
        print(f'{name:20}{distances[20]:14.1e}{distances[30]:16.1e}{distances[-1]:14.1e}')
    if len(sys.argv) > 1:
        figure(sys.argv[1])


if __name__ == '__main__':
    main()
