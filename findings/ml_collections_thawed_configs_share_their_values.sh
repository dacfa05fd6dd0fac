#!/usr/bin/env bash
# ml_collections 1.1.0: ConfigDict(frozen), the way to get an editable copy of a FrozenConfigDict, is not a copy: what is changed in
# it is in every later one, and in the config that was frozen.
#
# Guess: a frozen config is a constant, so each ConfigDict(frozen) starts from the values that the frozen one shows.
# Seen: beside its frozen values a FrozenConfigDict keeps the config that it was made from, and ConfigDict(frozen) gives a new
#       outer object around that one's parts. Nested configs, and fields with references, are shared: a sweep that thaws the
#       base config for each run and sets model.width trains its later runs with the width of the earlier ones, while
#       frozen.model.width and its JSON are what they were. FrozenConfigDict(frozen) takes over the changed values, too. The
#       frozen config's own hash changes, so a dict finds it by chance only, and it differs from one with the same values.
#       Top-level fields without references are not shared, which is what a short test tries.
# What to do: ConfigDict(frozen.to_dict()), or copy.deepcopy before.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ml-collections==1.1.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import ml_collections

base = ml_collections.ConfigDict({'rate': 0.1, 'batch': 128, 'model': {'width': 1.0}})
base.decay = base.get_ref('rate') * 0.01
frozen = ml_collections.FrozenConfigDict(base)
same = ml_collections.FrozenConfigDict(base.to_dict())
number, text = hash(frozen), frozen.to_json()
assert frozen == same and number == hash(same)


def show(name, config):
    found = (config.rate, config.batch, config.model.width)
    print(f'{name}: rate, batch, width', found)
    return found


run = ml_collections.ConfigDict(frozen)
run.rate, run.batch, run.model.width = 0.5, 32, 0.25
assert show('frozen', frozen) == (0.1, 128, 1.0) and frozen.to_json() == text
print('frozen has the hash that it had:', hash(frozen) == number, '; equals one with the same values:', frozen == same)
assert hash(frozen) != number and frozen != same
assert show('the next ConfigDict(frozen)', ml_collections.ConfigDict(frozen)) == (0.5, 128, 0.25)
assert show('FrozenConfigDict(frozen)', ml_collections.FrozenConfigDict(frozen)) == (0.5, 128, 0.25)
assert show('the config that was frozen', base) == (0.5, 128, 0.25)
assert ml_collections.ConfigDict(frozen).decay == 0.005 and frozen.decay == 0.001

# From a plain dict as well: nobody else holds a part of it.
constant = ml_collections.FrozenConfigDict({'model': {'width': 1.0}})
ml_collections.ConfigDict(constant).model.width = 0.25
assert constant.model.width == 1.0 and ml_collections.ConfigDict(constant).model.width == 0.25
assert ml_collections.ConfigDict(constant.to_dict()).model.width == 1.0
PYTHON
echo 'unchanged: ConfigDict(frozen) of ml_collections 1.1.0 shares what it holds'
