"""docs/fidelity.md says what the data says."""

import csv

from alexnet_jax.evaluation import references
from alexnet_jax.model.zoo import NETWORKS
from experiments.fidelity_tables import DOCUMENT, filled


def test_fidelity_tables_are_those_of_the_data():
    assert DOCUMENT.read_text() == filled(DOCUMENT.read_text()), 'run python -m experiments.fidelity_tables'


def test_fidelity_tables_have_every_network_and_every_published_error():
    text = DOCUMENT.read_text()
    assert all(f'| `{name}` |' in text for name in NETWORKS)
    with (DOCUMENT.parents[1] / 'alexnet_jax/evaluation/references.csv').open(newline='') as file:
        for row in csv.DictReader(file):
            errors = {f'| {float(row[key]):g}' for key in ('top1', 'top5') if row[key]}
            lines = [line for line in text.splitlines() if line.startswith(f'| {row["run"]} |')]
            assert any(
                row['source'] in line and row['dataset'] in line and all(e in line for e in errors) for line in lines
            )
    protocols = (' | ten views | ', ' | centre | ', ' | nine places | ')
    assert len(references.load_references()) == sum(text.count(words) for words in protocols)
