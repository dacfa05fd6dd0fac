"""Unpickles what torch.save pickles, without PyTorch and without running anything of the file.

A pickle is a program: unpickled as it is, it may call whatever it names. Here it is carried out on dictionaries, lists,
numbers, texts and descriptions of tensors alone; whatever else a trainer kept beside them becomes an `Unread`.
"""

import io
import pickle
import pickletools
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

MAX_PROGRAM = 2**20  # bytes; AlexNet's has two thousand
_DAMAGED = (  # what the unpickler raises
    *(pickle.UnpicklingError, struct.error, EOFError, OverflowError),
    *(ValueError, LookupError, TypeError, AttributeError),
)
STORAGES = {
    'torch.FloatStorage': '<f4',
    'torch.HalfStorage': '<f2',
    'torch.DoubleStorage': '<f8',
    'torch.BFloat16Storage': '<u2',  # the upper half of a float32
    'torch.LongStorage': '<i8',
    'torch.IntStorage': '<i4',
    'torch.ShortStorage': '<i2',
    'torch.CharStorage': 'i1',
    'torch.ByteStorage': 'u1',
    'torch.BoolStorage': '?',
}
_DICT = 'collections.OrderedDict'
_TENSORS = ('torch._utils._rebuild_tensor_v2', 'torch._utils._rebuild_tensor')  # the second until PyTorch 0.4
_PARAMETERS = (
    *('torch._utils._rebuild_parameter', 'torch._utils._rebuild_parameter_with_state'),
    'torch.nn.parameter.Parameter',  # until PyTorch 0.4
)
GLOBALS = frozenset({_DICT, *_TENSORS, *_PARAMETERS, *STORAGES})  # all that is understood of what a file may name
# The instructions that are carried out as the standard library does; `Unpickler.dispatch` has those that are not.
OPCODES = b''.join(
    [
        *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE),
        *(pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT),
        *(pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINSTRING, pickle.SHORT_BINSTRING),
        *(pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.EMPTY_DICT, pickle.EMPTY_LIST),
        *(pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
        *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.BINGET, pickle.LONG_BINGET),
        *(pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.BINPERSID, pickle.REDUCE),
    ]
)


class RefusedError(Exception):
    """The file holds something else than tensors; says what, and with `remedy` what to do."""

    def __init__(self, text: str, remedy: str = '') -> None:
        super().__init__(text)
        self.remedy = remedy


class Storage(NamedTuple):
    """`length` numbers of the file, under `key`."""

    key: str
    dtype: str
    length: int


