"""What one GPU's step moves to and from memory, kernel by kernel as compiled, beside the least that its layers need.

    python -m experiments.gpu_traffic --config=configs/one_device.py:imagenet2012 --config.precision=bfloat16 \
        --config.batch_size=1024 [--topology=h100:1] [--kernels] [--plain]

Needs the extra gpu-compiler, and no GPU. The least is by this rule: a product, that is a convolution or a product of
matrices, is a kernel of its own, with the bias and the activation behind it and the activation's slope before it. What
else stands between two products is one kernel. Each kernel reads what it needs once and writes what others need once:
maps and the gradients of weights in the precision of the products, weights and momenta in float32. Nothing is kept for
the gradient but maps, nothing is computed twice, and of biases and logits nothing is counted.
"""

import collections
import math
import re

import jax.numpy as jnp
from absl import app, flags
from ml_collections import config_flags

from alexnet_jax.communication import gpu_compiler
from alexnet_jax.communication.gpu_program import LAYER, read_gpu_program
from alexnet_jax.communication.gpu_worker import trace_for_gpus
from alexnet_jax.communication.gpus import find_target, get_gpu, parse_hosts
from alexnet_jax.communication.hlo import Instruction, ProgramText
from alexnet_jax.errors import InputError
from alexnet_jax.model import ops
from alexnet_jax.model.spec import Activation, Conv, Variant, get_layer_sizes
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.training import step
from alexnet_jax.training.validation import validate_config

_CONFIG = config_flags.DEFINE_config_file('config', 'configs/one_device.py:imagenet2012')
_TOPOLOGY = flags.DEFINE_string('topology', 'h100:1', 'One GPU that is not here.')
_KERNELS = flags.DEFINE_bool('kernels', False, 'List every kernel that moves 1 MB.')
_PLAIN = flags.DEFINE_bool('plain', False, 'The forms of model.ops in place of those for GPUs.')
CLASSES = 1000
INPUT, UPDATE = ('', 'input'), ('', 'update')
FORWARD, BETWEEN, BACKWARD, BETWEEN_BACK = 'forward', 'forward, between', 'backward', 'backward, between'
_NAME = re.compile(r'op_name="([^"]*)"')
_PASSED_ON = {'bitcast', 'get-tuple-element', 'tuple'}

Group = tuple[str, str]  # a layer and which of its parts


def count_least(variant: Variant, *, images: int, itemsize: int, classes: int = CLASSES) -> dict[Group, int]:
    """Counts the least bytes of each part of a step, {(layer, part): bytes}, by the rule above.

    Args:
      images: of the batch, all on one device.
      itemsize: bytes of a number in products.
    """
    pixels = images * 3 * variant.input_size**2
    least = {INPUT: pixels * (1 + itemsize)}
    given, before, parameters = pixels, True, 0  # what a layer reads; whether what is before it masks its own gradient
    for layer, size in zip(variant.layers, get_layer_sizes(variant, num_classes=classes), strict=True):
        read, left = given, images * math.prod(size.output)
        made, between = left, False
        if isinstance(layer, Conv):
            made = images * layer.features * size.macs // size.weights  # before it is pooled
            between = not all(isinstance(operation, Activation) for operation in layer.then)
        weights = 4 * size.weights
        least[layer.name, FORWARD] = itemsize * (read + made) + weights
        least[layer.name, BACKWARD] = itemsize * (read + made + size.weights)
        if layer.name != variant.layers[0].name:
            least[layer.name, BACKWARD] += itemsize * (made + read * (1 if before else 2)) + weights
        if between:
            least[layer.name, BETWEEN] = itemsize * (made + left)
            least[layer.name, BETWEEN_BACK] = itemsize * (left + 2 * made)
        given, before = left, between
        parameters += size.weights
    return least | {UPDATE: parameters * (4 * 4 + itemsize)}


def count_kernels(text: str) -> list[tuple[str, str, Group, int, int]]:
    """Lists the kernels of a compiled program: (name, whose and what, part, bytes read, bytes written)."""
    program = ProgramText(text)
    found: dict[str, Group] = {}
    rows = []
    kernels = {kernel.name: kernel for kernel in read_gpu_program(text, make_mesh(1, 1)).kernels}
    for instruction in program.instructions():
        if instruction.name not in kernels:
            continue
        kernel = kernels[instruction.name]
        group = _find_group(program, instruction, found, product=kernel.product, direction=kernel.direction)
        found[instruction.name] = group
        read = sum(array.bytes for array in program.read_arrays(instruction.line))
        rows.append((kernel.name, f'{kernel.library} {kernel.what}', group, read, kernel.traffic - read))
    return rows


