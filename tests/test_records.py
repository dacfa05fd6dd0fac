"""Rows of docs/records.md, of metrics that are written down here, by hand."""

import json

import pytest

from experiments.records import main

# 20 steps at 50 images/s are 4 s of ten images each, 20 at 100 images/s 2 s, 5 at 25 images/s 2 s.
TRAINING = [(20, 50.0), (40, 100.0), (45, 25.0), (65, 100.0)]


def write_run(folder, *, tests, seed=0, commit='7f3a1c2d000', **changes):
    """A run of batches of ten whose centre tests, {step: error}, come where their step is done."""
    folder.mkdir()
    lines = []
    for step, speed in TRAINING:
        lines.append({'step': step, 'split': 'train', 'top1_error': 0.0, 'images_per_second': speed})
        if step in tests:
            test = {'step': step, 'split': 'validation', 'top1_error': tests[step]}
            lines += [test | {'protocol': 'centre'}, test | {'protocol': 'ten_view', 'top1_error': 0.0}]
    config = {'dataset': 'pets', 'variant': 'small', 'seed': seed, 'batch_size': 10, 'width': 1.0} | changes
    (folder / 'metrics.jsonl').write_text(''.join(f'{json.dumps(line)}\n' for line in lines))
    (folder / 'config.json').write_text(json.dumps(config))
    (folder / 'run.json').write_text(json.dumps({'commit': commit}))
    return str(folder)


def test_records_prints_the_time_to_the_first_test_below_the_error(tmp_path, capsys):
    run = write_run(tmp_path / 'a', tests={20: 0.5, 45: 0.25, 65: 0.375}, commit='7f3a1c2d000-dirty')
    main('25', run)  # 450 images in 4 + 2 + 2 s
    assert capsys.readouterr().out == '| pets, small, to 25 % | 7f3a1c2+ | 1 | 37.5 % | 45 | 8 | 56 |\n'
    main('24.9', run)
    assert capsys.readouterr().out == '| pets, small, to 24.9 % | 7f3a1c2+ | 1 | 37.5 % | 0 of 1 came there |  |  |\n'


def test_records_averages_seeds(tmp_path, capsys):
    first = write_run(tmp_path / 'a', tests={20: 0.5, 40: 0.2, 65: 0.1})  # 40 steps, 6 s, 66.7 images/s
    second = write_run(tmp_path / 'b', tests={20: 0.5, 65: 0.2}, seed=1)  # 65 steps, 10 s, 65 images/s
    main('20', first, second)
    # Two values of difference d: a standard deviation of d / sqrt(2).
    expected = '| pets, small, to 20 % | 7f3a1c2 | 2 | 15.0 ± 7.1 % | 52 ± 18 | 8 ± 3 | 66 ± 1 |\n'
    assert capsys.readouterr().out == expected
    main('15', first, second)
    assert '| 1 of 2 came there |  |  |' in capsys.readouterr().out


def test_records_refuses_runs_that_are_not_alike(tmp_path):
    runs = [write_run(tmp_path / 'a', tests={20: 0.5})]
    for number, changes in enumerate(({'seed': 1, 'width': 0.5}, {'seed': 0})):
        other = write_run(tmp_path / str(number), tests={20: 0.5}, **changes)
        with pytest.raises(SystemExit, match=('differ in width, not in the seed alone', 'have the same seed')[number]):
            main('20', *runs, other)
    with pytest.raises(SystemExit, match='a run without a centre test'):
        main('20', write_run(tmp_path / 'b', tests={}))
