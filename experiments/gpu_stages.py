"""What `make gpu` runs, each stage in a process of its own: python -m experiments.gpu_stages STAGE ARGUMENTS.

    steps DTYPE DETERMINISTIC    some steps of each mode: losses; half of them again, resumed
    audit                        the step compiled for the devices here and for such GPUs without them: do they agree
    bench BATCHES PRECISIONS     benchmark.measure.measure_accelerator, PyTorch's forms where it is installed

The last line of standard output is a JSON object. With REHEARSE in the environment sizes are tiny, and a CPU takes the
forms of a GPU, so that its numbers are compared with something else than themselves.
"""

from __future__ import annotations

import collections
import importlib.util
import json
import math
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alexnet_jax.training.config import Config

REHEARSE = bool(os.environ.get('REHEARSE'))
STEPS, CLASSES = 2 if REHEARSE else 4, 16
WIDTH, BATCH = (0.03125, 8) if REHEARSE else (1.0, 32)
MODES = {
    'one_device': (1, 1),
    'two_device': (1, 2),
    'data_parallel': (2, 1),
    'hybrid': (2, 2),
    'one_weird_trick': (1, 2),
}


def run_steps(dtype: str, deterministic: str) -> dict[str, Any]:
    """Trains every mode of those that MODES in the environment names (all) that the devices here suffice for.

    Returns {'device': name, 'modes': {mode: {'losses': [...], 'resumed': whether the second half, from a copy of the
    state on the host and in a program compiled again, gave the same bits}}, 'left_out': [mode, ...]}.
    """
    from alexnet_jax.sharding.backend import prepare_backend

    forms = os.environ.get('FORMS') == 'gpu'
    prepare_backend((2, 2), deterministic=deterministic == 'yes')
    import jax

    from alexnet_jax.model import ops_gpu
    from alexnet_jax.training import step as step_module

    if forms:
        step_module.find_operations = lambda mesh: ops_gpu
    if dtype == 'float32':
        jax.config.update('jax_default_matmul_precision', 'float32')
    jax.config.update('jax_enable_compilation_cache', False)
    found: dict[str, Any] = {'device': jax.devices()[0].device_kind, 'modes': {}, 'left_out': []}
    wanted = os.environ.get('MODES', ','.join(MODES)).split(',')
    for mode, shape in MODES.items():
        if mode not in wanted:
            continue
        if shape[0] * shape[1] > len(jax.devices()):
            found['left_out'].append(mode)
            continue
        losses, resumed = _train(mode, shape, dtype)
        found['modes'][mode] = {'losses': losses, 'resumed': resumed}
        print(json.dumps(found), flush=True)  # what is there, should a later mode hang
    return found


