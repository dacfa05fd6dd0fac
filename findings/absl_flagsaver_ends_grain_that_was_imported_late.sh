#!/usr/bin/env bash
# absl-py 2.5.1 with grain 0.2.18: restoring flag values that were saved before grain was imported leaves grain unusable for
# the rest of the process.
#
# Guess: flagsaver gives flags their values back and leaves alone what has been defined since; grain reads no flag of a program
#        that sets none.
# Seen: restore_flag_values deletes the flags that were not there when the values were saved, grain's among them, and a pipeline
#       that gave its elements before raises AttributeError: grain_py_traceback_filtering. Importing grain again does nothing,
#       because its modules are there. So a test with @flagsaver, or a command run twice in one process, whose first import of
#       grain lies within, breaks what comes after it.
# What to do: import grain before the values are saved, or merge what flagsaver saves at the end into what is restored.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check absl-py==2.5.1 grain==0.2.18 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from absl import flags
from absl.testing import flagsaver


def read(grain):
    return list(grain.MapDataset.range(3).map(lambda number: number + 1))


flags.FLAGS(['program'])
saved = flagsaver.save_flag_values()
import grain

assert read(grain) == [1, 2, 3]
flagsaver.restore_flag_values(saved)
try:
    read(grain)
    found = 'nothing raised'
except AttributeError as error:
    found = f'AttributeError: {error}'
print(found)
assert found == 'AttributeError: grain_py_traceback_filtering', found
assert not any(name.startswith('grain') for name in flags.FLAGS)
PYTHON
echo 'unchanged: flagsaver deletes the flags of a grain that was imported after the values were saved'
