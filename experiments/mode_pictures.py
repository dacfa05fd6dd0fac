"""Draws data_parallel, hybrid and one_weird_trick as SVG files: a lane for each device, red where devices talk.

python -m experiments.mode_pictures        writes docs/figures/{data_parallel,hybrid,one_weird_trick}.svg

The bytes are those that `alexnet audit --config=configs/MODE.py:imagenet2012` prints.
"""

import pathlib

FOLDER = pathlib.Path(__file__).parents[1] / 'docs/figures'
LAYERS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7', 'fc8')
BLUE, ORANGE, RED, GREY = '#2b6cb0', '#c05621', '#c53030', '#4a5568'
FILL = {BLUE: '#dbe9f6', ORANGE: '#fbe3d2'}
LEFT, TOP, BOX, GAP, HEIGHT, LANE = 150, 44, 62, 18, 34, 62
BOTH = (BLUE, ORANGE)
# What each device computes of each layer: halves of its box, one colour a tower.
TOWERS = {
    'data_parallel': [[BOTH] * 8] * 2,
    'hybrid': [[(BLUE,)] * 7 + [BOTH], [(ORANGE,)] * 7 + [BOTH]] * 2,
    'one_weird_trick': [[BOTH] * 5 + [(BLUE,)] * 3, [BOTH] * 5 + [(ORANGE,)] * 3],
}
NAMES = {
    'data_parallel': ['images 0..63', 'images 64..127'],
    'hybrid': ['images 0..63', 'images 0..63', 'images 64..127', 'images 64..127'],
    'one_weird_trick': ['images 0..63', 'images 64..127'],
}
# (before or behind which layer, between which lanes, what is said)
WORDS = {
    'data_parallel': [],
    'hybrid': [(place, pair, '') for place in (2, 5, 6, 7) for pair in ((0, 1), (2, 3))],
    'one_weird_trick': [(5, (0, 1), 'images'), (6, (0, 1), 'units'), (8, (0, 1), 'sums')],
}
AVERAGED = {
    'data_parallel': (0, 1, 'all gradients averaged: 243.9 MB'),
    'hybrid': (0, 3, "each tower's gradients averaged: 130.1 MB"),
    'one_weird_trick': (0, 1, "the convolutions' gradients averaged: 9.3 MB"),
}


def text(x: float, y: float, words: str, *, size: int = 11, colour: str = '#1a202c', anchor: str = 'middle') -> str:
    """Words at a place."""
    return f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">{words}</text>'


def picture(mode: str) -> str:
    """The SVG of a mode."""
    lanes, names = TOWERS[mode], NAMES[mode]
    width, height = LEFT + 8 * (BOX + GAP) + 60, TOP + len(lanes) * LANE + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="Helvetica, Arial, sans-serif" role="img" aria-label="{mode}: who talks to whom">',
        f'<rect width="{width}" height="{height}" rx="10" fill="#ffffff"/>',
    ]
    parts += [text(LEFT + i * (BOX + GAP) + BOX / 2, TOP - 18, layer, size=12) for i, layer in enumerate(LAYERS)]
    for lane, (boxes, name) in enumerate(zip(lanes, names, strict=True)):
        y = TOP + lane * LANE
        parts.append(text(14, y + 15, f'device {lane}', size=12, anchor='start'))
        parts.append(text(14, y + 30, name, size=10, colour=GREY, anchor='start'))
        for place, colours in enumerate(boxes):
            x, part = LEFT + place * (BOX + GAP), BOX / len(colours)
            for half, colour in enumerate(colours):
                parts.append(
                    f'<rect x="{x + half * part}" y="{y}" width="{part}" height="{HEIGHT}" '
                    f'fill="{FILL[colour]}" stroke="{colour}"/>'
                )
            if place:
                parts.append(f'<path d="M{x - GAP} {y + HEIGHT / 2}H{x}" stroke="{GREY}"/>')
    for place, (first, last), said in WORDS[mode]:
        x = LEFT + place * (BOX + GAP) - GAP / 2
        start, end = TOP + first * LANE + HEIGHT / 2, TOP + last * LANE + HEIGHT / 2
        parts.append(f'<path d="M{x} {start}V{end}" stroke="{RED}" stroke-width="3"/>')
        if said:
            y = (start + end) / 2 + 3
            parts.append(text(x + 5, y, said, size=10, colour=RED, anchor='start'))
    first, last, said = AVERAGED[mode]
    x, y = width - 30, TOP + last * LANE + HEIGHT + 24
    parts.append(
        f'<path d="M{x} {TOP + first * LANE}V{TOP + last * LANE + HEIGHT}" stroke="{RED}" stroke-dasharray="5 3" '
        f'stroke-width="2"/>'
    )
    parts.append(text(x + 12, y, f'- - -  {said} a step, received by each device', colour=RED, anchor='end'))
    return '\n'.join([*parts, '</svg>']) + '\n'


if __name__ == '__main__':
    for name in TOWERS:
        (FOLDER / f'{name}.svg').write_text(picture(name))
