"""Programs of the step benchmark: the real training step, inference as the evaluator does it, layers, and ceilings.

A layer is timed in the form that the step uses on CPU. Its gradient is timed alone: what the forward pass leaves for it
was computed before, and the compiler drops what is not asked for. The bytes that a program must move at least are those
of its operands and its results, each once.
"""

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from alexnet_jax.benchmark.protocol import Setting
from alexnet_jax.benchmark.sampling import Program
from alexnet_jax.data.augment import CROP, normalise
from alexnet_jax.model.alexnet import get_parameter_shapes
from alexnet_jax.model.spec import TOWERS, ChannelNorm, Conv, MaxPool, Variant, get_layer_sizes
from alexnet_jax.sharding.backend import compiler_options, prepare_backend
from alexnet_jax.sharding.mesh import REPLICATED, batch_spec, parameter_specs, place_batch
from alexnet_jax.training.build import Run, build_run
from alexnet_jax.training.config import make_config
from alexnet_jax.training.step import Batch, make_model
from alexnet_jax.training.validation import validate_config

SIDE = 3072  # of the ceilings' square matrices
FLOATS = 2**25  # of one array that they move: 128 MiB, several times the largest cache
# {what is timed: (the operands whose gradients it computes, the operands that it has to read)}, by position.
_Gradients = dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
_WEIGHT: _Gradients = {'weight gradient': ((1,), (0,))}
_INPUT: _Gradients = {'input gradient': ((0,), (1,))}
_BIAS_RELU: _Gradients = {'backward': ((0, 1), (0,))}
_NORM: _Gradients = {'backward': ((0,), (0,))}
_POOL: _Gradients = {'backward': ((0,), ())}  # of its input, only where each maximum was: a byte, not counted


def build_benchmark_run(setting: Setting, *, towers: int) -> Run:
    """Builds a run of the paper's network on one device (`towers` 1) or on two, one tower each; reads no data."""
    settings = make_config('imagenet2012', mesh=(1, towers))
    settings.width = setting.width
    settings.precision = 'bfloat16' if setting.precision == 'bfloat16' else 'float32'
    return build_run(validate_config(settings), num_classes=setting.classes, examples=1)


def make_step_programs(name: str, setting: Setting) -> dict[str, Program]:
    """Prepares JAX's backend, and makes the programs of `name`, one of worker.make_programs."""
    if setting.device == 'gpu':  # TF32 is asked for or not by its name, as on PyTorch's side
        jax.config.update('jax_default_matmul_precision', 'tensorfloat32' if setting.precision == 'tf32' else 'float32')
    if name == 'gpu_ceilings':
        return make_device_ceilings(setting)
    if name == 'ceilings':
        return make_ceiling_programs()
    towers = {'one_device': 1, 'two_device': 2, 'layers': 1}[name]
    prepare_backend((1, towers))
    network = make_network_programs(setting, towers=towers)  # of which layers are parts
    return {'train': network['train'], **make_layer_programs(setting)} if name == 'layers' else network


