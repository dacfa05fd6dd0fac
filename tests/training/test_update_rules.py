"""The recurrences of experiments/update_rules.py against the programs that they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alexnet_jax.training.optimizer import paper_sgd
from experiments.update_rules import RULES, caffe, cuda_convnet2, descend, noisy_valley, paper, pytorch

RATES = [0.02] * 20 + [0.002] * 20


def by_optax(optimizer, **options):
    """A descent with an Optax rule; `options` are computed from the step."""
    with jax.enable_x64(True):
        params = {'layer': {'kernel': jnp.ones(5)}}
        state, path = optimizer.init(params), [np.ones(5)]
        for step in range(len(RATES)):
            gradient = {'layer': {'kernel': jnp.asarray(noisy_valley(np.asarray(params['layer']['kernel']), step))}}
            given = {name: value(step) for name, value in options.items()}
            updates, state = optimizer.update(gradient, state, params, **given)
            params = optax.apply_updates(params, updates)
            path.append(np.asarray(params['layer']['kernel']))
    return np.stack(path)


def test_paper_is_the_training_step_s():
    found = by_optax(
        paper_sgd(momentum=0.9, weight_decay=5e-4, bias_rate=1.0),
        learning_rate=lambda step: jnp.asarray(RATES[step], jnp.float64),
    )
    np.testing.assert_allclose(descend(paper, noisy_valley, np.ones(5), RATES), found, rtol=0, atol=1e-13)


def test_pytorch_is_optax_s():
    schedule = lambda step: jnp.asarray(RATES, jnp.float64)[step]  # noqa: E731
    found = by_optax(optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(schedule, momentum=0.9)))
    np.testing.assert_allclose(descend(pytorch, noisy_valley, np.ones(5), RATES), found, rtol=0, atol=1e-13)


@pytest.mark.slow
def test_pytorch_is_pytorch_s():
    torch = pytest.importorskip('torch', reason="PyTorch is an extra: pip install 'alexnet-jax[torch]'")
    w = torch.ones(5, dtype=torch.float64, requires_grad=True)
    sgd, path = torch.optim.SGD([w], lr=RATES[0], momentum=0.9, weight_decay=5e-4), [np.ones(5)]
    for step, rate in enumerate(RATES):
        sgd.param_groups[0]['lr'] = rate
        w.grad = torch.from_numpy(noisy_valley(w.detach().numpy(), step))
        sgd.step()
        path.append(w.detach().numpy().copy())
    np.testing.assert_allclose(descend(pytorch, noisy_valley, np.ones(5), RATES), np.stack(path), rtol=0, atol=1e-13)


def test_rules_agree_until_the_rate_drops_and_three_of_them_after():
    paths = {rule: descend(rule, noisy_valley, np.ones(5), RATES) for rule in RULES.values()}
    for rule in (caffe, cuda_convnet2):
        np.testing.assert_allclose(paths[rule], paths[paper], rtol=0, atol=1e-13)
    np.testing.assert_allclose(paths[pytorch][:21], paths[paper][:21], rtol=0, atol=1e-13)
    assert np.abs(paths[pytorch][22:] - paths[paper][22:]).max(axis=1).min() > 1e-3
