"""Lays out a report: one HTML file without a script, a font or anything else to fetch.

The templates are in templates/, a file for each section. Jinja escapes all text that comes into them, except what has
`__html__` (report.drawing).
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jinja2

from alexnet_jax.console import format_duration
from alexnet_jax.report.drawing import COLOURS
from alexnet_jax.report.run_folder import RunFolder

PROTOCOLS = {'ten_view': 'ten-view', 'centre': 'centre'}  # as they are called on the page


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page with a heading.

    Its template sets `link` (for the navigation) and `title`. Besides `data` it has `run`, all `runs`, `several`
    (whether there are more), `protocols` and `ui` (macros.html).
    """

    name: str  # of its template, NAME.html; also its anchor
    data: dict[str, Any]
    run: RunFolder | None = None  # whose section it is; None for one of all runs


def format_number(value: float, digits: int = 0) -> str:
    """Formats 1234.2 as '1,234'."""
    return f'{value:,.{digits}f}'


def format_percent(fraction: float | None) -> str:
    """Formats 0.234 as '23.4 %'."""
    return 'not measured' if fraction is None else f'{100 * fraction:.1f}\N{NO-BREAK SPACE}%'


def format_standard_error(fraction: float, images: int) -> str:
    """Formats '± 2.3', the standard error in % of an error on so many images, as if they were drawn at random."""
    return f'± {100 * math.sqrt(fraction * (1 - fraction) / images):.1f}'


def format_megabytes(count: int) -> str:
    """Formats bytes as '0.28 MB', with one digit fewer from 10 MB on."""
    return f'{format_number(count / 1e6, 2 if count < 10e6 else 1)} MB'


def render_page(runs: Sequence[RunFolder], sections: Sequence[Section]) -> str:
    """Renders the whole file."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('alexnet_jax.report'),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        'duration': format_duration,
        'megabytes': format_megabytes,
        'number': format_number,
        'percent': format_percent,
        'standard_error': format_standard_error,
    }
    environment.globals |= {'runs': runs, 'several': len(runs) > 1, 'protocols': PROTOCOLS}
    environment.globals['ui'] = environment.get_template('macros.html').module
    modules = []
    for section in sections:
        template = environment.get_template(f'{section.name}.html')
        modules.append((section, template.make_module({**section.data, 'run': section.run})))
    return environment.get_template('page.html').render(sections=modules, colours=COLOURS)
