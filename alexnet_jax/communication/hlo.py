"""Reads the text of a compiled program (HLO): instructions, which part of the network they are of, what they move."""

import math
import re
from collections import defaultdict, deque
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

_COMPUTATION = re.compile(r'(ENTRY )?%?([\w.-]+) \(.*\) -> .*\{\s*$')
_INSTRUCTION = re.compile(r'\s+(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)')
_CALLED = re.compile(r'(?:calls|to_apply)=%?([\w.-]+)')
_NAME = re.compile(r'op_name="([^"]*)"')
_BY_PARTITIONER = 'is_spmd_generated="true"'
_ARRAY = re.compile(r'\b([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?')
_HLO_DTYPES = {'f64': 'float64', 'f32': 'float32', 'f16': 'float16', 'bf16': 'bfloat16', 'pred': 'bool'} | {
    f'{short}{bits}': f'{long}{bits}' for short, long in (('s', 'int'), ('u', 'uint')) for bits in (8, 16, 32, 64)
}
# Instructions that name what is there already, or end what another began.
_BOOKKEEPING = {'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'conditional', 'after-all'}


class ArrayType(NamedTuple):
    """The type of an array that an instruction gives; `dtype` is NumPy's name of it."""

    dtype: str
    shape: tuple[int, ...]
    on_chip: bool = False

    @property
    def bytes(self) -> int:
        """What the array takes."""
        return jnp.dtype(self.dtype).itemsize * math.prod(self.shape)


def parse_arrays(text: str) -> list[ArrayType]:
    """Parses what an instruction gives, one array or a tuple of them: 'f32[2,8]{1,0:T(8,128)S(1)}'."""
    arrays = []
    for dtype, sides, layout in _ARRAY.findall(text):
        shape = tuple(int(n) for n in sides.split(',') if n)
        arrays.append(ArrayType(_HLO_DTYPES.get(dtype, dtype), shape, re.search(r'S\([1-9]', layout) is not None))
    return arrays


class ProgramText:
    """Indexes the instructions of a compiled program.

    Attributes:
      lines: (line, name of the computation that it is in), in the order of the text.
    """

    def __init__(self, text: str | None):
        assert text, 'this backend does not show its compiled programs'
        self.lines: list[tuple[str, str]] = []
        self._defined: dict[str, re.Match[str]] = {}
        self._callers: dict[str, str] = {}
        self._readers: defaultdict[str, list[str]] = defaultdict(list)  # lines, by what they read
        self._entry = computation = ''
        for line in text.splitlines():
            header = _COMPUTATION.match(line)
            if header:
                computation = header[2]
                self._entry = computation if header[1] else self._entry
                continue
            self.lines.append((line, computation))
            instruction = _INSTRUCTION.match(line)
            if instruction:
                self._defined[instruction[1]] = instruction
                for called in _CALLED.findall(line):
                    self._callers.setdefault(called, line)
                for operand in _operands(line):
                    self._readers[operand].append(line)

    def scope(self, line: str, computation: str, wanted: re.Pattern[str]) -> str:
        """Finds the op_name of an instruction; of one without, that of the nearest it reads which holds `wanted`.

        Compilers give no name to instructions of their own making. A computation reads what its caller reads. Since
        jaxlib 0.11 the partitioner names what it adds after what that reads, although it is there for what comes
        next: where that name does not hold `wanted`, the nearest that reads the instruction and does is taken.
        """
        own = _NAME.search(line)
        if own and _BY_PARTITIONER in line and not wanted.search(own[1]):
            return self._find_nearest([line], wanted, self._get_readers) or own[1]
        return (
            own[1] if own else self._find_nearest([line, self._callers.get(computation, '')], wanted, self._get_sources)
        )

    def _find_nearest(self, lines: list[str], wanted: re.Pattern[str], get_next: Callable[[str], list[str]]) -> str:
        waiting, seen = deque(lines), set(lines)
        while waiting:
            line = waiting.popleft()
            name = _NAME.search(line)
            if name and wanted.search(name[1]):
                return name[1]
            new = [following for following in get_next(line) if following not in seen]
            seen.update(new)
            waiting.extend(new)
        return ''

    def _get_sources(self, line: str) -> list[str]:
        return [self._defined[operand].string for operand in _operands(line) if operand in self._defined]

    def _get_readers(self, line: str) -> list[str]:
        instruction = _INSTRUCTION.match(line)
        return self._readers[instruction[1]] if instruction else []

    def memory_traffic(self, computation: str | None = None) -> int:
        """Counts the bytes that one run of `computation` (None: the program) moves to and from main memory.

        What a layout places in memory on the chip, `S(1)`, is not counted but for its copies there and back. Each
        instruction is taken to read all of its operands once; of a conditional's branches the larger one counts.

        Raises:
          ValueError: the program has a loop, whose repetitions are not known here.
        """
        total = 0
        for line, where in self.lines:
            instruction = _INSTRUCTION.match(line)
            if where != (computation or self._entry) or not instruction:
                continue
            _, result, op, _ = instruction.groups()
            if op == 'while':
                raise ValueError(f'how often does this loop run? {line.strip()[:300]}')
            if op == 'conditional':
                total += max(self.memory_traffic(name) for name in _branches(line))
            elif op in ('copy-start', 'slice-start'):  # two arrays, one of them perhaps a part of the other
                a, b, *_ = parse_arrays(result)
                total += min(a.bytes, b.bytes) * ((not a.on_chip) + (not b.on_chip))
            elif op not in _BOOKKEEPING and not op.endswith('-done'):
                operands = [self._defined[name][2] for name in _operands(line) if name in self._defined]
                moved = [array for text in (result, *operands) for array in parse_arrays(text)]
                total += sum(array.bytes for array in moved if not array.on_chip)
        return total


def _operands(line: str) -> list[str]:
    return re.findall(r'%([\w.-]+)', line.partition(' = ')[2].partition('metadata=')[0])


def _branches(line: str) -> list[str]:
    listed = re.search(r'branch_computations=\{([^}]*)\}', line)
    named = re.findall(r'(?:true|false)_computation=%?([\w.-]+)', line)
    return re.findall(r'%?([\w.-]+)', listed[1]) if listed else named
