"""Every case is named by its right cause, and a healthy run by none.

`make doctor` runs the same on the embedded dataset and writes docs/doctor.md's table.
"""

import math

import pytest
from diagnosis.cases import CASES

from alexnet_jax.diagnosis import screen


def figures(diagnosis):
    """What the rules looked at, short."""
    case = diagnosis.case
    data, inputs, dropout = case.data, case.network.inputs, case.network.dropout
    last_hidden = list(case.network.before)[-2]
    alike = {} if dropout is None else dropout.alike
    parts = [
        f'pixels {data.pixel_mean:.0f} ± {data.pixel_spread:.2g}',
        f'mean left {case.left:.1f}, read with spread {inputs.spread:.2g}',
        f'probe {data.probe.sigmas:+.1f} σ' if data.probe else 'no probe',
        f'order {data.order:.2f}',
        f'fc7 differs {case.network.before[last_hidden].differs:.1%}',
        f'update/weight {case.ratio:.1g}',
        f'dead {max(case.dead(after=False).values()):.0%}, later {max(case.dead(after=True).values()):.0%}',
        f'towers {alike["towers"]:+.2f}, steps {alike["steps"]:+.2f}' if alike.get('towers') is not None else '',
    ]
    return ', '.join(filter(None, parts))


@pytest.mark.parametrize(('name', 'make', 'causes'), CASES, ids=[name for name, *_ in CASES])
def test_the_right_cause_is_named(name, make, causes, lab, monkeypatch, record):
    diagnosis = make(lab, monkeypatch)
    text = screen.text(diagnosis)
    print(text)
    assert [finding.cause for finding in diagnosis.findings] == causes
    assert len(text.splitlines()) <= 40
    assert max(map(len, text.splitlines())) <= 100
    losses = diagnosis.case.network.losses
    assert len(losses) == lab.steps or not math.isfinite(losses[-1])
    says = diagnosis.findings[0] if causes else None
    verdict = f'**{says.cause}**: {says.seen}' if says else 'nothing found'
    record(name, (verdict, f'{losses[0]:.2f}, {losses[-1]:.3g}', figures(diagnosis)))
