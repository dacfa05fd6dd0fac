"""Predicts a training step on GPUs that are not here, from the compiled program and what is published of them.

Nothing is run. The compiler for GPUs does not count operations: they are counted from the layers. Of the program's
kernels, which run one after another, each takes the longer of

    operations / the GPU's peak in the step's precision, TF32 for float32, of the layer's products alone
    bytes moved to and from memory / its bandwidth

and a message the longest of

    bytes received / bandwidth of the link to the other GPUs of the host, where it goes there
    bytes received / the group's GPUs in a host / a GPU's part of the host's network, where it goes to other hosts

A step is all kernels, and of each message what is longer than the kernels that are scheduled beside it. A real step
takes longer: no kernel keeps up a peak, the smallest take microseconds, and nothing is added for what starts late.
"""

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

from alexnet_jax.communication.cost_model import Prediction
from alexnet_jax.communication.gpu_compiler import Compiled, compile_for_gpus, parse_compiled
from alexnet_jax.communication.gpu_program import Kernel, format_kernels, format_overlaps, to_json
from alexnet_jax.communication.gpus import get_gpu, parse_hosts
from alexnet_jax.communication.messages import Message
from alexnet_jax.model.spec import get_layer_sizes
from alexnet_jax.sharding.mesh import DATA
from alexnet_jax.training.build import make_variant
from alexnet_jax.training.config import ONE_WEIRD_TRICK, Config


@dataclasses.dataclass(frozen=True)
class GpuPrediction(Prediction):
    """The terms of a step, in seconds, of which `links` is all messages; `link_bytes` are received over the link.

    Attributes:
      network_bytes: {axes: bytes that a GPU's part of the host's network receives}.
      axis_seconds: {axes: what messages along them take}.
      kernels: all kernels, one after another.
      exposed: messages, less what runs beside them.
    """

    network_bytes: dict[str, float]
    axis_seconds: dict[str, float]
    kernels: float
    exposed: float


def count_operations(config: Config, *, num_classes: int) -> dict[str, float]:
    """Counts what one device does of each layer's products in a step, {layer: operations}; two to a multiplication.

    A product for the output, one for the gradient of the weights unless they are frozen, and one for that of the input
    where a layer before it learns. Each tower's device does half of a layer, and all of fc8.
    """
    layers = get_layer_sizes(make_variant(config), num_classes=num_classes)
    weird = config.parallelism == ONE_WEIRD_TRICK
    images = config.batch_size / (config.mesh[0] * (config.mesh[1] if weird else 1))
    counts, learns = {}, False
    for layer in layers:
        products = 1 + (layer.name not in config.frozen) + learns
        learns = learns or layer.name not in config.frozen
        # With one weird trick a device has a part of the units of fc6 to fc8 and the images of all.
        parts = 1 if weird or layer.name == 'fc8' else config.mesh[1]
        counts[layer.name] = 2 * products * layer.macs * images / parts
    return counts


def predict_gpus(compiled: Compiled, config: Config, topology: str, *, num_classes: int) -> GpuPrediction:
    """Predicts the terms of a step of what was compiled of `config` for `topology`."""
    gpu, program = get_gpu(topology), compiled.program
    operations = count_operations(config, num_classes=num_classes)
    peak = gpu.get_peak(config.precision)
    share = _share_operations(program.kernels, operations)
    link_bytes: dict[str, float] = collections.defaultdict(float)
    network_bytes: dict[str, float] = collections.defaultdict(float)
    axis_seconds: dict[str, float] = collections.defaultdict(float)
    times = []
    for message in program.messages:
        inside, across = count_neighbours(config, message, topology)
        link = message.bytes if inside > 1 else 0.0
        network = message.bytes / inside if across else 0.0
        link_bytes[message.axis] += link
        network_bytes[message.axis] += network
        times.append(max(link / gpu.link_bandwidth, network / gpu.network_bandwidth))
        axis_seconds[message.axis] += times[-1]
    left = list(times)
    for kernel in program.kernels:
        time = _time_kernel(kernel, share, peak=peak, bandwidth=gpu.memory_bandwidth)
        for place in kernel.under:  # messages run one after another beside it
            hidden = min(left[place], time)
            left[place] -= hidden
            time -= hidden
    kernels = [_time_kernel(kernel, share, peak=peak, bandwidth=gpu.memory_bandwidth) for kernel in program.kernels]
    terms = {
        'compute': sum(operations.values()) / peak,
        'memory': count_traffic(compiled) / gpu.memory_bandwidth,
        'links': math.fsum(times),
    }
    return GpuPrediction(
        **terms,
        link_bytes=dict(link_bytes),
        network_bytes={axes: size for axes, size in network_bytes.items() if size},
        axis_seconds=dict(axis_seconds),
        kernels=math.fsum(kernels),
        exposed=math.fsum(left),
        step=math.fsum(kernels) + math.fsum(left),
        bound=max(terms, key=terms.__getitem__),
    )


def _share_operations(kernels: Iterable[Kernel], operations: Mapping[str, float]) -> dict[str, float]:
    """Shares out each layer's operations among its kernels alike: they do the same product with other operands.

    What layers without a kernel of their name need is shared by the products that are named after no layer.
    """
    products = collections.Counter(kernel.layer for kernel in kernels if kernel.product)
    named = {layer: operations[layer] / number for layer, number in products.items() if layer in operations}
    others = {layer: number for layer, number in products.items() if layer not in operations}
    rest = math.fsum(size for layer, size in operations.items() if layer not in products)
    return named | dict.fromkeys(others, rest / max(sum(others.values()), 1))


