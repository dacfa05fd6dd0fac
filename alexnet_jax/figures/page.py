"""The report's HTML: one file without a script, a font or anything else to fetch. All text is escaped here."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from alexnet_jax.figures.palette import css


class Html(str):
    """Text that is HTML already; any other text is escaped before it comes into a page."""


def text(value: object) -> str:
    """`value` as HTML."""
    return value if isinstance(value, Html) else html.escape(str(value))


def element(name: str, *inside: object, **attributes: str) -> Html:
    """<name attribute="...">inside</name>; `class_` is the attribute class."""
    shown = ''.join(f' {key.rstrip("_")}="{html.escape(value)}"' for key, value in attributes.items())
    return Html(f'<{name}{shown}>{"".join(map(text, inside))}</{name}>')


def joined(parts: Iterable[object]) -> Html:
    """Parts one after the other."""
    return Html('\n'.join(map(text, parts)))


def paragraph(*inside: object) -> Html:
    """A paragraph."""
    return element('p', *inside)


def figure(picture: str, caption: object, *, wide: bool = False) -> Html:
    """A picture, which is HTML, and what it shows."""
    return element('figure', Html(picture), element('figcaption', caption), class_='full' if wide else '')


def grid(*inside: object) -> Html:
    """Things beside one another where there is room, below one another where not."""
    return element('div', *inside, class_='grid')


def table(head: Sequence[object], rows: Sequence[Sequence[object]], *, strong: Sequence[int] = ()) -> Html:
    """A table that scrolls by itself where it is too wide; cells that begin with a digit are numbers, to the right.

    `strong` are the rows to bring out.
    """

    def cell(value: object) -> Html:
        shown = text(value)
        number = shown[:1].isdigit() or shown[:1] in ('±', '−')
        return element('td', Html(shown), class_='number') if number else element('td', Html(shown))

    titles = element('tr', *(element('th', name) for name in head))
    lines = [
        element('tr', *map(cell, row), class_='strong') if index in strong else element('tr', *map(cell, row))
        for index, row in enumerate(rows)
    ]
    inside = element('table', element('thead', titles), element('tbody', *lines))
    return element('div', inside, class_='scroll', tabindex='0')


def cards(values: Sequence[tuple[str, object, str]]) -> Html:
    """(value, what it is, a remark) each in a box of its own."""
    return element(
        'div',
        *(
            element('div', element('b', value), element('span', what), element('small', remark), class_='card')
            for value, what, remark in values
        ),
        class_='cards',
    )


def section(anchor: str, title: object, *inside: object) -> Html:
    """A part of the page with a heading."""
    return element('section', element('h2', title), *inside, id=anchor)


def page(title: str, lead: object, sections: Sequence[tuple[str, str, Html]], foot: object) -> str:
    """The whole file, of (anchor, short title, section)."""
    links = element('nav', *(element('a', short, href=f'#{anchor}') for anchor, short, _ in sections))
    head = element('header', element('h1', title), lead, links)
    body = joined([head, *(part for _, _, part in sections), element('footer', foot)])
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # What this page may fetch, should anything in it ask: nothing.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        '<link rel="icon" href="data:,">\n'  # a browser asks for one otherwise
        f'<title>{html.escape(title)}</title>\n<style>\n{css()}{_LAYOUT}</style>\n</head>\n'
        f'<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n'
    )


_LAYOUT = """
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 17px/1.6 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 2.1rem; line-height: 1.2; margin: 0 0 .4rem; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.45rem; line-height: 1.25; margin: 0 0 .6rem; overflow-wrap: anywhere; }
h3 { font-size: 1.08rem; margin: 1.6rem 0 .5rem; overflow-wrap: anywhere; }
p { max-width: 46em; margin: 0 0 1rem; overflow-wrap: break-word; }
header > p { color: var(--muted); font-size: 1.06rem; }
section { padding-top: 2.4rem; margin-top: 2.4rem; border-top: 1px solid var(--line); }
nav { display: flex; flex-wrap: wrap; gap: .35rem .5rem; margin-top: 1.3rem; }
nav a { color: var(--ink); text-decoration: none; border: 1px solid var(--line); border-radius: 99px;
  padding: .12rem .8rem; font-size: .88rem; }
