#!/usr/bin/env bash
# webdataset 1.0.2: shardshuffle shuffles once, and every epoch has the same order of shards, with a seed and without; a seed
# for shuffle() fixes the order of samples for all epochs as well.
#
# Guess: each epoch has an order of its own, and WebDataset(shards, shardshuffle=n, seed=0).shuffle(m) is reproducible as a
#        whole, as with PyTorch's generators, tf.data and Grain.
# Seen: each pass starts again from a seed that was drawn or given at the start. What lies far apart in the list of shards never
#       meets in a batch but by the luck of that one draw. The seed does not reach shuffle(m), which goes by the clock: two runs
#       differ. shuffle(m, seed=1) makes them equal, and then the same images meet in the same batches in every epoch.
#       resampled=True draws its shards without the seed. (Pull request 502 of webdataset has the unseeded shards.)
# What to do: detshuffle=True for shards and .compose(wds.detshuffle(m)) for samples, which count epochs: runs are equal, epochs
#             differ.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check webdataset==1.0.2 numpy==2.4.6
cd "$folder"
cat >orders.py <<'PYTHON'
"""Prints the order of 64 samples in 16 shards, in each of two epochs, for several ways to shuffle."""

import json
import pathlib

import webdataset as wds

shards = [f'{shard:02}.tar' for shard in range(16)]
for index, shard in enumerate(shards):
    if not pathlib.Path(shard).exists():
        with wds.TarWriter(shard) as writer:
            for sample in range(4):
                writer.write({'__key__': str(4 * index + sample), 'cls': sample})
seeded = {'shardshuffle': 16, 'seed': 0}
datasets = {
    'no seed': wds.WebDataset(shards, shardshuffle=16),
    'seed': wds.WebDataset(shards, **seeded),
    'seed, shuffle': wds.WebDataset(shards, **seeded).shuffle(32),
    'seed, shuffle with seed': wds.WebDataset(shards, **seeded).shuffle(32, seed=1),
    'resampled, seed': wds.WebDataset(shards, resampled=True, seed=0).with_epoch(64),
    'detshuffle': wds.WebDataset(shards, detshuffle=True, **seeded).compose(wds.detshuffle(32, seed=1)),
}
print(json.dumps({way: [[sample['__key__'] for sample in dataset] for _ in range(2)] for way, dataset in datasets.items()}))
PYTHON
for run in 1 2; do venv/bin/python -W ignore orders.py >"$run.json"; done
venv/bin/python - <<'PYTHON'
import json
import pathlib

first, second = (json.loads(pathlib.Path(f'{run}.json').read_text()) for run in (1, 2))
found = {}
for way, (one, two) in first.items():
    assert way.startswith('resampled') or sorted(one) == sorted(two) == sorted(map(str, range(64)))
    found[way] = {'runs equal': first[way] == second[way], 'epochs equal': one == two}
    print(f'{way}:', found[way], *one[:8])
assert found == {
    'no seed': {'runs equal': False, 'epochs equal': True},
    'seed': {'runs equal': True, 'epochs equal': True},
    'seed, shuffle': {'runs equal': False, 'epochs equal': False},
    'seed, shuffle with seed': {'runs equal': True, 'epochs equal': True},
    'resampled, seed': {'runs equal': False, 'epochs equal': False},
    'detshuffle': {'runs equal': True, 'epochs equal': False},
}
PYTHON
echo 'unchanged: webdataset 1.0.2 gives every epoch the same order of shards'
