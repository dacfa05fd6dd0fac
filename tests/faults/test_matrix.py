"""The fault matrix: real faults against real processes, each compared with the run that nothing disturbed.

`make faults` runs all and writes the table of docs/reliability.md.
"""

import pytest
from faults import interruptions, lost_processes, spoilt_data, spoilt_storage, unlike_hosts  # noqa: F401 (their rows)
from faults.laboratory import ALL
from faults.rows import ROWS

pytestmark = pytest.mark.slow


def make_param(row):
    marks = [pytest.mark.repeats] if row.tier == 'repeats' and not ALL else []
    # Rows that compare with each other stay in one process: --dist loadgroup.
    marks += [pytest.mark.xdist_group(row.group)] if row.group else []
    return pytest.param(row, marks=marks, id=row.name.replace(' ', '_'))


@pytest.mark.parametrize('row', [make_param(row) for row in ROWS if ALL or row.tier != 'faults'])
def test_run_ends_with_the_undisturbed_numbers_or_one_line(row, lab, record_property):
    sees, seconds, state = row.inflict(lab)
    assert state.startswith(('equal', 'refused')), state
    record_property('row', (ROWS.index(row), row.name, sees, seconds, state))
