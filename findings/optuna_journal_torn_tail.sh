#!/usr/bin/env bash
# Optuna 5.0.0: a journal whose last line was cut short (power loss, full disk) cannot be used again.
#
# Guess: the append-only journal is made for crashes; a torn last line is dropped when the study is loaded again.
# Seen: loading works and 3 of the 4 finished trials are read. But the next write is appended to the torn line, without a
#       newline between: that optimize ends in an AttributeError of Optuna's own. From the next write on the bad line is
#       not the last one, and everything that reads the file raises JSONDecodeError: all finished trials are out of reach.
# What to do: cut the file behind its last newline before it is opened, or keep finished trials elsewhere as well.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check optuna==5.0.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import json
import pathlib

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

optuna.logging.set_verbosity(optuna.logging.ERROR)
path = pathlib.Path('study.log')


def load():
    return optuna.load_study(study_name='s', storage=JournalStorage(JournalFileBackend(str(path))))


def objective(trial):
    return trial.suggest_float('x', 0, 1)


storage = JournalStorage(JournalFileBackend(str(path)))
optuna.create_study(study_name='s', storage=storage).optimize(objective, n_trials=4)
path.write_bytes(path.read_bytes()[:-20])  # what a write that was cut short leaves
found = load()
finished = [trial for trial in found.trials if trial.state.is_finished()]
print('after the cut:', len(finished), 'finished trials are read')
outcomes = []
for attempt in ('first', 'second', 'third'):
    try:
        load().optimize(objective, n_trials=1)
        outcomes.append('ran')
    except (AttributeError, json.JSONDecodeError) as error:
        outcomes.append(type(error).__name__)
    print(attempt, 'trial afterwards:', outcomes[-1])
assert (len(finished), outcomes) == (3, ['AttributeError', 'JSONDecodeError', 'JSONDecodeError']), outcomes
PYTHON
echo 'unchanged: a torn last line of a journal of Optuna 5.0.0 makes the study unusable from the second write on'