def make_ceiling_programs() -> dict[str, Program]:
    """Makes 'gemm_numpy' and 'gemm_xla', and 'copy' (x -> z) and 'add' (x + y -> z) with a thread for each core.

    Counts bytes as the STREAM benchmark does: each array once. Leaves out the compiler options of the training step,
    which concern convolutions and small products.
    """
    random = np.random.default_rng(0)
    a, b = (random.standard_normal((SIDE, SIDE), np.float32) for _ in range(2))
    device_a, device_b, multiply = jnp.asarray(a), jnp.asarray(b), jax.jit(jnp.matmul)
    x, y, z = (np.ones(FLOATS, np.float32) for _ in range(3))
    threads = os.cpu_count() or 1
    pool, product = ThreadPoolExecutor(threads), np.empty_like(a)
    parts = [slice(FLOATS * i // threads, FLOATS * (i + 1) // threads) for i in range(threads)]
    copy, add = (lambda part: np.copyto(z[part], x[part])), (lambda part: np.add(x[part], y[part], out=z[part]))
    return {
        'gemm_numpy': Program(lambda: np.matmul(a, b, out=product), flop=2 * SIDE**3),
        'gemm_xla': Program(lambda: jax.block_until_ready(multiply(device_a, device_b)), flop=2 * SIDE**3),
        'copy': Program(lambda: list(pool.map(copy, parts)), moved=2 * x.nbytes),
        'add': Program(lambda: list(pool.map(add, parts)), moved=3 * x.nbytes),
    }


def make_device_ceilings(setting: Setting) -> dict[str, Program]:
    """Makes 'gemm', a square product in the setting's precision, and 'copy' (x + 1 -> y), on JAX's first device."""
    gpu = setting.device == 'gpu'
    side, floats = (8192, 2**28) if gpu else (512, 2**20)  # on a CPU they only rehearse
    dtype = jnp.bfloat16 if setting.precision == 'bfloat16' else jnp.float32
    a, b = (jax.random.normal(jax.random.key(seed), (side, side), dtype) for seed in range(2))
    x, multiply, increase = jnp.ones(floats), jax.jit(jnp.matmul), jax.jit(lambda x: x + 1)
    return {
        'gemm': Program(lambda: jax.block_until_ready(multiply(a, b)), flop=2 * side**3),
        'copy': Program(lambda: jax.block_until_ready(increase(x)), moved=2 * x.nbytes),
    }


def count_device_bytes() -> int | None:
    """Counts the most bytes that JAX's first device has held in this process; None where it does not count."""
    return (jax.devices()[0].memory_stats() or {}).get('peak_bytes_in_use')


def make_network_programs(setting: Setting, *, towers: int) -> dict[str, Program]:
    """Makes 'train' and 'inference' on one device (`towers` 1) or on two.

    The batch is on the device already: reading data is measured elsewhere. 'train' is one update and goes on from the
    one before; 'inference' is the logits of centre crops, with the parameters that training has reached.
    """
    run, random = build_benchmark_run(setting, towers=towers), np.random.default_rng(0)
    mesh, model = run.mesh, make_model(run.mesh, run.variant, num_classes=setting.classes, dtype=run.dtype)
    images = jnp.asarray(random.integers(256, size=(setting.batch, CROP, CROP, 3), dtype=np.uint8))
    labels = jnp.asarray(random.integers(setting.classes, size=setting.batch, dtype=np.int32))
    lighting = jnp.asarray(random.normal(size=(setting.batch, 3)), jnp.float32)
    places = jnp.asarray(random.integers(2, size=(setting.batch, 3), dtype=np.int32))
    batch = place_batch(mesh, Batch(images=images, labels=labels, lighting=lighting, places=places))
    state, train_step = run.create_state(np.full((CROP, CROP, 3), 127.5)), run.make_train_step()
    rows = batch_spec(mesh)
    specs = (parameter_specs(mesh, state.params), rows, REPLICATED)

    @jax.jit(compiler_options=compiler_options(mesh))
    @functools.partial(jax.shard_map, mesh=mesh, in_specs=specs, out_specs=rows)
    def compute_logits(params: Any, images: Array, mean_image: Array) -> Array:
        return model.apply({'params': params}, normalise(images, mean_image))

    def train() -> None:
        nonlocal state
        state, metrics = jax.block_until_ready(train_step(state, batch))
        assert np.isfinite(metrics['loss']), 'training diverged: its speed means nothing'

    forward, trained = (setting.batch * flop for flop in count_flop(run.variant, num_classes=setting.classes))
    infer = Program(
        lambda: jax.block_until_ready(compute_logits(state.params, batch.images, state.mean_image)), forward
    )
    peak = count_device_bytes if setting.device == 'gpu' else None
    return {'train': Program(train, trained, peak=peak), 'inference': infer}


def count_flop(variant: Variant, *, num_classes: int) -> tuple[int, int]:
    """Counts (forward, whole training step) of an image's convolutions and products; a multiply-accumulate is two.

    The backward pass is two products as large as the forward one, and only one in conv1: images need no gradient.
    """
    macs = {row.name: row.macs for row in get_layer_sizes(variant, num_classes=num_classes)}
    forward = 2 * sum(macs.values())
    return forward, 3 * forward - 2 * macs[variant.convs[0].name]


def make_layer_programs(setting: Setting) -> dict[str, Program]:
    """Makes {'conv1 forward': ..., 'conv1 weight gradient': ..., 'update': ...} of the network on one device.

    Activations are the network's own, of random images. Left out is what takes no time: the fully connected layers'
    biases, ReLU and dropout, and the loss.
    """
    run, key = build_benchmark_run(setting, towers=1), jax.random.key(0)
    params = make_parameters(run.variant, num_classes=setting.classes)
    table = _LayerTable(run, batch=setting.batch)
    images = jax.random.randint(key, (setting.batch, CROP, CROP, 3), 0, 256, jnp.uint8)
    mean, lighting = jnp.full((CROP, CROP, 3), 127.5), jax.random.normal(key, (setting.batch, 3))
    x = table.add('normalise', lambda x, mean, light: normalise(x, mean, lighting=light), (images, mean, lighting), {})
    for conv in run.variant.convs:
        x = table.add_convolution(conv, params[conv.name], x)
    x = x.reshape(setting.batch, -1)
    for dense in run.variant.dense:
        x = jnp.maximum(table.add(dense.name, jnp.matmul, (x, params[dense.name]['kernel']), _INPUT | _WEIGHT), 0)
    table.add_update(run.optimizer, params)
    return table.programs


def make_parameters(variant: Variant, *, num_classes: int) -> dict[str, Any]:
    """Makes random {layer: {'kernel', 'bias'}}, float32: speed does not depend on them, so NumPy's will do."""
    random = np.random.default_rng(0)
    shapes = get_parameter_shapes(variant, num_classes=num_classes)
    return jax.tree.map(lambda leaf: jnp.asarray(0.01 * random.standard_normal(leaf.shape, np.float32)), shapes)


class _LayerTable:
    """Collects the rows' programs; `add` and `add_convolution` return the layer's output, the next one's input."""

    def __init__(self, run: Run, *, batch: int) -> None:
        self.programs: dict[str, Program] = {}
        self._operations = make_model(run.mesh, run.variant, num_classes=run.num_classes).operations
        self._jit = functools.partial(jax.jit, compiler_options=compiler_options(run.mesh))
        sizes = get_layer_sizes(run.variant, num_classes=run.num_classes)
        self._flop = {row.name: 2 * row.macs * batch for row in sizes}

    def add(self, name: str, function: Callable[..., Array], operands: tuple, gradients: _Gradients) -> Array:
        """Adds the rows of `function` and of its gradients."""
        # With gradients to come, the forward program also computes what they will need, as in training.
        forward = self._jit((lambda *operands: jax.vjp(function, *operands)) if gradients else function)
        output = jax.block_until_ready(forward(*operands))
        result, pull = output if gradients else (output, None)
        calls = {'forward': (_make_call(forward, *operands), _count_bytes(operands, result))}
        gradient = jnp.ones_like(result) / result.size
        for title, (wanted, read) in gradients.items():
            backward = self._jit(lambda pull, gradient, wanted=wanted: [pull(gradient)[i] for i in wanted])
            moved = _count_bytes(gradient, [operands[i] for i in wanted + read])
            calls[title] = _make_call(backward, pull, gradient), moved
        flop = self._flop.get(name, 0)
        self.programs |= {f'{name} {title}': Program(call, flop, moved) for title, (call, moved) in calls.items()}
        return result

    def add_convolution(self, conv: Conv, params: dict[str, Array], x: Array) -> Array:
        """Adds the rows of one convolution and of what follows it, a ReLU first."""
        ops, name = self._operations, conv.name
        groups = TOWERS if conv.reads == 'tower' else 1
        convolve = functools.partial(ops.convolution, stride=conv.stride, padding=conv.padding, groups=groups)
        x = self.add(name, convolve, (x, params['kernel']), _WEIGHT if conv.reads == 'image' else _INPUT | _WEIGHT)
        x = self.add(f'{name} bias, ReLU', lambda x, b: ops.relu(ops.add_bias(x, b)), (x, params['bias']), _BIAS_RELU)
        for operation in conv.then[1:]:
            match operation:
                case ChannelNorm():
                    norm = functools.partial(ops.channel_norm, norm=operation, towers=TOWERS)
                    x = self.add(f'{name} LRN', norm, (x,), _NORM)
                case MaxPool():
                    x = self.add(f'{name} pooling', functools.partial(ops.max_pool, pool=operation), (x,), _POOL)
                case _:
                    raise ValueError(f'{name}: {operation} is not in the table')
        return x

    def add_update(self, optimizer: optax.GradientTransformationExtraArgs, params: Any) -> None:
        """Adds the row of the update: it reads parameters, gradients and momenta, and writes parameters and momenta."""

        def step(params: Any, state: Any, gradients: Any) -> tuple[Any, Any]:
            updates, state = optimizer.update(gradients, state, params, learning_rate=jnp.float32(1e-3))
            return optax.apply_updates(params, updates), state

        donating = self._jit(step, donate_argnums=(0, 1))
        current = jax.tree.map(jnp.copy, params), optimizer.init(params)

        def update() -> None:
            nonlocal current
            current = jax.block_until_ready(donating(*current, params))

        self.programs['update'] = Program(update, moved=5 * _count_bytes(params))


def _make_call(function: Callable[..., Any], *operands: Any) -> Callable[[], object]:
    return lambda: jax.block_until_ready(function(*operands))


def _count_bytes(*trees: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(trees))
