"""Reads the command line, so that a mistake in it is one line and no traceback."""

from __future__ import annotations

import inspect
import keyword
import pathlib
import re
import sys
import textwrap
from collections.abc import Iterable
from types import ModuleType

from absl import app, flags

from alexnet_jax.console import suggest

_OVERRIDE = re.compile(r'--?(no)?config\.')
_PLAIN = re.compile(r'--?(?:no)?config\.([a-zA-Z_]\w*)(?:=.*)?', re.DOTALL | re.ASCII)


def run_command(module: ModuleType) -> None:
    """Runs a command's `main` with the command line that its `parse` reads; with --help prints what it is for."""
    options = sys.argv[1:]
    if '--' in options:
        options = options[: options.index('--')]
    if {'--help', '-h', '-help', '--helpfull'} & set(options):
        print(format_help(module))
        sys.exit(1)  # absl's code for help
    app.run(module.main, flags_parser=module.parse)


def format_help(module: ModuleType) -> str:
    """A command's docstring, and its options with their defaults, a line or two each."""
    name = sys.argv[0] if module.__name__ == '__main__' else module.__name__
    lines = [inspect.cleandoc(module.__doc__ or ''), '', 'Options:']
    for flag in sorted(flags.FLAGS.get_key_flags_for_module(name), key=lambda flag: flag.name):
        value = '' if flag.boolean else '=VALUE'
        default = '' if flag.default in (None, False, '', []) else f' (default: {flag.default_as_str.strip(chr(39))})'
        text = ' '.join(f'{flag.help}{default}'.split())
        lines += textwrap.wrap(f'  --{flag.name + value:24} {text}', 110, subsequent_indent=' ' * 29)
    return '\n'.join(lines)


def parse_config_flags(argv: list[str]) -> list[str]:
    """absl's flag parsing, for `app.run(main, flags_parser=parse)` of a command that takes --config.

    Leaves with exit code 1 where it cannot be done.
    """
    for argument in argv[1:]:
        plain = _PLAIN.fullmatch(argument)
        if _OVERRIDE.match(argument) and (plain is None or keyword.iskeyword(plain[1])):
            shown = argument if argument.isprintable() else repr(argument)  # on one line
            sys.exit(f'error: {shown}: options of the config look like --config.mesh=1,2, with nothing between')
    try:
        stray = _known_flags(argv)[1:]
        if flags.FLAGS.config is not None:  # of a command that can do without
            flags.FLAGS.config.keys()  # ml_collections reports a missing file only when the config is used
    except AttributeError as error:
        if not isinstance(error.args[0], KeyError):  # what ml_collections makes of a key that the config has not
            raise
        from alexnet_jax.training.config import KEYS

        key = error.args[0].args[0].splitlines()[0]  # behind it a name that is alike, of whatever meaning
        sys.exit(f'error: unknown config key {key}: {suggest(key.strip(chr(39)), KEYS)}')
    except OSError as error:
        sys.exit(f'error: no such config file: {str(error).splitlines()[-1].strip()}')
    if stray:
        sys.exit(f'error: unexpected argument {stray[0]!r}: options look like --config.epochs=20')
    return argv[:1]


def parse_options(argv: list[str]) -> list[str]:
    """The same for a command without --config that takes options alone."""
    left = parse_arguments(argv)
    if left[1:]:
        sys.exit(f'error: unexpected argument {left[1]!r}: options look like --workdir=runs/NAME')
    return left


def parse_arguments(argv: list[str]) -> list[str]:
    """The same for one that takes arguments too; returns the program's name and the arguments."""
    return _known_flags(argv)


def split_paths(values: Iterable[str]) -> list[str]:
    """The paths that a flag names, given once as A,B or once for each: a name with commas in it has to exist."""
    named: list[str] = []
    for value in values:
        named += [value] if value and pathlib.Path(value).exists() else filter(None, value.split(','))
    return named


def _known_flags(argv: list[str]) -> list[str]:
    """What is left of `argv` when absl has taken its flags."""
    try:
        return flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        sys.exit(f'error: Unknown command line flag {error.flagname!r}: {_suggest_option(error.flagname)}')
    except flags.Error as error:
        sys.exit(f'error: {" ".join(str(error).split())}; --help lists the options')
    except ValueError as error:
        if not str(error).endswith('does not take an argument'):  # what absl makes of --noFLAG=VALUE
            raise
        sys.exit(f'error: {" ".join(str(error).split())}; --help lists the options')


def _suggest_option(name: str) -> str:
    """Says which option is meant by one that does not exist; absl names any that is half alike."""
    from alexnet_jax.training.config import KEYS

    if 'config' in flags.FLAGS and name in KEYS:
        return f'did you mean {"--config." + name!r}?'
    hint = suggest(name, flags.FLAGS, prefix='--')
    return hint if hint.startswith('did') else '--help lists the options'