def _time_kernel(kernel: Kernel, share: dict[str, float], *, peak: float, bandwidth: float) -> float:
    return max(share.get(kernel.layer, 0.0) / peak if kernel.product else 0.0, kernel.traffic / bandwidth)


def count_traffic(compiled: Compiled) -> int:
    """Counts the bytes that all kernels move to and from memory."""
    return sum(kernel.traffic for kernel in compiled.program.kernels)


def count_neighbours(config: Config, message: Message, topology: str) -> tuple[int, bool]:
    """Counts the members of a message's group that are in one host, and tells whether it has others.

    Devices of the mesh, data x tower, come host after host.
    """
    _, each = parse_hosts(topology)
    data, second = config.mesh
    axes = {*message.axis.split(',')}
    rows, columns = range(data if DATA in axes else 1), range(second if axes - {DATA} else 1)
    hosts = collections.Counter((row * second + column) // each for row in rows for column in columns)
    return max(hosts.values()), len(hosts) > 1


def report_gpus(config: Config, topology: str, *, num_classes: int) -> tuple[dict[str, Any], str]:
    """Predicts the config's step on `topology`, as {name: value} for JSON and as text."""
    compiled = parse_compiled(compile_for_gpus(config, topology, num_classes=num_classes))
    predicted = predict_gpus(compiled, config, topology, num_classes=num_classes)
    figures = {
        'topology': topology,
        'traced': [dataclasses.asdict(message) for message in compiled.traced],
        'compiled': [dataclasses.asdict(message) for message in compiled.program.messages],
        'chip': dataclasses.asdict(get_gpu(topology)),
        'cost': make_cost(compiled, config, num_classes=num_classes),
        'kernels': to_json(compiled.program)['kernels'],
        'asynchronous': compiled.program.asynchronous,
        'prediction': dataclasses.asdict(predicted),
    }
    text = format_gpus(compiled, predicted, config, topology, num_classes=num_classes)
    return figures, f'{compiled.table}\n\n{text}'


def make_cost(compiled: Compiled, config: Config, *, num_classes: int) -> dict[str, float]:
    """Returns what a step costs a GPU, {name: operations or bytes}, as `cost_model.Cost` has it."""
    return {
        'operations': math.fsum(count_operations(config, num_classes=num_classes).values()),
        'traffic': count_traffic(compiled),
        'arguments': compiled.arguments,
        'temporaries': compiled.temporaries,
        'code': 0,  # this compiler does not say
    }


def format_gpus(
    compiled: Compiled, predicted: GpuPrediction, config: Config, topology: str, *, num_classes: int
) -> str:
    """Formats the kernels, what overlaps, and the prediction, a line for each resource."""
    gpu, cost = get_gpu(topology), make_cost(compiled, config, num_classes=num_classes)
    peak = gpu.get_peak(config.precision)
    unit = 'TF32' if config.precision == 'float32' else config.precision
    fits = '' if compiled.memory <= gpu.memory else ': IT DOES NOT FIT'

    def line(name: str, amount: str, rate: str, seconds: float) -> str:
        return f'{name:18}{amount:>18}   at most {rate:>24} {seconds * 1e3:9.3f} ms'

    lines = [
        f'one GPU of {topology}, by its compiler and by what is published of it (a prediction: nothing was run):',
        *format_kernels(compiled.program.kernels),
        'messages, and what the schedule has between their start and their end:',
        *format_overlaps(compiled.program),
        f'{"memory":18}{compiled.memory / 1e9:15.3f} GB of {gpu.memory / 1e9:.0f}{fits}: state and batch '
        f'{compiled.arguments / 1e9:.3f}, temporaries {compiled.temporaries / 1e9:.3f}',
        line(
            'arithmetic',
            f'{cost["operations"] / 1e9:.1f} GFLOP',
            f'{peak / 1e12:.1f} TFLOP/s in {unit}',
            predicted.compute,
        ),
        line(
            'memory traffic',
            f'{cost["traffic"] / 1e9:.3f} GB',
            f'{gpu.memory_bandwidth / 1e9:,.0f} GB/s',
            predicted.memory,
        ),
    ]
    for name, amounts, rate in (
        (gpu.link, predicted.link_bytes, gpu.link_bandwidth),
        ('network', predicted.network_bytes, gpu.network_bandwidth),
    ):
        lines += [
            line(f'{name}, {axes}', f'{size / 1e6:.2f} MB', f'{rate / 1e9:,.1f} GB/s', size / rate)
            for axes, size in amounts.items()
        ]
    lines += [
        f'predicted step: {predicted.step * 1e3:.3f} ms, {config.batch_size / predicted.step:,.0f} images/s: kernels '
        f'{predicted.kernels * 1e3:.3f} ms, one after another,',
        f'and of {predicted.links * 1e3:.3f} ms of messages {predicted.exposed * 1e3:.3f} with nothing beside them. '
        'A real one takes longer.',
    ]
    return '\n'.join(lines)
