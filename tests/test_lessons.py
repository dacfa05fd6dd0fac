"""The lessons' pages and the notebooks as they are committed: links, cells that compile, outputs of no machine."""

import ast
import json
import re

import cli
import pytest

import alexnet_jax

FOLDER = cli.ROOT / 'docs/lessons'
LESSONS = FOLDER / 'lessons.ipynb'
NOTEBOOKS = [LESSONS, cli.ROOT / 'docs/two_towers.ipynb']
LINK = re.compile(r'\]\(([^)#:]+)(?:#[^)]*)?\)')
OF_A_MACHINE = re.compile(r'/(?:home|mnt|opt|root|tmp|Users|usr|var|work)/|[A-Z]:\\')


def read_cells(path, kind):
    """The cells of one kind: [(cell, its source)]."""
    cells = json.loads(path.read_text())['cells']
    return [(cell, ''.join(cell['source'])) for cell in cells if cell['cell_type'] == kind]


@pytest.mark.parametrize('name', ['README.md', 'README.zh.md'])
def test_the_index_lists_every_lesson_and_the_notebook(name):
    links = set(LINK.findall((FOLDER / name).read_text()))
    assert {path.name for path in FOLDER.glob('*.md') if not path.name.startswith('README')} <= links
    assert 'lessons.ipynb' in links


@pytest.mark.parametrize('path', [*sorted(FOLDER.glob('*.md')), *NOTEBOOKS], ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    texts = [path.read_text()] if path.suffix == '.md' else [source for _, source in read_cells(path, 'markdown')]
    links = [link for text in texts for link in LINK.findall(text)]
    assert links
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_notebook_asks_a_question_in_each_section_and_links_its_lesson():
    text = '\n'.join(source for _, source in read_cells(LESSONS, 'markdown'))
    _, *sections, others = re.split(r'^## ', text, flags=re.MULTILINE)
    pages = ['units.md', 'signals.md', 'pooling.md', 'normalisation.md', 'towers.md']
    for page, section in zip(pages, sections, strict=True):
        assert page in LINK.findall(section)
        assert [section.count(word) for word in ('**Question.**', '<summary>Answer</summary>')] == [1, 1]
    assert LINK.findall(others) == ['README.md']


def list_names(module):
    """The names at a module's top level, read and not imported: that would take seconds."""
    if module == 'alexnet_jax':
        return set(alexnet_jax.__all__)
    names = set()
    for node in ast.parse((cli.ROOT / f'{module.replace(".", "/")}.py').read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            names |= {
                part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
            }
    return names


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.name)
def test_cells_compile_and_import_what_there_is(path):
    trees = [ast.parse(source) for _, source in read_cells(path, 'code')]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    own = [node for node in nodes if node.module.split('.')[0] in ('alexnet_jax', 'experiments')]
    assert len(own) > 10
    for node in own:
        assert {alias.name for alias in node.names} <= list_names(node.module), node.module


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.name)
def test_outputs_are_whole_small_and_of_no_machine(path):
    cells = [cell for cell, _ in read_cells(path, 'code')]
    assert [cell['execution_count'] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell['outputs']]
    assert not [output for output in outputs if output['output_type'] == 'error' or output.get('name') == 'stderr']
    shown = [output.get('data', {}) | {'text': output.get('text', '')} for output in outputs]
    texts = [''.join(text) for data in shown for kind, text in data.items() if not kind.startswith('image/')]
    assert [text for text in texts if OF_A_MACHINE.search(text)] == []
    assert sum(kind.startswith('image/') for data in shown for kind in data) >= 4
    assert path.stat().st_size < 500_000
