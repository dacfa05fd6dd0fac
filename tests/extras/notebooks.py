"""Executes a notebook of docs/ in a kernel of its own, as a reader does; what its cells print."""

import json

import cli
from extras.conftest import extra

nbformat = extra('nbformat')
nbclient = extra('nbclient')
extra('ipykernel')


def get_text(cell):
    """What a cell printed."""
    return ''.join(output['text'] for output in cell.outputs if output.output_type == 'stream')


def read(path):
    return nbformat.read(path, as_version=4)


def execute(path, *, ask, cache):
    """Runs the notebook anew, and behind it `ask`, which prints JSON; returns the notebook and what that held."""
    notebook = read(path)
    for cell in notebook.cells:
        if cell.cell_type == 'code':
            cell.outputs = []
    notebook.cells.append(nbformat.v4.new_code_cell(ask))
    where = {'metadata': {'path': str(path.parent)}}
    client = nbclient.NotebookClient(notebook, timeout=900, kernel_name='python3', resources=where)
    client.execute(env=cli.environment(cache, compile_less=False))  # it trains for long
    return notebook, json.loads(get_text(notebook.cells.pop()))
