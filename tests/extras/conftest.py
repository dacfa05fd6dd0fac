"""Tests of what an optional extra of pyproject.toml installs: skipped without it, failed with EXTRAS=required."""

import importlib
import os

import pytest


def extra(module):
    """The imported module; without it the file is skipped, or fails where EXTRAS=required is set."""
    if os.environ.get('EXTRAS') == 'required':
        return importlib.import_module(module)
    return pytest.importorskip(module)
