"""Runs a command: reads its command line, lists its options, and ends with one line where the user made a mistake."""

import contextlib
import inspect
import io
import itertools
import keyword
import os
import pathlib
import re
import select
import sys
import textwrap
from collections.abc import Iterable, Iterator
from types import ModuleType

from absl import app, flags

from alexnet_jax.console import suggest
from alexnet_jax.errors import FAILED, InputError

_OVERRIDE = re.compile(r'--?(no)?config\.')
_PLAIN = re.compile(r'--?(?:no)?config\.(?:rate_factors\.)?([a-zA-Z_]\w*)(?:=.*)?', re.DOTALL | re.ASCII)


def run_command(module: ModuleType) -> None:
    """Runs a command's `main` with the arguments that its `parse` leaves; with --help prints what it is for.

    Exits the process; where `main` or `parse` raises InputError, with its message on one line and code 1.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')  # names of files may be no text
    options = itertools.takewhile(lambda option: option != '--', sys.argv[1:])
    with exit_without_reader():
        if not {'--help', '-h', '-help', '--helpfull'}.isdisjoint(options):
            print(format_help(module))
            sys.exit(1)  # absl's code for help
        try:
            app.run(module.main, flags_parser=module.parse)
        except InputError as error:
            sys.exit(f'error: {error}')


@contextlib.contextmanager
def exit_without_reader() -> Iterator[None]:
    """Exits with code 1 and no traceback where the reader of standard output, such as `head`, has left."""
    try:
        try:
            yield
        except SystemExit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except BrokenPipeError:
        poll = select.poll()
        poll.register(sys.stdout, 0)  # errors are reported in any case
        if not poll.poll(0):
            raise  # another pipe is broken
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # takes what Python flushes at its end
        sys.exit(FAILED)


def format_help(module: ModuleType) -> str:
    """Formats a command's docstring and its options with their defaults; those of training with the config's keys."""
    lines = [inspect.cleandoc(module.__doc__ or ''), '', 'Options:']
    for flag in sorted(flags.FLAGS.get_key_flags_for_module(module.__name__), key=lambda flag: flag.name):
        default = '' if flag.default in (None, False, '', []) else flag.default_as_str.strip("'")
        lines += _format_option(flag.name if flag.boolean else f'{flag.name}=VALUE', flag.help, default)
    if module.__name__ == 'alexnet_jax.main':
        from alexnet_jax.training.config import KEYS

        lines += ['', 'Keys of the config, with the values that config files start from:']
        for key, field in KEYS.items():
            default = '' if field.default in (None, '', ()) else str(field.default).strip('()').replace(' ', '')
            lines += _format_option(f'config.{key}', field.metadata['text'], default)
    return '\n'.join(lines)


def _format_option(option: str, meaning: str, default: str) -> list[str]:
    """Formats an option on one line or more; '' as default: it has none."""
    text = ' '.join(f'{meaning}{default and f" (default: {default})"}'.split())
    return textwrap.wrap(f'  --{option:24} {text}', 110, subsequent_indent=' ' * 29)


def parse_config_flags(argv: list[str]) -> list[str]:
    """Parses the flags of a command that takes --config and no arguments; exits with one line where that fails."""
    for argument in argv[1:]:
        plain = _PLAIN.fullmatch(argument)
        if _OVERRIDE.match(argument) and (plain is None or keyword.iskeyword(plain[1])):
            shown = argument if argument.isprintable() else repr(argument)  # on one line
            sys.exit(f'error: {shown}: options of the config look like --config.mesh=1,2, with nothing between')
    try:
        parse_options(argv, example='--config.epochs=20')
        if flags.FLAGS.config is not None:  # of a command that can do without
            flags.FLAGS.config.keys()  # ml_collections reports a missing file only when the config is used
    except AttributeError as error:
        if not isinstance(error.args[0], KeyError):  # what ml_collections makes of a key that the config has not
            raise
        from alexnet_jax.training.config import KEYS
        from alexnet_jax.training.config_rules import LAYERS

        key = error.args[0].args[0].splitlines()[0]  # behind it a name that is alike, of whatever meaning
        name = key.strip(chr(39))
        if any(f'config.rate_factors.{name}' in argument for argument in argv):
            sys.exit(f'error: config.rate_factors has no layer {key}: {suggest(name, LAYERS)}')
        sys.exit(f'error: unknown config key {key}: {suggest(name, KEYS)}')
    except OSError as error:
        sys.exit(f'error: no such config file: {str(error).splitlines()[-1].strip()}')
    return argv[:1]


def parse_options(argv: list[str], *, example: str = '--workdir=runs/NAME') -> list[str]:
    """Parses the flags of a command that takes no arguments; exits with one line where that fails."""
    left = parse_arguments(argv)
    if left[1:]:
        sys.exit(f'error: unexpected argument {left[1]!r}: options look like {example}')
    return left


def parse_arguments(argv: list[str]) -> list[str]:
    """Parses the flags of a command; returns the program's name and the arguments. Exits where that fails."""
    try:
        return flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        sys.exit(f'error: Unknown command line flag {error.flagname!r}: {_suggest_option(error.flagname)}')
    except (flags.Error, ValueError) as error:
        # ValueError is what absl makes of --noFLAG=VALUE.
        if not isinstance(error, flags.Error) and not str(error).endswith('does not take an argument'):
            raise
        if own := _find_input_error(error):
            sys.exit(f'error: {own}')
        sys.exit(f'error: {" ".join(str(error).split())}; --help lists the options')


def _find_input_error(error: BaseException | None) -> InputError | None:
    """Finds what a config file itself refused: ml_collections puts a traceback around it, and absl another error."""
    found = None
    while error is not None:
        found, error = error if isinstance(error, InputError) else found, error.__context__
    return found


def _suggest_option(name: str) -> str:
    """Says which option is meant by one that does not exist; absl names any that is half alike."""
    from alexnet_jax.training.config import KEYS

    if 'config' in flags.FLAGS and name in KEYS:
        return f'did you mean {"--config." + name!r}?'
    hint = suggest(name, flags.FLAGS, prefix='--')
    return hint if hint.startswith('did') else '--help lists the options'


def split_paths(values: Iterable[str]) -> list[str]:
    """Splits the paths that a flag names, given once as A,B or once for each: a name with commas in it has to exist."""
    named: list[str] = []
    for value in values:
        named += [value] if value and pathlib.Path(value).exists() else filter(None, value.split(','))
    return named
