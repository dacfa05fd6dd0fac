"""Runs the project's commands as a user does: in processes of their own."""

import importlib.metadata
import os
import pathlib
import subprocess
import sys

from packaging.version import Version

ROOT = pathlib.Path(__file__).parents[1]
# XLA ends a process that sets a flag it does not know: jaxlib 0.11 has this one no more.
_NO_EMITTERS = '--xla_cpu_use_fusion_emitters=false' * (Version(importlib.metadata.version('jaxlib')) < Version('0.11'))
# Most of the time of the tests would be compilation, of programs that run for less: with these a fifth of it is left.
COMPILE_LESS = {'XLA_FLAGS': _NO_EMITTERS, 'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'}


def environment(cache, *, compile_less=True):
    """What a user's processes find: of JAX's and XLA's settings COMPILE_LESS at most; compiled programs in `cache`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(('JAX_', 'XLA_', 'PJRT_'))}
    settings = COMPILE_LESS if compile_less else {}
    return inherited | settings | {'JAX_PLATFORMS': 'cpu', 'XDG_CACHE_HOME': str(cache)}


def start(verb, *options, cache):
    """`alexnet VERB OPTIONS...` at the checkout's top, its compiled programs kept in `cache`."""
    return subprocess.Popen(
        [sys.executable, '-m', 'alexnet_jax', verb, *options],
        cwd=ROOT,
        env=environment(cache),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(verb, *options, cache):
    """As `start`, to its end."""
    process = start(verb, *options, cache=cache)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
