"""Reads the text of a compiled program (HLO): instructions, which part of the network they are of, what they move."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterator

import jax.numpy as jnp

_COMPUTATION = re.compile(r'(ENTRY )?%?([\w.-]+) \(.*\) -> .*\{\s*$')
_INSTRUCTION = re.compile(r'\s+(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)')
_CALLED = re.compile(r'(?:calls|to_apply)=%?([\w.-]+)')
_NAME = re.compile(r'op_name="([^"]*)"')
_ARRAY = re.compile(r'\b([a-z]+\d*)\[([\d,]*)\](\{[^}]*\})?')
_DTYPES = {'f64': 'float64', 'f32': 'float32', 'f16': 'float16', 'bf16': 'bfloat16', 'pred': 'bool'} | {
    f'{short}{bits}': f'{long}{bits}' for short, long in (('s', 'int'), ('u', 'uint')) for bits in (8, 16, 32, 64)
}
# Instructions that name what is there already, or end what another began.
_BOOKKEEPING = {'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'conditional', 'after-all'}


class ProgramText:
    """The instructions of a compiled program, in the order of its text; one line each."""

    def __init__(self, text: str):
        self._lines: list[tuple[str, str]] = []
        self._defined: dict[str, re.Match[str]] = {}
        self._callers: dict[str, str] = {}
        self._entry = computation = ''
        for line in text.splitlines():
            header = _COMPUTATION.match(line)
            if header:
                computation = header[2]
                self._entry = computation if header[1] else self._entry
                continue
            self._lines.append((line, computation))
            instruction = _INSTRUCTION.match(line)
            if instruction:
                self._defined[instruction[1]] = instruction
                for called in _CALLED.findall(line):
                    self._callers.setdefault(called, line)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Each line, with the name of the computation that it is in."""
        return iter(self._lines)

    def scope(self, line: str, computation: str, wanted: re.Pattern[str]) -> str:
        """The op_name of an instruction; of one without, that of the nearest which it reads and that holds `wanted`.

        Compilers give no name to instructions of their own making. A computation reads what its caller reads.
        """
        own = _NAME.search(line)
        if own:
            return own[1]
        waiting, seen = deque([line, self._callers.get(computation, '')]), {line}
        while waiting:
            line = waiting.popleft()
            name = _NAME.search(line)
            if name and wanted.search(name[1]):
                return name[1]
            for operand in _operands(line):
                source = self._defined.get(operand)
                if source and source.string not in seen:
                    seen.add(source.string)
                    waiting.append(source.string)
        return ''

    def memory_traffic(self) -> int:
        """Bytes that one run reads from and writes to the device's main memory.

        What a layout places in memory on the chip, `S(1)`, is not counted but for its copies there and back. Each
        instruction is taken to read all of its operands once; of a conditional's branches the larger one counts.

        Raises:
          ValueError: the program has a loop, whose repetitions are not known here.
        """
        return self._traffic(self._entry)

    def _traffic(self, computation: str) -> int:
        total = 0
        for line, where in self._lines:
            instruction = _INSTRUCTION.match(line)
            if where != computation or not instruction:
                continue
            _, result, op, _ = instruction.groups()
            if op == 'while':
                raise ValueError(f'how often does this loop run? {line.strip()[:300]}')
            if op == 'conditional':
                total += max(self._traffic(name) for name in _branches(line))
            elif op in ('copy-start', 'slice-start'):  # two arrays, one of them perhaps a part of the other
                (a, a_inside), (b, b_inside), *_ = _arrays(result)
                total += min(a, b) * ((not a_inside) + (not b_inside))
            elif op not in _BOOKKEEPING and not op.endswith('-done'):
                operands = (self._defined[name][2] for name in _operands(line) if name in self._defined)
                shapes = (result, *operands)
                total += sum(size for shape in shapes for size, inside in _arrays(shape) if not inside)
        return total


def _operands(line: str) -> list[str]:
    return re.findall(r'%([\w.-]+)', line.partition(' = ')[2].partition('metadata=')[0])


def _branches(line: str) -> list[str]:
    listed = re.search(r'branch_computations=\{([^}]*)\}', line)
    named = re.findall(r'(?:true|false)_computation=%?([\w.-]+)', line)
    return re.findall(r'%?([\w.-]+)', listed[1]) if listed else named


def _arrays(shape: str) -> list[tuple[int, bool]]:
    """(bytes, whether on the chip) of each array of an instruction's result."""
    return [
        (itemsize(dtype) * math.prod(int(n) for n in sides.split(',') if n), re.search(r'S\([1-9]', layout) is not None)
        for dtype, sides, layout in _ARRAY.findall(shape)
    ]


def dtype_name(short: str) -> str:
    """NumPy's name of HLO's element type: 'float32' of 'f32'."""
    return _DTYPES.get(short, short)


def itemsize(short: str) -> int:
    """Bytes of one element of HLO's type `short`."""
    return jnp.dtype(dtype_name(short)).itemsize
