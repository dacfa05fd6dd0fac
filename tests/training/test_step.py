"""The sharded step against the plain one-device network: loss, every gradient, the whole update, on every mesh."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest

from alexnet_jax.model.ablations import ablate, activate
from alexnet_jax.model.alexnet import init_parameters
from alexnet_jax.model.zoo import VARIANTS
from alexnet_jax.sharding.mesh import batch_spec, make_mesh, parameter_specs, place_batch, shardings
from alexnet_jax.training.optimizer import lars, make_norms, paper_sgd
from alexnet_jax.training.schedule import LayerLRMultiplier, Plateau, fixed_drops
from alexnet_jax.training.state import TrainState, create_state
from alexnet_jax.training.step import Batch, make_gradients, make_train_step

pytestmark = pytest.mark.slow
WIDTH, CLASSES, ROWS, SEED = 0.0625, 7, 8, 4
MESHES = [(1, 1), (1, 2), (2, 1), (2, 2), (4, 2)]
# With one weird trick: (data, model). Two devices have a tower's hidden units each; of four or eight each has a part.
TRICK = [(1, 1), (2, 1), (1, 2), (2, 2), (1, 4), (2, 4), (1, 8)]
EVERY = [(shape, False) for shape in MESHES] + [(shape, True) for shape in TRICK]
TOLERANCE = 1e-12  # of the largest entry, in float64
SPREADS = {'sigmoid': np.array([0.229, 0.224, 0.225]) * 255}  # by which pixels are divided
# What is changed in every layer of a network, and in the plain one.
PARTS = {
    '': (lambda variant: variant, {}),
    'tanh': (lambda variant: ablate(variant, ('relu',)), {'act': jnp.tanh}),
    'sigmoid': (lambda variant: activate(variant, 'sigmoid'), {'act': oracle.sigmoid}),
    'maximum': (lambda variant: ablate(variant, ('maximum',)), {'pool': oracle.average_pool}),
    'maximum, overlap': (lambda variant: ablate(variant, ('maximum', 'overlap')), {'pool': oracle.small_average_pool}),
}


def name(case):
    shape, trick = case
    return f'{shape[0]}x{shape[1]}' + ' with the trick' * trick


def cases(variant, *first, among):
    """`among` for a variant: of the cases only those in `first` belong to the ordinary tests."""
    return [
        pytest.param(variant, case, marks=() if case in first else pytest.mark.repeats, id=f'{variant}-{name(case)}')
        for case in among
    ]


@functools.cache
def make_problem(variant_name, part=''):
    """A variant, float64 parameters, a batch, and what the plain network makes of them; `part` is of PARTS."""
    change, plain = PARTS[part]
    variant = change(VARIANTS[variant_name]).scaled(WIDTH)
    random = np.random.default_rng(0)
    batch = Batch(
        random.integers(0, 256, (ROWS, 224, 224, 3), dtype=np.uint8),
        random.integers(0, CLASSES, ROWS).astype(np.int32),
        random.standard_normal((ROWS, 3)) * 10,
        np.stack(
            [random.integers(0, 33, ROWS), random.integers(0, 33, ROWS), np.arange(ROWS) % 3 == 1], 1, dtype=np.int32
        ),
    )
    batch.lighting[[2, 5]] = 0  # two images get no noise, and so are not divided either
    mean = random.uniform(100, 150, (224, 224, 3))
    key = jax.random.fold_in(jax.random.key(SEED), 0)  # what the train step of this seed draws from at step 0
    params = init_parameters(variant, jax.random.key(0), num_classes=CLASSES)
    masks = oracle.dropout_masks(key, ROWS, [256, 256])
    divisor = np.full((ROWS, 1, 1, 1), {'paper': 1.0, 'released': 1.1}[variant_name])
    divisor[[2, 5]] = 1
    with jax.enable_x64(True):
        # Doubled, so that gradients do not come from the biases alone.
        params = jax.tree.map(lambda p: np.asarray(p, np.float64) * 2, params)
        mirrored = np.where(batch.places[:, 2, None, None, None], np.flip(batch.images, axis=2), batch.images)
        images = (mirrored - mean + batch.lighting[:, None, None]) / divisor / SPREADS.get(part, 1.0)

        def loss(params):
            logits = oracle.network(variant_name, params, jnp.asarray(images), masks, **plain)
            return oracle.mean_cross_entropy(logits, batch.labels), (logits.argmax(axis=1) != batch.labels).mean()

        (loss, error), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        return {
            'variant': variant,
            'batch': batch,
            'mean': mean,
            'key': key,
            'params': params,
            'loss': float(loss),
            'error': float(error),
            'gradients': jax.tree.map(np.asarray, gradients),
        }


# With these every axis is split and every collective called.
ONE, TWO, FOUR, TRICK2, TRICK8 = ((1, 1), False), ((1, 2), False), ((2, 2), False), ((1, 2), True), ((2, 4), True)


def changed_cases(variant, part, *first):
    """`cases` of every mesh, of a variant with a part of PARTS."""
    return [
        pytest.param(*case.values, part, marks=case.marks, id=f'{case.id}-{part}')
        for case in cases(variant, *first, among=EVERY)
    ]


@pytest.mark.parametrize(
    ('variant_name', 'case', 'part'),
    changed_cases('paper', '', TWO)
    + changed_cases('released', '', ONE, FOUR, TRICK2, TRICK8)
    + changed_cases('released', 'sigmoid', FOUR)
    + changed_cases('paper', 'sigmoid')
    + changed_cases('released', 'tanh')
    + changed_cases('released', 'maximum')
    + changed_cases('paper', 'maximum, overlap', FOUR),
)
def test_train_step_has_the_loss_gradients_and_update_of_the_plain_network(variant_name, case, part):
    check_train_step(variant_name, case, part)


@pytest.mark.parametrize(
    ('variant_name', 'case', 'parts'),
    [
        pytest.param(variant, case, parts, marks=marks, id=f'{variant}-{name(case)}-{parts}')
        for variant, case, parts, marks in (
            ('paper', ONE, 8, pytest.mark.repeats),
            ('released', TWO, 4, ()),
            ('paper', FOUR, 2, pytest.mark.repeats),
            ('released', ((4, 2), False), 2, pytest.mark.repeats),
            ('released', ((2, 2), True), 2, ()),
            ('paper', ((1, 4), True), 2, pytest.mark.repeats),
        )
    ],
)
def test_train_step_in_parts_is_that_of_the_whole_batch(variant_name, case, parts):
    check_train_step(variant_name, case, accumulate=parts)


@pytest.mark.parametrize('case', [FOUR, pytest.param(TRICK8, marks=pytest.mark.repeats)], ids=name)
def test_train_step_of_lars_has_the_plain_network_s_gradients_and_norms_of_whole_arrays(case):
    check_train_step('released', case, trust=1e-3, accumulate=2 if case is FOUR else 1)


def check_train_step(variant_name, case, part='', trust=None, **options):
    """Momentum starts at one, so that its decay counts too; the rate makes gradients the most of the change."""
    problem = make_problem(variant_name, part)
    (shape, trick), variant, rate = case, problem['variant'], 1024.0
    mesh = make_mesh(*shape, one_weird_trick=trick)
    optimizer = paper_sgd(momentum=0.9, weight_decay=5e-4, bias_rate=variant.bias_rate)
    if trust:
        optimizer = lars(trust_coefficient=trust, momentum=0.9, weight_decay=5e-4, norms=make_norms(mesh))
    bias_rate = {'paper': 1, 'released': 2}[variant.name]
    with jax.enable_x64(True):
        ones = jax.tree.map(np.ones_like, problem['params'])
        state = TrainState(
            step=jnp.zeros((), jnp.int32),
            params=problem['params'],
            opt_state=optax.tree_utils.tree_set(optimizer.init(problem['params']), trace=ones),
            plateau=Plateau.start(),
            mean_image=problem['mean'],
        )
        state = jax.device_put(state, shardings(mesh, parameter_specs(mesh, state)))
        constant = fixed_drops(rate, factor=0.1, at_steps=())
        step = make_train_step(variant, optimizer, constant, mesh, num_classes=CLASSES, seed=SEED, **options)
        state, metrics = step(state, place_batch(mesh, problem['batch']))
    assert int(state.step) == 1
    assert metrics['loss'].dtype == np.float64
    np.testing.assert_allclose(float(metrics['top1_error']), problem['error'], rtol=1e-15)
    apart = {}
    for layer, leaves in problem['params'].items():
        for leaf, before in leaves.items():
            gradient = problem['gradients'][layer][leaf]
            factor, decay = {'kernel': (1, 5e-4), 'bias': (bias_rate, 0)}[leaf]
            (expected,) = oracle.paper_update(
                before, [gradient], [rate * factor], decay=decay, velocity=np.ones_like(before)
            )
            change = rate * factor * np.abs(gradient).max()
            if trust:
                (expected,) = oracle.lars_update(
                    before, [gradient], [rate], decayed=bool(decay), trust=trust, velocity=-np.ones_like(before)
                )
                change = np.abs(expected - before).max()
            apart[layer, leaf] = np.abs(np.asarray(state.params[layer][leaf]) - expected).max() / change
    loss_apart = abs(float(metrics['loss']) - problem['loss']) / problem['loss']
    print(f'figures: mesh {name(case)}, loss apart by {loss_apart:.1e}, gradients by at most {max(apart.values()):.1e}')
    assert loss_apart <= TOLERANCE
    assert len(apart) == 16
    assert max(apart.values()) <= TOLERANCE, apart


def is_column_sum(equation):
    """Whether it is a product with a row of ones, a bias's gradient in ops_cpu: fc8's is of float32 logits."""
    return equation.primitive.name == 'dot_general' and equation.invars[0].aval.shape[:-1] == (1,)


def inputs_of(jaxpr, primitives):
    """The dtypes of all arrays that operations of these names read, in a traced program and those inside it."""
    found = set()
    for equation in jaxpr.eqns:
        if equation.primitive.name in primitives and not is_column_sum(equation):
            found |= {str(variable.aval.dtype) for variable in equation.invars}
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, 'eqns') or hasattr(x, 'jaxpr')):
            if hasattr(inner, 'eqns') or hasattr(inner, 'jaxpr'):
                found |= inputs_of(getattr(inner, 'jaxpr', inner), primitives)
    return found


BFLOAT16 = [ONE, FOUR, ((2, 2), True)]


@pytest.mark.parametrize(
    ('variant_name', 'case'), cases('paper', among=BFLOAT16) + cases('released', *BFLOAT16[1:], among=BFLOAT16)
)
def test_make_gradients_has_bfloat16_products_and_adds_up_in_float32(variant_name, case):
    problem = make_problem(variant_name)
    mesh = make_mesh(*case[0], one_weird_trick=case[1])
    gradients = jax.jit(make_gradients(problem['variant'], mesh, num_classes=CLASSES, dtype=jnp.bfloat16))
    params = jax.tree.map(lambda p: p.astype(np.float32), problem['params'])
    params = jax.device_put(params, shardings(mesh, parameter_specs(mesh, params)))
    arguments = params, problem['batch'], problem['mean'].astype(np.float32), problem['key']
    traced = gradients.trace(*arguments).jaxpr.jaxpr
    assert inputs_of(traced, {'conv_general_dilated', 'dot_general'}) == {'bfloat16'}
    # One weird trick sums fc8's products over devices in float32, so their gradient comes back in it.
    assert inputs_of(traced, {'all_gather'}) <= ({'bfloat16', 'float32'} if case[1] else {'bfloat16'})
    assert inputs_of(traced, {'rsqrt', 'exp', 'log', 'psum_invariant'}) == {'float32'}  # norms, softmax, averages
    (loss, _), found = gradients(*arguments)
    assert loss.dtype == jnp.float32
    assert float(loss) == pytest.approx(problem['loss'], rel=0.02)  # of eight bits
    assert float(loss) != pytest.approx(problem['loss'], rel=1e-6)
    for (path, gradient), wanted in zip(
        jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(problem['gradients']), strict=True
    ):
        assert gradient.dtype == jnp.float32
        cosine = np.vdot(gradient, wanted) / np.linalg.norm(gradient) / np.linalg.norm(wanted)
        assert cosine > 0.9, jax.tree_util.keystr(path)


def test_train_step_compiles_once_donates_its_state_drops_its_rate_and_leaves_a_frozen_layer_out():
    variant, mesh = VARIANTS['paper'].scaled(WIDTH), make_mesh(1, 2)
    optimizer = paper_sgd(momentum=0.9, weight_decay=5e-4, bias_rate=1.0)
    mean = np.full((224, 224, 3), 120.0)
    state = create_state(variant, optimizer, mesh, num_classes=CLASSES, mean_image=mean, seed=1)
    step = make_train_step(
        variant,
        optimizer,
        fixed_drops(0.01, factor=0.1, at_steps=(1,)),
        mesh,
        num_classes=CLASSES,
        seed=0,
        lr_multipliers=(LayerLRMultiplier('conv1', 1, 0.0),),
    )
    random = np.random.default_rng(0)
    rates, kernels = [], [jax.device_get(state.params)]
    for _ in range(3):
        images = random.integers(0, 256, (4, 224, 224, 3), dtype=np.uint8)
        batch = place_batch(mesh, Batch(images, np.zeros(4, np.int32), np.zeros((4, 3), 'f4')))
        before = state
        state, metrics = step(state, batch)
        assert before.params['fc6']['kernel'].is_deleted()
        rates.append(float(metrics['learning_rate']))
        kernels.append(jax.device_get(state.params))
    assert step._cache_size() == 1
    np.testing.assert_allclose(rates, [0.01, 0.001, 0.001], rtol=1e-6)
    assert batch.images.sharding.spec == batch_spec(mesh)
    moved = {
        layer: [bool((a[layer]['kernel'] != b[layer]['kernel']).any()) for a, b in itertools.pairwise(kernels)]
        for layer in kernels[0]
    }
    assert moved.pop('conv1') == [True, False, False]
    assert set(map(tuple, moved.values())) == {(True, True, True)}


CLIPPED = [FOUR, TRICK8, *(pytest.param(case, marks=pytest.mark.repeats) for case in (ONE, TWO, EVERY[2], EVERY[4]))]


@pytest.mark.parametrize('case', CLIPPED, ids=name)
def test_make_gradients_clips_by_the_norm_over_both_towers(case):
    """The norm by NumPy, from the plain network's gradients; below the limit they stay as they are."""
    problem = make_problem('released')
    norm = np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(problem['gradients'])))
    with jax.enable_x64(True):
        mesh = make_mesh(*case[0], one_weird_trick=case[1])
        params = jax.device_put(problem['params'], shardings(mesh, parameter_specs(mesh, problem['params'])))
        batch = place_batch(mesh, problem['batch'])

        @jax.jit
        def clipped(limit, *given):
            return make_gradients(problem['variant'], mesh, num_classes=CLASSES, clip_norm=limit)(*given)

        for factor in (0.5, 2.0):
            metrics, found = clipped(factor * norm, params, batch, problem['mean'], problem['key'])
            np.testing.assert_allclose(metrics[-1], norm, rtol=1e-10)
            for path, leaf in jax.tree_util.tree_leaves_with_path(found):
                expected = problem['gradients'][path[0].key][path[1].key] * min(1.0, factor)
                np.testing.assert_allclose(leaf, expected, rtol=0, atol=1e-10 * abs(expected).max())
