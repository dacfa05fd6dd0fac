"""Reads what XLA's compiler for GPUs made of a step: its kernels, whose they are, and what runs under each message."""

import collections
import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from jax.sharding import Mesh

from alexnet_jax.communication.hlo import Instruction, ProgramText
from alexnet_jax.communication.messages import Message, iter_messages

_KIND = re.compile(r'"kind":"__triton(\w*)"')
_TARGET = re.compile(r'custom_call_target="__(\w+)\$([\w$]+)"')
_ACTIVATION = re.compile(r'"activation_mode":"k(\w+)"')
_NAME = re.compile(r'op_name="([^"]*)"')
LAYER = re.compile(r'(?:\b|_)((?:conv|fc)\d)\b')
_SYNCHRONOUS = '"is_sync":true'
_LIBRARIES = {'cudnn': 'cuDNN', 'cublas': 'cuBLAS'}
_PRODUCTS = {'dot', 'convolution'}
# Instructions that are no kernel of their own.
_NO_KERNELS = {
    'parameter',
    'constant',
    'tuple',
    'get-tuple-element',
    'bitcast',
    'partition-id',
    'replica-id',
    'after-all',
}


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One instruction of the program's schedule that a GPU runs.

    Attributes:
      name: the instruction's.
      library: whose code it is: 'cuDNN', 'cuBLAS', 'Triton' or XLA's own, 'XLA'.
      what: the library's name of it, 'convBackwardFilter', 'nested_gemm_fusion'; XLA's instruction of its own.
      layer: which layer it is named after; '' for none.
      direction: 'forward', or 'backward' where differentiation put it.
      product: whether it is one of the layers' products, a convolution or a product of matrices.
      traffic: bytes that it moves to and from memory: its operands and its results, once each.
      under: the messages, by their place in the schedule, that are on their way while it runs.
    """

    name: str
    library: str
    what: str
    layer: str
    direction: str
    product: bool
    traffic: int
    under: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class GpuProgram:
    """The kernels and the messages of a program, in the order of its schedule.

    Attributes:
      asynchronous: of each message, whether anything may run between its start and its end.
    """

    kernels: list[Kernel]
    messages: list[Message]
    asynchronous: list[bool]


def read_gpu_program(text: str | None, mesh: Mesh) -> GpuProgram:
    """Reads a compiled program for GPUs, `.compile().as_text()`.

    Raises:
      ValueError: what is not understood: a library, a message outside the schedule, a text that has none.
    """
    program = ProgramText(text)
    if 'is_scheduled=true' not in str(text).partition('\n')[0]:
        raise ValueError('this program has no schedule: in which order do its kernels run?')
    said = dict(iter_messages(program, mesh))
    kernels: list[Kernel] = []
    messages: list[Message] = []
    asynchronous: list[bool] = []
    under: dict[str, int] = {}  # messages on their way, by the instruction that started them
    for instruction in program.instructions():
        if instruction.line in said:
            messages.append(said.pop(instruction.line))
            asynchronous.append(instruction.op.endswith('-start') and _SYNCHRONOUS not in instruction.line)
            if asynchronous[-1]:
                under[instruction.name] = len(messages) - 1
        elif instruction.op.endswith('-done'):
            for operand in program.operands(instruction.line):
                under.pop(operand.name, None)
        elif instruction.op not in _NO_KERNELS:
            kernels.append(_read_kernel(program, instruction, tuple(under.values())))
    if said or under:
        raise ValueError(f'is no part of the schedule, or does not end: {next(iter([*said, *under])).strip()[:300]}')
    return GpuProgram(kernels, messages, asynchronous)


def _read_kernel(program: ProgramText, instruction: Instruction, under: tuple[int, ...]) -> Kernel:
    line, library, what = instruction.line, 'XLA', instruction.op
    inner = program.called_instructions(line)
    product = bool(_PRODUCTS & {instruction.op, *(part.op for part in inner)})
    if instruction.op == 'custom-call':
        target = _TARGET.search(line)
        if not target or target[1] not in _LIBRARIES:
            raise ValueError(f'whose kernel is this? {line.strip()[:300]}')
        library, what, product = _LIBRARIES[target[1]], target[2], True
        activation = _ACTIVATION.search(line)
        if what == 'convBiasActivationForward' and activation:
            what = f'convBias{"" if activation[1] == "None" else activation[1]}Forward'
    elif kind := _KIND.search(line):
        library, what = 'Triton', kind[1].strip('_') or 'fusion'
        product = product or 'gemm' in what
    name = _NAME.search(line)
    layer = LAYER.search(name[1]) if name else None
    return Kernel(
        name=instruction.name,
        library=library,
        what=what,
        layer=layer[1] if layer else '',
        direction='backward' if name and 'transpose(' in name[1] else 'forward',
        product=product,
        traffic=program.count_traffic(instruction),
        under=under,
    )


def format_kernels(kernels: Iterable[Kernel]) -> list[str]:
    """Formats how many kernels are whose, and what each library does for which layers."""
    kernels = list(kernels)
    lines = []
    for library in sorted({kernel.library for kernel in kernels}):
        own = [kernel for kernel in kernels if kernel.library == library]
        moved = sum(kernel.traffic for kernel in own)
        lines.append(f'{library + ":":8}{len(own):>4} kernels, {moved / 1e9:.2f} GB')
        if library == 'XLA':
            continue
        calls: collections.defaultdict[str, list[str]] = collections.defaultdict(list)
        for kernel in own:
            calls[f'{kernel.what} {kernel.direction}'].append(kernel.layer or kernel.name)
        lines += [f'  {len(layers)} x {what}: {", ".join(layers)}' for what, layers in calls.items()]
    return lines


def format_overlaps(program: GpuProgram) -> list[str]:
    """Formats what is scheduled between the start and the end of each message."""
    lines = []
    for place, (message, free) in enumerate(zip(program.messages, program.asynchronous, strict=True)):
        own = [kernel for kernel in program.kernels if place in kernel.under]
        where = f'  {message.op} {message.direction} at {message.layer or "all"}: '
        if not free:
            lines.append(f'{where}synchronous')
            continue
        products = [f'{kernel.layer or kernel.name} ({kernel.library})' for kernel in own if kernel.product]
        beside = f', {sum(kernel.traffic for kernel in own) / 1e6:,.1f} MB' if own else ''
        lines.append(f'{where}{len(own)} kernels beside it{beside}{": " if products else ""}{", ".join(products)}')
    return lines


def to_json(program: GpuProgram) -> dict[str, Any]:
    """Returns the program as JSON has it."""
    return dataclasses.asdict(program)


def from_json(found: dict[str, Any]) -> GpuProgram:
    """Returns the program that `to_json` gave."""
    kernels = [Kernel(**{**kernel, 'under': tuple(kernel['under'])}) for kernel in found['kernels']]
    return GpuProgram(kernels, [Message(**message) for message in found['messages']], found['asynchronous'])
