"""Runs the project's commands as a user does: in processes of their own."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
# Most of the time of the tests would be compilation, of programs that run for less: with these a fifth of it is left.
COMPILE_LESS = {'XLA_FLAGS': '--xla_cpu_use_fusion_emitters=false', 'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'}


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
