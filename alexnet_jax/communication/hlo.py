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
_HLO_DTYPES |= {'c64': 'complex64', 'c128': 'complex128', 'f8e4m3fn': 'float8_e4m3fn', 'f8e5m2': 'float8_e5m2'}
_NO_ARRAYS = {'token', 'opaque'}
# What an asynchronous collective is written as: (what it takes, what it gives, ...); an all-reduce gives both as one.
_STARTS = (
    'all-gather',
    'reduce-scatter',
    'all-to-all',
    'ragged-all-to-all',
    'collective-permute',
    'collective-broadcast',
)
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
    """Parses what an instruction gives, one array or a tuple of them: 'f32[2,8]{1,0:T(8,128)S(1)}'.

    Raises:
      ValueError: an element type of unknown size.
    """
    arrays = []
    for dtype, sides, layout in _ARRAY.findall(text):
        if dtype in _NO_ARRAYS:
            continue
        if dtype not in _HLO_DTYPES:
            raise ValueError(f'of what size are the elements {dtype!r} in {text[:300]}?')
        shape = tuple(int(n) for n in sides.split(',') if n)
        arrays.append(ArrayType(_HLO_DTYPES[dtype], shape, re.search(r'S\([1-9]', layout) is not None))
    return arrays


def parse_result(op: str, text: str) -> list[ArrayType]:
    """Parses what an instruction gives; of a collective that only starts, 'reduce-scatter-start', what its end gives.

    Those are written with what they take before it, ((f32[2,8]), f32[1,8]), which is no message.

    Raises:
      ValueError: a type that such a collective is not known to have.
    """
    collective = op.removesuffix('-start')
    if collective == op or collective not in _STARTS:
        return parse_arrays(text)
    parts = _split_tuple(text)
    taken, given = (parse_arrays(part) for part in parts[:2]) if len(parts) > 1 else ([], [])
    # What may follow is what the hardware keeps count with: u32[].
    rest = [array for part in parts[2:] for array in parse_arrays(part)]
    if not given or len(taken) != len(given) or any(array.shape or array.dtype != 'uint32' for array in rest):
        raise ValueError(f'what does {op} give, of the type {text[:300]}?')
    return given


def _split_tuple(text: str) -> list[str]:
    """Splits '(a, (b, c))' into its parts, 'a' and '(b, c)'; none of what is no tuple."""
    parts, depth, start = [], 0, 1
    for place, character in enumerate(text if text.startswith('(') else ''):
        depth += (character in '([{') - (character in ')]}')
        if (character == ',' and depth == 1) or depth == 0:
            parts.append(text[start:place].strip())
            start = place + 1
    return parts


class Instruction(NamedTuple):
    """An instruction of a program's text, the whole of it in `line`; `type` is what it gives, `op` XLA's name."""

    name: str
    type: str
    op: str
    line: str