def _find_group(
    program: ProgramText, instruction: Instruction, found: dict[str, Group], *, product: bool, direction: str
) -> Group:
    own = (_NAME.search(instruction.line) or ['', ''])[1]
    sources = _find_sources(program, instruction)
    given = [(_NAME.search(source.line) or ['', ''])[1] for source in sources if source.op == 'parameter']
    if any('opt_state' in name for name in given) or (not own and UPDATE in map(found.get, (s.name for s in sources))):
        return UPDATE
    if 'batch.images' in given:
        return INPUT
    back, weights = direction == 'backward', '_parameters/' in own
    name = own if LAYER.search(own) else program.find_nearest(instruction.line, LAYER, readers=back or weights)
    layer = (LAYER.search(name) or ['', ''])[1]
    if product or weights:
        return layer, BACKWARD if back else FORWARD
    return layer, BETWEEN_BACK if back else BETWEEN


def _find_sources(program: ProgramText, instruction: Instruction) -> list[Instruction]:
    """Lists the instructions that computed what one reads."""
    sources = []
    for operand in program.operands(instruction.line):
        while operand.op in _PASSED_ON and (given := program.operands(operand.line)):
            operand = given[0]
        sources.append(operand)
    return sources


def format_traffic(rows: list[tuple[str, str, Group, int, int]], least: dict[Group, int]) -> str:
    """Formats what each part moves, in how many kernels, beside the least, in the order of the least; then the sum."""
    moved: collections.Counter[Group] = collections.Counter()
    counts = collections.Counter(group for _, _, group, _, _ in rows)
    for _, _, group, read, written in rows:
        moved[group] += read + written
    lines = [f'{"layer":8}{"part":20}{"kernels":>8}{"MB":>11}{"least":>11}{"times":>7}']
    for group in [*least, *sorted(moved.keys() - least.keys())]:
        layer, part = group
        floor = least.get(group, 0)
        times = f'{moved[group] / floor:7.2f}' if floor else f'{"-":>7}'
        size = f'{moved[group] / 1e6:>11,.1f}{floor / 1e6:>11,.1f}'
        lines.append(f'{layer:8}{part:20}{counts[group]:>8}{size}{times}')
    total, floor = sum(moved.values()), sum(least.values())
    lines.append(f'{"all":28}{sum(counts.values()):>8}{total / 1e6:>11,.1f}{floor / 1e6:>11,.1f}{total / floor:>7.2f}')
    return '\n'.join(lines)


def main(_: list[str]) -> None:
    """Compiles the step of the run that --config describes, and prints its account."""
    config, topology = validate_config(_CONFIG.value), _TOPOLOGY.value
    gpu_compiler.check_compiler()
    if config.mesh != (1, 1) or parse_hosts(topology) != (1, 1) or config.accumulate > 1:
        raise InputError('this account is of one GPU and a batch at once: --config=configs/one_device.py:imagenet2012')
    if _PLAIN.value:
        step.find_operations = lambda mesh: ops
    target = find_target(get_gpu(topology)).read_text()
    run, traced = trace_for_gpus(config, hosts=1, gpus=1, classes=CLASSES, target=target)
    text = traced.lower().compile().as_text()
    assert text, 'this compiler does not show its programs'
    rows = count_kernels(text)
    forms = 'plain' if _PLAIN.value else "GPUs'"
    print(f'{run.variant.name}, {config.precision}, {config.batch_size} images, one GPU of {topology}, {forms} forms:')
    if _KERNELS.value:
        print(f'{"kernel":40}{"what":32}{"part":30}{"MB read":>10}{"written":>10}')
        for name, what, (layer, part), read, written in rows:
            if read + written >= 1e6:
                print(f'{name:40}{what:32}{f"{layer} {part}":30}{read / 1e6:>10,.1f}{written / 1e6:>10,.1f}')
    itemsize = jnp.dtype(config.precision).itemsize
    print(format_traffic(rows, count_least(run.variant, images=config.batch_size, itemsize=itemsize)))


if __name__ == '__main__':
    app.run(main)
