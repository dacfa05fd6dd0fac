"""Compiles a step for GPUs that are not here: python -m alexnet_jax.communication.gpu_worker REQUEST RESPONSE.

A process of its own, because the compiler ends the one it is in where it does not take a text of what the GPU is. Both
are files of JSON. `gpu_compiler` starts it.
"""

import dataclasses
import hashlib
import json
import pathlib
import sys
import time
from typing import Any

import jax
from jax.experimental import topologies

from alexnet_jax.communication import audit, gpu_program
from alexnet_jax.communication.messages import traced_schedule
from alexnet_jax.errors import InputError, get_first_line
from alexnet_jax.sharding.backend import prepare_backend
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.training.build import Run, build_run
from alexnet_jax.training.config import ONE_WEIRD_TRICK, Config


def compile_step(
    config: Config, *, hosts: int, gpus: int, classes: int, target: str, kept: list[str]
) -> dict[str, Any]:
    """Compiles the config's step for so many hosts of so many GPUs.

    Args:
      target: the text of a GpuTargetConfig.
      kept: names of programs that need not be compiled again.

    Returns:
      As JSON has it: what `gpu_compiler.Compiled` has; of a kept program only its name.
    """
    run, traced_step = trace_for_gpus(config, hosts=hosts, gpus=gpus, classes=classes, target=target)
    lowered, mesh = traced_step.lower(), run.mesh
    version = f'{jax.__version__} {hosts}x{gpus}'
    name = hashlib.sha256(f'{version} {target} {lowered.as_text()}'.encode()).hexdigest()
    if name in kept:
        return {'name': name}
    start = time.monotonic()
    compiled = lowered.compile()
    seconds = time.monotonic() - start
    used, program = compiled.memory_analysis(), gpu_program.read_gpu_program(compiled.as_text(), mesh)
    assert used, 'this compiler does not say what memory its programs take'
    traced = traced_schedule(traced_step.jaxpr, mesh)
    return {
        'name': name,
        'arguments': used.argument_size_in_bytes,
        'temporaries': used.temp_size_in_bytes,
        'program': gpu_program.to_json(program),
        'traced': [dataclasses.asdict(message) for message in traced],
        'table': audit.schedule_table(run, traced=traced, compiled=program.messages),
        'seconds': round(seconds, 1),
    }


def trace_for_gpus(
    config: Config, *, hosts: int, gpus: int, classes: int, target: str
) -> tuple[Run, jax.stages.Traced]:
    """Traces the config's step on a mesh of GPUs that are not here; arguments as those of `compile_step`."""
    prepare_backend((1, 1), deterministic=config.deterministic)
    jax.config.update('jax_platforms', 'cpu')  # with the plugin installed JAX would look for GPUs to run on
    jax.config.update('jax_enable_compilation_cache', False)  # programs for absent GPUs cannot be read from it
    # Slices, of which there is one, hosts, and GPUs of a host; devices come host after host.
    found = topologies.get_topology_desc(platform='cuda', topology=f'1x{hosts}x{gpus}', target_config=target)
    mesh = make_mesh(*config.mesh, one_weird_trick=config.parallelism == ONE_WEIRD_TRICK, devices=found.devices)
    run = build_run(config, num_classes=classes, examples=1, mesh=mesh)  # no data is read
    return run, audit.trace_step(run)


def main(request: str, response: str) -> None:
    """Does what the file `request` asks and writes the file `response`."""
    wanted = json.loads(pathlib.Path(request).read_text())
    values = {key: _make_tuples(value) for key, value in wanted.pop('config').items()}
    try:
        found = compile_step(Config(**values), **wanted)
    except jax.errors.JaxRuntimeError as error:
        found = {'refused': get_first_line(error)}
    except InputError as error:
        found = {'wrong': str(error)}
    pathlib.Path(response).write_text(json.dumps(found))


def _make_tuples(value: Any) -> Any:
    return tuple(map(_make_tuples, value)) if isinstance(value, list) else value


if __name__ == '__main__':
    main(*sys.argv[1:])
