"""Runs a verb: its module is imported here, once Ctrl-C is listened for. Imports nothing heavy before."""

import importlib
import sys
from collections.abc import Sequence
from typing import Any

from alexnet_jax.commands.interrupts import Interrupts


def run_verb(verb: str, arguments: Sequence[str], interrupts: Interrupts) -> None:
    """Runs the command `verb` as if `arguments` followed it on the command line, and exits the process.

    A process that lives on, such as a notebook's, may run any number of verbs: each run imports the verb's module anew,
    which defines its flags, and takes the flags away at its end.
    """
    from absl.testing import flagsaver

    from alexnet_jax.commands.command_line import run_command

    # ml_collections looks for overrides of the config there. absl names the process after the first, and where a name
    # holds a space SLURM (proctrack/linuxproc) sends the process no signal.
    sys.argv = [f'alexnet-{verb}', *arguments]
    name = 'alexnet_jax.main' if verb == 'train' else f'alexnet_jax.commands.{verb.replace("-", "_")}'
    imported, before = name in sys.modules, flagsaver.save_flag_values()
    try:
        module = importlib.import_module(name)
        interrupts.describe = getattr(module, 'describe_interrupt', interrupts.describe)
        run_command(module)
    finally:
        # Without those of Grain it would not work a second time.
        flagsaver.restore_flag_values(_save_flags_of_others(name) | before)
        if not imported:
            sys.modules.pop(name, None)


def _save_flags_of_others(module: str) -> dict[str, Any]:
    """Saves all flags but those that `module` has defined, and ml_collections for its config."""
    from absl import flags
    from absl.testing import flagsaver

    def is_own(name: str) -> bool:
        return flags.FLAGS.find_module_defining_flag(name) == module or name.startswith('config.')

    return {name: values for name, values in flagsaver.save_flag_values().items() if not is_own(name)}
