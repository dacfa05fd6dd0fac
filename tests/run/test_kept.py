"""What the runs of one process share, and what not."""

from builders import run_with

from alexnet_jax.distributed.hosts import ProcessGroup
from alexnet_jax.run import kept as kept_module
from alexnet_jax.run.kept import Kept


def make_run(tiny_dir, **values):
    return run_with(**{'dataset': 'tiny', 'data_dir': str(tiny_dir), 'width': 0.01, 'mesh': (1, 1)} | values)


def test_runs_that_differ_in_their_seed_share_programs(tiny_dir, tiny, monkeypatch):
    monkeypatch.setattr(kept_module, 'MAX_PROGRAMS', 2)
    kept, first = Kept(), make_run(tiny_dir, seed=1)
    programs = kept.make_programs(first, tiny)
    assert kept.make_programs(make_run(tiny_dir, seed=2), tiny) is programs
    step, evaluate = kept.make_programs(make_run(tiny_dir, learning_rate=0.5), tiny)
    assert step is not programs[0] and evaluate is not programs[1]
    assert kept.make_programs(first, tiny) is programs
    third = kept.make_programs(make_run(tiny_dir, momentum=0.5), tiny)  # the rate's go: they are the oldest in use
    assert kept.make_programs(first, tiny) is programs
    assert kept.make_programs(make_run(tiny_dir, momentum=0.5, seed=7), tiny) is third
    assert kept.make_programs(make_run(tiny_dir, learning_rate=0.5), tiny)[0] is not step


def test_runs_of_one_dataset_share_it_with_its_decoded_records(tiny_dir):
    kept, config = Kept(), make_run(tiny_dir, cache='memory').config
    dataset = kept.open_dataset(config, ProcessGroup())
    records, programs = dataset.records('train'), kept.make_programs(make_run(tiny_dir, cache='memory'), dataset)
    other = make_run(tiny_dir, cache='memory', seed=5, momentum=0.5).config
    assert kept.open_dataset(other, ProcessGroup()).records('train') is records
    plain = kept.open_dataset(make_run(tiny_dir).config, ProcessGroup())
    assert plain.records('train') is not records
    again = kept.open_dataset(config, ProcessGroup())
    assert again.records('train') is not records  # nor is the memory held any more
    assert kept.make_programs(make_run(tiny_dir, cache='memory'), again) is not programs
