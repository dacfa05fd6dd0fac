"""Tests of what needs a requirements-NAME.txt of its own: skipped where that is not installed, failed if asked for."""

import importlib
import os

import pytest


def extra(module):
    """The imported module; without it the file is skipped, or fails where EXTRAS=required is set."""
    if os.environ.get('EXTRAS') == 'required':
        return importlib.import_module(module)
    return pytest.importorskip(module)
