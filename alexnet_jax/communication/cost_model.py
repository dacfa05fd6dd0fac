"""Predicts what a training step would cost on TPU chips that are not here, from the compiled program's figures.

Nothing is run. The compiler of the real chips says how many operations the program does and how much memory it takes;
its text says what the chips send each other and what each moves to and from its memory. Divided by what is published
of the chips (`communication/chips.py`), that is a time:

    compute = operations / the chip's peak in bfloat16, in which it multiplies float32 too unless told otherwise
    memory  = bytes moved to and from HBM / its bandwidth
    links   = sum over messages of (bytes received / links that lead there) / the bandwidth of a link
    step    = max(compute, memory) + links

A real step takes longer: no chip keeps up its peak, and nothing is added for what waits or starts late. Computing and
moving overlap in the best case; the layers around a message wait for it, so messages are added.
"""

import collections
import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import jax
from jax.sharding import Mesh

from alexnet_jax.communication import audit
from alexnet_jax.communication.hlo import ProgramText
from alexnet_jax.communication.messages import Message, compiled_schedule, traced_schedule
from alexnet_jax.communication.topology import count_links, get_chip, make_topology_devices
from alexnet_jax.errors import InputError
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.training.build import Run, build_run
from alexnet_jax.training.config import ONE_WEIRD_TRICK, Config


class TooLargeError(InputError):
    """The step does not fit into a chip's memory."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What the compiler makes of the step, for one chip; all but `operations` in bytes.

    Attributes:
      operations: floating-point ones, of multiplications with padding none.
      traffic: moved to and from HBM.
      arguments: the state and the batch.
      temporaries: on top of that while it runs.
      code: the program itself.
    """

    operations: float
    traffic: int
    arguments: int
    temporaries: int
    code: int

    @property
    def memory(self) -> int:
        """Bytes of HBM that the step needs; its results take the place of its arguments."""
        return self.arguments + self.temporaries + self.code


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The terms of a step and the whole `step`, in seconds; the module says how they are calculated.

    Attributes:
      link_bytes: {axes: bytes over each of a chip's links that messages along them take}.
      bound: the name of the largest term.
    """

    compute: float
    memory: float
    links: float
    link_bytes: dict[str, float]
    step: float
    bound: str


def build_topology_run(config: Config, topology: str, *, num_classes: int) -> Run:
    """Builds the config's run on the first chips of `topology`; `InputError` where they cannot be had."""
    weird, devices = config.parallelism == ONE_WEIRD_TRICK, make_topology_devices(topology)
    mesh = make_mesh(*config.mesh, one_weird_trick=weird, devices=devices)
    return build_run(config, num_classes=num_classes, examples=1, mesh=mesh)  # no data is read


def compile_for(lowered: jax.stages.Lowered, mesh: Mesh) -> tuple[list[Message], Cost]:
    """Compiles for the mesh's chips, which takes a minute, and reads what the compiler made of it.

    Raises:
      TooLargeError: it does not fit into a chip's memory.
    """
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        said = str(error).splitlines()[0]
        raise TooLargeError(f'the step does not fit into a chip ({said}): use more chips or fewer images') from error
    used, counted, text = compiled.memory_analysis(), compiled.cost_analysis(), compiled.as_text()
    assert used and counted, 'this compiler does not say what its programs cost'
    return compiled_schedule(text, mesh), Cost(
        operations=counted['flops'],
        traffic=ProgramText(text).memory_traffic(),
        arguments=used.argument_size_in_bytes,
        temporaries=max(used.temp_size_in_bytes, used.peak_memory_in_bytes - used.argument_size_in_bytes),
        code=used.generated_code_size_in_bytes,
    )


def predict(cost: Cost, messages: Iterable[Message], mesh: Mesh, topology: str) -> Prediction:
    """Predicts the terms of a step of a program that was compiled for `mesh`, on the chips of `topology`."""
    chip = get_chip(topology)
    link_bytes: dict[str, float] = collections.defaultdict(float)
    for message in messages:
        link_bytes[message.axis] += message.bytes / count_links(mesh, tuple(message.axis.split(',')), topology)
    terms = {
        'compute': cost.operations / chip.flops,
        'memory': cost.traffic / chip.memory_bandwidth,
        'links': math.fsum(link_bytes.values()) / chip.link_bandwidth,
    }
    step = max(terms['compute'], terms['memory']) + terms['links']
    return Prediction(**terms, link_bytes=dict(link_bytes), step=step, bound=max(terms, key=terms.__getitem__))


def report_prediction(config: Config, topology: str, *, num_classes: int) -> tuple[dict[str, Any], str]:
    """Predicts the config's step on `topology`, as {name: value} for JSON and as text."""
    run = build_topology_run(config, topology, num_classes=num_classes)
    traced_step = audit.trace_step(run)
    compiled, cost = compile_for(traced_step.lower(), run.mesh)
    traced = traced_schedule(traced_step.jaxpr, run.mesh)
    predicted = predict(cost, compiled, run.mesh, topology)
    figures = {
        'topology': topology,
        'traced': [dataclasses.asdict(message) for message in traced],
        'compiled': [dataclasses.asdict(message) for message in compiled],
        'chip': dataclasses.asdict(get_chip(topology)),
        'cost': dataclasses.asdict(cost),
        'prediction': dataclasses.asdict(predicted),
    }
    table = audit.schedule_table(run, traced=traced, compiled=compiled)
    return figures, f'{table}\n\n{format_prediction(cost, predicted, topology, images=config.batch_size)}'


def format_prediction(cost: Cost, predicted: Prediction, topology: str, *, images: int) -> str:
    """Formats a prediction for a step of `images` images, a line for each resource."""
    chip = get_chip(topology)
    lines = [
        f'one chip of {topology}, by its compiler and by what is published of it (a prediction: nothing was run):',
        f'{"memory":18}{cost.memory / 1e9:8.2f} GB of {chip.memory / 1e9:.0f}: state and batch '
        f'{cost.arguments / 1e9:.2f}, temporaries {cost.temporaries / 1e9:.2f}, program {cost.code / 1e9:.2f}',
        f'{"arithmetic":18}{cost.operations / 1e9:8.1f} GFLOP    at most {chip.flops / 1e12:4.0f} TFLOP/s '
        f'{predicted.compute * 1e3:9.3f} ms',
        f'{"HBM":18}{cost.traffic / 1e9:8.2f} GB       at most {chip.memory_bandwidth / 1e9:4.0f} GB/s    '
        f'{predicted.memory * 1e3:9.3f} ms',
    ]
    for axes, size in predicted.link_bytes.items():
        rate, time = f'{chip.link_bandwidth / 1e9:4.0f} GB/s', size / chip.link_bandwidth * 1e3
        lines.append(f'link, {axes:12}{size / 1e6:8.2f} MB       at most {rate}    {time:9.3f} ms')
    lines.append(
        f'predicted step: {predicted.step * 1e3:.3f} ms, bound by {predicted.bound}; '
        f'{images / predicted.step:,.0f} images/s. A real one takes longer.'
    )
    return '\n'.join(lines)
