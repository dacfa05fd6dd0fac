"""Tests of what needs a requirements-NAME.txt besides requirements.txt."""

import importlib
import os

import pytest


def extra(module):
    """The module, or a skip of the file where it is not installed; with EXTRAS=required that is an error."""
    try:
        return importlib.import_module(module)
    except ImportError:
        if os.environ.get('EXTRAS') == 'required':
            raise
        pytest.skip(f'{module} is not installed', allow_module_level=True)
