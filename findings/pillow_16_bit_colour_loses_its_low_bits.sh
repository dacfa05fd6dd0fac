#!/usr/bin/env bash
# Pillow 13.0.0: 16-bit colour in PPM and TIFF opens as 8-bit RGB, without a word; 16-bit grey does not.
#
# Guess: an image of more than 8 bits a channel opens in a mode that says so (I;16 as for grey), or is refused.
# Seen: P6 with a largest value of 65535 and TIFF of 3 x 16 bits have mode RGB; P6 is scaled and rounded, TIFF cut to 8 bits.
#       So a check of the mode, which finds 16-bit grey PGM, PNG and TIFF, lets colour pass with less than it holds.
# What to do: look at the file's own header (the PPM's largest value, TIFF's BitsPerSample) where depth matters.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 numpy==2.4.6 tifffile==2026.3.3
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import io

import numpy as np
import tifffile
from PIL import Image

values = np.array([[[0x1234, 0xABCD, 0x00FF]]], np.uint16)


def ppm(kind, pixels):
    return b'%s 1 1 65535\n' % kind + pixels.astype('>u2').tobytes()


def tiff(pixels, kind):
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, photometric=kind)
    return file.getvalue()


found = {}
for name, data in {
    'P5 grey': ppm(b'P5', values[..., 0]),
    'P6 colour': ppm(b'P6', values),
    'TIFF grey': tiff(values[..., 0], 'minisblack'),
    'TIFF colour': tiff(values, 'rgb'),
}.items():
    image = Image.open(io.BytesIO(data))
    found[name] = image.mode, np.asarray(image).ravel().tolist()
    print(name, *found[name])
assert found['P6 colour'][0] == found['TIFF colour'][0] == 'RGB'
assert found['TIFF colour'][1] == [0x12, 0xAB, 0x00]
assert found['P6 colour'][1][0] == 0x12
assert found['P5 grey'] != 'RGB' and found['P5 grey'][1] == [0x1234]
assert found['TIFF grey'][0].startswith('I') and found['TIFF grey'][1] == [0x1234]
PYTHON
echo 'unchanged: Pillow opens 16-bit colour as 8-bit RGB'