class ProgramText:
    """Indexes the instructions of a compiled program.

    Attributes:
      lines: (line, name of the computation that it is in), in the order of the text.
    """

    def __init__(self, text: str | None):
        """Reads the text; `ValueError` for a line of a computation that is no instruction."""
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
            if line.startswith('}'):
                computation = ''
            self.lines.append((line, computation))
            instruction = _INSTRUCTION.match(line)
            if computation and line.strip() and not instruction:
                raise ValueError(f'what instruction is this? {line.strip()[:300]}')
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
            return self.find_nearest(line, wanted, readers=True) or own[1]
        return (
            own[1] if own else self._find_nearest([line, self._callers.get(computation, '')], wanted, self._get_sources)
        )

    def find_nearest(self, line: str, wanted: re.Pattern[str], *, readers: bool) -> str:
        """Finds the op_name of the nearest that reads an instruction, or that it reads, which holds `wanted`; or ''."""
        return self._find_nearest([line], wanted, self._get_readers if readers else self._get_sources)

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

    def operands(self, line: str) -> list[Instruction]:
        """Lists the instructions whose results one reads, those of them that are in the text."""
        found = [self._defined[operand] for operand in _operands(line) if operand in self._defined]
        return [Instruction(match[1], match[2], match[3], match.string) for match in found]

    def read_arrays(self, line: str) -> list[ArrayType]:
        """Lists the arrays that an instruction reads, once each, whatever the names and shapes by which it does."""
        read = {}
        for operand in self.operands(line):
            source = operand
            while source.op == 'bitcast' and (given := self.operands(source.line)):
                source = given[0]
            read[source.name] = operand.type
        return [array for text in read.values() for array in parse_arrays(text)]

    def instructions(self, computation: str | None = None) -> list[Instruction]:
        """Lists the instructions of `computation` (None: the program), in the order that a schedule gives them."""
        found = [_INSTRUCTION.match(line) for line, where in self.lines if where == (computation or self._entry)]
        return [Instruction(match[1], match[2], match[3], match.string) for match in found if match]

    def called_instructions(self, line: str) -> list[Instruction]:
        """Lists the instructions of the computation that one calls, a fusion's parts."""
        return [inner for name in _CALLED.findall(line) for inner in self.instructions(name)]

    def names(self, wanted: re.Pattern[str]) -> set[str]:
        """Lists what `wanted` finds in the names of all instructions."""
        found = (name and wanted.search(name[1]) for name in map(_NAME.search, (line for line, _ in self.lines)))
        return {match[1] for match in found if match}

    def joined_arrays(self, line: str) -> list[ArrayType]:
        """Lists the types of the arrays that an instruction reads, a concatenation's parts one by one."""
        arrays: list[Instruction] = []
        for operand in self.operands(line):
            inner = {part.op for part in self.called_instructions(operand.line)} - {'parameter', 'bitcast', 'reshape'}
            joined = operand.op == 'concatenate' or inner == {'concatenate'}
            arrays += self.operands(operand.line) if joined else [operand]
        return [array for operand in arrays for array in parse_arrays(operand.type)]

    def names_updated(self, line: str, wanted: re.Pattern[str]) -> set[str]:
        """Lists what `wanted` finds in the names of the program's parameters that what an instruction gives changes.

        Of each part of it, a slice or one of several arrays, it is the nearest parameter of the part's size that meets
        it in an instruction of a result of that size: that is what a gradient is for, whatever it is named after.
        """
        parts = self._get_readers(line)
        while len(parts) == 1 and _INSTRUCTION.match(parts[0])[3].endswith('-done'):  # type: ignore[index]
            parts = self._get_readers(parts[0])
        found = {self._find_updated(part, wanted) for part in parts}
        return found - {''}

    def _find_updated(self, part: str, wanted: re.Pattern[str]) -> str:
        size = _count_elements(_INSTRUCTION.match(part)[2])[:1]  # type: ignore[index]
        waiting, seen = deque([part]), {part}
        while waiting:
            line = waiting.popleft()
            if {*size} & {*_count_elements(_INSTRUCTION.match(line)[2])}:  # type: ignore[index]
                for operand in self.operands(line):
                    name = _NAME.search(operand.line) if operand.op == 'parameter' else None
                    match = wanted.search(name[1]) if name and _count_elements(operand.type) == size else None
                    if match:
                        return match[1]
            new = [reader for reader in self._get_readers(line) if reader not in seen]
            seen.update(new)
            waiting.extend(new)
        return ''

    def memory_traffic(self, computation: str | None = None) -> int:
        """Counts the bytes that one run of `computation` (None: the program) moves to and from main memory.

        What a layout places in memory on the chip, `S(1)`, is not counted but for its copies there and back. Each
        instruction is taken to read all of its operands once; of a conditional's branches the larger one counts.

        Raises:
          ValueError: the program has a loop, whose repetitions are not known here.
        """
        return sum(self.count_traffic(instruction) for instruction in self.instructions(computation))

    def count_traffic(self, instruction: Instruction) -> int:
        """Counts what one instruction moves, as `memory_traffic`."""
        _, result, op, line = instruction
        if op == 'while':
            raise ValueError(f'how often does this loop run? {line.strip()[:300]}')
        if op == 'conditional':
            return max(self.memory_traffic(name) for name in _branches(line))
        if op in ('call', 'async-start'):
            return sum(self.memory_traffic(name) for name in _CALLED.findall(line))
        if op in ('copy-start', 'slice-start'):  # two arrays, one of them perhaps a part of the other
            a, b, *_ = parse_arrays(result)
            return min(a.bytes, b.bytes) * ((not a.on_chip) + (not b.on_chip))
        if op in _BOOKKEEPING or op.endswith('-done'):
            return 0
        moved = (*parse_result(op, result), *self.read_arrays(line))
        return sum(array.bytes for array in moved if not array.on_chip)


def _count_elements(text: str) -> list[int]:
    return [math.prod(array.shape) for array in parse_arrays(text)]


def _operands(line: str) -> list[str]:
    return re.findall(r'%([\w.-]+)', line.partition(' = ')[2].partition('metadata=')[0])


def _branches(line: str) -> list[str]:
    listed = re.search(r'branch_computations=\{([^}]*)\}', line)
    named = re.findall(r'(?:true|false)_computation=%?([\w.-]+)', line)
    return re.findall(r'%?([\w.-]+)', listed[1]) if listed else named
