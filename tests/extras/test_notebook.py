"""docs/two_towers.ipynb, executed in a kernel of its own: what it makes, and that its saved outputs are just that."""

import math

import cli
import pytest
from extras.notebooks import execute, get_text, read

NOTEBOOK = cli.ROOT / 'docs/two_towers.ipynb'
ASKED = """
import json
print(json.dumps({
    'losses': losses, 'error': tested.top1_error, 'alone': [loss for loss, _ in results.values()],
    'traced': [(m.layer, m.direction, m.op, m.bytes) for m in messages],
    'compiled': [(m.layer, m.direction, m.op, m.bytes) for m in compiled],
}))
"""


@pytest.fixture(scope='module')
def saved():
    return read(NOTEBOOK)


@pytest.fixture(scope='module')
def executed(program_cache):
    """The notebook run anew, and what its variables hold at the end."""
    return execute(NOTEBOOK, ask=ASKED, cache=program_cache)


def test_notebook_learns(executed):
    losses = executed[1]['losses']
    assert len(losses) == 200
    assert sum(losses[:10]) / 10 == pytest.approx(math.log(10), abs=0.4)  # guessing
    assert sum(losses[-10:]) / 10 < 2.1
    assert executed[1]['error'] < 0.75


def test_notebook_exchanges_what_the_paper_says(executed):
    """Half of 256 maps of 13x13, of 256 of 6x6, of 4096 units, at an eighth; 32 images, 4 bytes."""
    conv3, fc6, fc7 = 32 * 13 * 13 * 16 * 4, 32 * 6 * 6 * 16 * 4, 32 * 256 * 4
    forward = [('conv3', conv3), ('fc6', fc6), ('fc7', fc7), ('fc8', fc7)]
    expected = [[layer, 'forward', 'all-gather', size] for layer, size in forward]
    expected += [[layer, 'backward', 'reduce-scatter', size] for layer, size in reversed(forward[:3])]
    assert executed[1]['traced'] == expected
    assert sorted(executed[1]['compiled']) == sorted(expected)


def test_notebook_comes_to_the_same_loss_on_one_device(executed):
    two, one = executed[1]['alone']
    assert two == pytest.approx(one, rel=1e-5)


def test_notebook_holds_the_outputs_of_this_code(saved, executed):
    code = [cell for cell in saved.cells if cell.cell_type == 'code']
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert sum('image/png' in output.get('data', {}) for cell in code for output in cell.outputs) == 4
    assert NOTEBOOK.stat().st_size < 500_000
    fresh = {cell.id: cell for cell in executed[0].cells}
    same = [cell.id for cell in code if get_text(cell) and get_text(cell) == get_text(fresh[cell.id])]
    # The network, who holds what, the exchange by hand, the schedule, the compiled program: nothing measured in them.
    assert len(same) >= 5
    assert any('by hand' in get_text(cell) for cell in code if cell.id in same)