def _train(mode: str, shape: tuple[int, int], dtype: str) -> tuple[list[float], bool]:
    import jax
    import numpy as np

    from alexnet_jax.sharding.mesh import parameter_specs, place, place_batch
    from alexnet_jax.training.build import build_run
    from alexnet_jax.training.step import Batch

    run = build_run(_make_config(mode, shape, dtype), num_classes=CLASSES, examples=BATCH * STEPS)
    random = np.random.default_rng(0)
    batches = [
        Batch(
            random.integers(256, size=(BATCH, 224, 224, 3), dtype=np.uint8),
            random.integers(CLASSES, size=BATCH, dtype=np.int32),
            random.standard_normal((BATCH, 3)).astype(np.float32),
            random.integers(2, size=(BATCH, 3), dtype=np.int32),
        )
        for _ in range(STEPS)
    ]
    state, step, losses = run.create_state(np.full((224, 224, 3), 127.5)), run.make_train_step(), []
    kept = None
    for number, batch in enumerate(batches):
        if number == STEPS // 2:
            kept = jax.device_get(state)
        state, metrics = step(state, place_batch(run.mesh, batch))
        losses.append(float(metrics['loss']))
    again, step = place(run.mesh, kept, parameter_specs(run.mesh, kept)), run.make_train_step()
    for batch in batches[STEPS // 2 :]:
        again, _ = step(again, place_batch(run.mesh, batch))
    pairs = zip(jax.tree.leaves(jax.device_get(state)), jax.tree.leaves(jax.device_get(again)), strict=True)
    return losses, all(np.array_equal(a, b) for a, b in pairs)


def _make_config(mode: str, shape: tuple[int, int], dtype: str) -> Config:
    from alexnet_jax.training.config import make_config
    from alexnet_jax.training.validation import validate_config

    config = make_config('imagenet2012', parallelism='two_device' if mode == 'one_device' else mode)
    # One rate for all: one weird trick's would otherwise grow with the batch.
    config.update(mesh=shape, width=WIDTH, precision=dtype, batch_size=BATCH, rate_batch_size=BATCH)
    return validate_config(config)


def run_audit() -> dict[str, Any]:
    """Compiles the step on as large a mesh as there are devices for, here and by the compiler of absent GPUs.

    Returns {'device': name, 'mesh': [data, tower], 'agree': whether the same is said between the same devices, 'real'
    and 'absent': {'messages': how many, 'bytes': received, 'kernels': {library: how many}, 'traffic': bytes}}; a CPU
    has no kernels, and without the extra gpu-compiler or cuda12 there is 'missing', why, in place of 'absent'.
    """
    from alexnet_jax.sharding.backend import prepare_backend

    prepare_backend((1, 2))
    import jax

    from alexnet_jax.benchmark.gpu_figures import find_published
    from alexnet_jax.communication import audit, gpu_compiler, gpu_program, messages
    from alexnet_jax.errors import InputError
    from alexnet_jax.training.build import build_run

    device, count = jax.devices()[0], len(jax.devices())
    mode = max((m for m in ('one_device', 'two_device', 'hybrid') if math.prod(MODES[m]) <= count), key=[*MODES].index)
    config = _make_config(mode, MODES[mode], 'float32')
    run = build_run(config, num_classes=CLASSES, examples=1)
    text = audit.trace_step(run).lower().compile().as_text()

    def describe(sent: list[messages.Message], kernels: list[gpu_program.Kernel]) -> dict[str, Any]:
        whose = collections.Counter(kernel.library for kernel in kernels)
        size, traffic = sum(message.bytes for message in sent), sum(kernel.traffic for kernel in kernels)
        return {'messages': len(sent), 'bytes': size, 'kernels': dict(whose), 'traffic': traffic}

    sent = messages.compiled_schedule(text, run.mesh)
    on_gpu = device.platform in ('gpu', 'cuda')
    kernels = gpu_program.read_gpu_program(text, run.mesh).kernels if on_gpu else []
    found = {'device': device.device_kind, 'mesh': [*config.mesh], 'real': describe(sent, kernels)}
    published = find_published(device.device_kind)
    topology = f'{published.name if published else "h100"}:{math.prod(config.mesh)}'
    try:
        given = gpu_compiler.compile_for_gpus(config, topology, num_classes=CLASSES)
    except InputError as error:
        return found | {'missing': str(error)}
    program = gpu_compiler.parse_compiled(given).program
    said = [sorted((m.axis, m.op, m.layer, m.bytes) for m in which) for which in (sent, program.messages)]
    return found | {'agree': said[0] == said[1], 'absent': describe(program.messages, program.kernels)}


def run_bench(batches: str, precisions: str) -> dict[str, Any]:
    """Measures each precision and batch size; PyTorch's forms where it is installed and the machine can compile."""
    from alexnet_jax.benchmark import gpu_figures
    from alexnet_jax.benchmark.measure import Turns, find_gpu, measure_accelerator
    from alexnet_jax.benchmark.protocol import Setting

    device = 'a CPU, in rehearsal' if REHEARSE else find_gpu() or 'no GPU'
    turns = Turns(2, 0.01) if REHEARSE else Turns(3, 0.5)
    torch = importlib.util.find_spec('torch') is not None
    results = []
    for precision in precisions.split(','):
        for batch in map(int, batches.split(',')):
            setting = Setting(
                batch, WIDTH, CLASSES if REHEARSE else 1000, 'default',
                device='cpu' if REHEARSE else 'gpu', precision=precision,
            )  # fmt: skip
            results.append(measure_accelerator(setting, turns, torch=torch))
            # What is there is printed after each, so that a time limit loses only what comes later.
            figures = gpu_figures.make_gpu_figures(results, device)
            print(json.dumps(figures | {'torch': torch}), flush=True)
    print(gpu_figures.format_gpu_figures(figures), file=sys.stderr)
    return figures | {'torch': torch}


if __name__ == '__main__':
    stage, *arguments = sys.argv[1:]
    print(json.dumps({'steps': run_steps, 'audit': run_audit, 'bench': run_bench}[stage](*arguments)))