nav a:hover, nav a:focus { border-color: var(--ink); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 14px; margin: 1.4rem 0; }
.card { background: var(--panel); border-radius: 10px; padding: 14px 16px; }
.card b { display: block; font-size: 1.6rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.card span { display: block; font-size: .92rem; }
.card small { display: block; color: var(--muted); font-size: .8rem; line-height: 1.4; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(310px, 100%), 1fr)); gap: 10px 26px; }
.grid > * { min-width: 0; }
figure { margin: 1rem 0 1.2rem; min-width: 0; }
figcaption { color: var(--muted); font-size: .88rem; line-height: 1.5; margin-top: .5rem; max-width: 52em; }
.chart svg { display: block; width: 100%; height: auto; }
.chart svg text { font-family: inherit !important; }
.wide, .scroll { overflow-x: auto; }
.wide svg { min-width: 680px; }
img { display: block; }
img.pixels { width: 100%; height: auto; image-rendering: pixelated; }
img.photo { border-radius: 6px; }
.tower { border-left: 4px solid var(--muted); padding-left: 12px; margin: .7rem 0; }
.tower0 { border-color: var(--tower0); } .tower1 { border-color: var(--tower1); }
.tower > b { display: block; font-size: .88rem; color: var(--muted); margin-bottom: .3rem; }
.tower0 > b, .t0 { color: var(--tower0); } .tower1 > b, .t1 { color: var(--tower1); }
.sheets { max-width: 900px; } .before { max-width: 420px; }
.sheets figure, .sheets .tower { overflow-x: auto; } .sheets img { min-width: 500px; }
.beside { display: flex; flex-wrap: wrap; gap: 8px 22px; align-items: center; }
.beside p { flex: 1 1 260px; }
.mistakes { display: grid; grid-template-columns: repeat(8, minmax(0, 1fr)); gap: 16px 12px; }
@media (max-width: 900px) { .mistakes { grid-template-columns: repeat(4, minmax(0, 1fr)); } }
.mistakes div { font-size: .84rem; line-height: 1.35; min-width: 0; overflow-wrap: anywhere; }
.mistakes img { width: 100%; height: auto; max-width: 150px; margin-bottom: .35rem; }
.mistakes small { color: var(--muted); display: block; }
table { border-collapse: collapse; font-size: .9rem; width: 100%; }
th { text-align: left; font-weight: 600; color: var(--muted); border-bottom: 2px solid var(--line); }
th, td { padding: .34rem .9rem .34rem 0; vertical-align: top; }
td { border-bottom: 1px solid var(--line); }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.strong td { font-weight: 650; background: var(--panel); }
tr.strong td:first-child { padding-left: .5rem; }
code, pre { font: .84rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
pre { background: var(--panel); border-radius: 8px; padding: 12px 14px; overflow-x: auto; }
details { margin: 1rem 0; } summary { cursor: pointer; color: var(--muted); }
section[id^="exchanges"] td { white-space: nowrap; }
#paper table { table-layout: fixed; min-width: 680px; } #paper td { overflow-wrap: anywhere; } #paper th { width: 24%; }
#paper th:nth-child(3), #paper th:nth-child(4) { width: 13%; }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: 3px; margin-right: .45em; }
footer { margin-top: 3rem; padding-top: 1.2rem; border-top: 1px solid var(--line); color: var(--muted); }
footer, footer p { font-size: .84rem; }
@media (max-width: 600px) {
  body { font-size: 16px; } main { padding: 22px 16px 40px; } h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; }
  .cards { grid-template-columns: 1fr 1fr; gap: 10px; } .card b { font-size: 1.3rem; }
  section { padding-top: 1.6rem; margin-top: 1.8rem; }
}
@media print { nav { display: none; } section { break-inside: avoid; } }
"""