class Tensor(NamedTuple):
    """A window of a storage: first element, sizes and steps in elements."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Unread(NamedTuple):
    """Stands in the place of an object that is left out: of `name`, which was neither looked up nor called."""

    name: str

    def __call__(self, *_: Any, **__: Any) -> 'Unread':
        """Returns what stands for the result."""
        return self


class _Global(NamedTuple):
    """Stands in the place of one of GLOBALS. A tuple, so that no instruction can set an attribute of it."""

    name: str

    def __call__(self, *arguments: Any) -> object:
        """Returns what a call of it describes: a dictionary or a tensor."""
        match self.name, arguments:
            case name, () if name == _DICT:
                return {}
            case name, ([*pairs],) if name == _DICT and all(type(p) in (list, tuple) and len(p) == 2 for p in pairs):
                return {key: value for key, value in pairs if type(key) is str}  # as Python 2 wrote it
            case name, (Storage() as storage, int(offset), tuple(size), tuple(stride), *_) if name in _TENSORS:
                if all(type(number) is int for number in (*size, *stride)):
                    return Tensor(storage, offset, size, stride)
            case name, (Unread() as kept, *_) if name in (*_TENSORS, *_PARAMETERS):
                return kept
            case name, (Tensor() as tensor, *_) if name in _PARAMETERS:
                return tensor
        raise RefusedError(f'its pickle calls {self.name} with what it does not take')


BYTEARRAY8 = ord(pickle.BYTEARRAY8)  # which NumPy's arrays need, and no state dict


class Loaders(dict[int, Callable[[Any], None]]):
    """The instructions of a pickle that are carried out; of any other, a `RefusedError` names it."""

    def __missing__(self, opcode: int) -> Callable[[Any], None]:
        names = {ord(known.code): known.name for known in pickletools.opcodes}
        raise RefusedError(f'its pickle holds the instruction {names.get(opcode, opcode)}, which no state dict needs')


class Unpickler(pickle._Unpickler):
    """Carries out a pickle on dictionaries, tuples, lists, numbers, texts and the descriptions above alone.

    This is the standard library's unpickler in Python, because the one in C has no list of instructions to close. With
    every name refused, that one still takes 1.5 GB for nine bytes (a place in the memo) and hashes nested tuples, for
    which each five bytes double the time.

    Attributes:
      storages: those that the file has referred to so far, by key.
    """

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, program: io.BytesIO) -> None:
        super().__init__(program, encoding='latin1')  # of the texts that Python 2 wrote
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> _Global | Unread:
        """Looks nothing up: a name is understood, or stands for itself."""
        found = f'{module}.{name}'
        return _Global(found) if found in GLOBALS else Unread(''.join(found.split())[:60])

    def persistent_load(self, pid: Any) -> Storage | Unread:
        """Describes a storage: torch/serialization.py `persistent_id`, (type, key, device, number of elements, ...)."""
        match pid:
            case ('storage', _Global(kind), str(key), str(), int(count), *view) if kind in STORAGES:
                if view not in ([], [None]):
                    raise RefusedError(f'storage {key[:20]} is a view of another')
                self.storages[key] = Storage(key, STORAGES[kind], count)
                return self.storages[key]
            case ('storage', Unread(kind), str(), str(), int(), *_):
                return Unread(kind)
            case ('module', Unread() as kind, *_):  # of a whole model, before the zip
                return kind
        raise RefusedError('its pickle refers to a storage in a way that PyTorch does not')

    def load_append(self) -> None:
        """Appends, or drops what is appended to an `Unread`."""
        self._extend([self.stack.pop()])

    def load_appends(self) -> None:
        """Appends several."""
        self._extend(self.pop_mark())

    def load_setitem(self) -> None:
        """Sets an item, or drops that of an `Unread`."""
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def load_setitems(self) -> None:
        """Sets several."""
        self._set_items(self.pop_mark())

    def load_build(self) -> None:
        """Gives an object its state."""
        state = self.stack.pop()
        self.build(self.stack[-1], state)

    def build(self, target: Any, state: Any) -> None:
        """Drops the state of an object, such as an OrderedDict's attribute _metadata: versions of modules."""
        self._expect(dict | Tensor | Unread, target)

    def load_newobj(self) -> None:
        """Makes nothing of a class: it stands for itself."""
        self.stack.pop()
        self.stack[-1] = self._expect(Unread, self.stack[-1])

    def load_newobj_ex(self) -> None:
        """Does as `load_newobj`."""
        self.stack.pop()
        self.load_newobj()

    def load_empty_set(self) -> None:
        """Makes no set, which would hash what is in it."""
        self.stack.append(Unread('builtins.set'))

    def load_additems(self) -> None:
        """Drops what is added to a set."""
        self.pop_mark()
        self._expect(Unread, self.stack[-1])

    def load_frozenset(self) -> None:
        """Makes none either."""
        self.pop_mark()
        self.stack.append(Unread('builtins.frozenset'))

    def _extend(self, values: list[Any]) -> None:
        target = self._expect(list | Unread, self.stack[-1])
        if type(target) is list:
            target.extend(values)

    def _set_items(self, items: list[Any]) -> None:
        target = self._expect(dict | Unread, self.stack[-1])
        if type(target) is not dict:
            return
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) in (str, int):  # no tensor is kept under another, and hashing nested tuples can take forever
                target[key] = value

    def _expect(self, kind: Any, value: Any) -> Any:
        if not isinstance(value, kind):
            shown = getattr(kind, '__name__', str(kind)).split('.')[-1]
            raise RefusedError(f'its pickle holds a {type(value).__name__.lstrip("_")} where a {shown} belongs')
        return value

    dispatch = Loaders(
        {opcode: pickle._Unpickler.dispatch[opcode] for opcode in OPCODES}
        | {ord(pickle.APPEND): load_append, ord(pickle.APPENDS): load_appends}
        | {ord(pickle.SETITEM): load_setitem, ord(pickle.SETITEMS): load_setitems, ord(pickle.BUILD): load_build}
        | {ord(pickle.NEWOBJ): load_newobj, ord(pickle.NEWOBJ_EX): load_newobj_ex}
        | {ord(pickle.EMPTY_SET): load_empty_set, ord(pickle.ADDITEMS): load_additems}
        | {ord(pickle.FROZENSET): load_frozenset}
    )


def unpickle(
    program: io.BytesIO, storages: dict[str, Storage], make_unpickler: Callable[[io.BytesIO], Unpickler] = Unpickler
) -> Any:
    """Returns what the next pickle of `program` describes, and adds to `storages` what it refers to.

    Raises:
      RefusedError: it is damaged, or has an instruction that no state dict needs.
    """
    try:
        unpickler = make_unpickler(program)
        value = unpickler.load()
    except _DAMAGED as error:
        raise RefusedError(f'its pickle is damaged: {str(error)[:60] or "it is cut short"}') from error
    storages.update(unpickler.storages)
    return value
