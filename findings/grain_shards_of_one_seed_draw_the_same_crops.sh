#!/usr/bin/env bash
# grain 0.2.18: hosts that each take their slice of one seeded MapDataset and then augment draw the same random numbers, position
# by position; Grain's own DataLoader, with the same seed, does not.
#
# Guess: random numbers belong to records, as shuffling does: with `.seed(3)` set once for all, hosts that read records 0::2 and
#        1::2 augment independently.
# Seen: random_map's numbers go by the position in the slice that it is applied to. After ds[host::hosts], Grain's way to
#       shard, the k-th image of every host gets the same crop, flip and colour: a global batch of 8 hosts x 128 images has 128
#       draws, not 1,024, and nothing fails. Another number of hosts gives each record another crop. DataLoader with ShardOptions
#       numbers records before it shards them, and its draws differ.
# What to do: random_map before the slice (lazy: nothing more is read), or `.seed(seed + host)` after it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check grain==0.2.18 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import grain

HOSTS, RECORDS = 2, 16


class Source:
    """Records 0 to 15; counts how many are read."""

    reads = 0

    def __len__(self):
        return RECORDS

    def __getitem__(self, index):
        Source.reads += 1
        return index


class Draw(grain.transforms.RandomMap):
    def random_map(self, record, rng):
        return record, int(rng.integers(1_000_000))


def read(dataset):
    """Returns {record: what was drawn for it}, in order."""
    return dict(dataset[i] for i in range(len(dataset)))


def load(host):
    sampler = grain.samplers.IndexSampler(
        num_records=RECORDS, shuffle=True, seed=3, num_epochs=1, shard_options=grain.sharding.ShardOptions(host, HOSTS)
    )
    return dict(grain.DataLoader(data_source=Source(), sampler=sampler, operations=[Draw()], worker_count=0))


dataset = grain.MapDataset.source(Source()).seed(3).shuffle()
ways = {
    'slice, then random_map': [read(dataset[host::HOSTS].random_map(Draw())) for host in range(HOSTS)],
    'random_map, then slice': [read(dataset.random_map(Draw())[host::HOSTS]) for host in range(HOSTS)],
    'slice, another seed, random_map': [
        read(dataset[host::HOSTS].seed(3 + host).random_map(Draw())) for host in range(HOSTS)
    ],
    'DataLoader with ShardOptions': [load(host) for host in range(HOSTS)],
}
for name, (first, second) in ways.items():
    print(f'{name}: {list(first.values())[:4]} on host 0, {list(second.values())[:4]} on host 1')
    assert sorted([*first, *second]) == list(range(RECORDS)), name
    same = list(first.values()) == list(second.values())
    assert same == (name == 'slice, then random_map'), name
    assert same or not set(first.values()) & set(second.values()), name

Source.reads = 0
read(dataset.random_map(Draw())[0::HOSTS])
assert Source.reads == RECORDS // HOSTS, Source.reads
PYTHON
echo 'unchanged: shards of one seeded MapDataset of grain 0.2.18 draw alike'
