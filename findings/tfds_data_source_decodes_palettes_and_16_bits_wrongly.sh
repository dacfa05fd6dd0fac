#!/usr/bin/env bash
# tensorflow-datasets 4.9.10 without OpenCV: what tfds.data_source decodes has the right shape and the wrong pixels where a PNG
# has a palette or 16 bits.
#
# Guess: Image() is RGB of 8 bits whatever the file, as as_dataset's tf.io.decode_image makes it: palettes become their colours,
#        16 bits their upper 8; or a file that does not fit the feature is refused.
# Seen: without TensorFlow the file is np.asarray(PIL.Image.open(file), dtype=uint8), and what has two dimensions is then copied
#       to three channels. A PNG with a palette gives the numbers of its entries as grey; 16-bit grey gives the low byte, which
#       is noise (0x1234 is 0x34), a bilevel PNG 0 and 1 for 0 and 255. Shape and dtype are those of the feature. RGBA and CMYK
#       pass with 4 channels. Dataset, features and metadata are the same for both readers, so one trains and another
#       evaluates on different images. The first use logs only that OpenCV would be faster.
# What to do: decoders={'image': tfds.decode.SkipDecoding()} and decode the bytes oneself; count the modes of a dataset's files once.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-datasets==4.9.10 importlib_resources==7.1.0 \
    array-record==0.8.6 pillow==13.0.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


def encode(image, format='PNG'):
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


def decode(data, channels=3):
    """Returns what data_source gives for a file's bytes: features[...].decode_example_np."""
    return tfds.features.Image(shape=(None, None, channels)).decode_example_np(data)


rng = np.random.default_rng(0)
picture = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
assert (decode(encode(picture)) == np.asarray(picture)).all()
assert (decode(encode(picture.convert('L'))) == np.asarray(picture.convert('L').convert('RGB'))).all()

indexed = picture.quantize(8)
found, colours = decode(encode(indexed)), np.asarray(indexed.convert('RGB'))
print('palette:', found[0, 0], 'for the colour', colours[0, 0])
assert found.shape == colours.shape and found.max() < 8 and (found == np.asarray(indexed)[:, :, None]).all()

deep = rng.integers(0, 65536, (16, 16), np.uint16)
found = decode(encode(Image.fromarray(deep)), channels=1)
print('16 bits:', hex(found[0, 0, 0]), 'for', hex(deep[0, 0]))
assert found.shape == (16, 16, 1) and found.dtype == np.uint8 and (found[:, :, 0] == deep % 256).all()

found = decode(encode(picture.convert('1')), channels=1)
print('bilevel: values', np.unique(found))
assert set(np.unique(found)) == {0, 1}

for mode, format in (('RGBA', 'PNG'), ('CMYK', 'JPEG')):
    found = decode(encode(picture.convert(mode), format))
    print(f'{mode}: shape {found.shape} for the feature (None, None, 3)')
    assert found.shape == (16, 16, 4)
PYTHON
echo 'unchanged: data_source of tensorflow-datasets 4.9.10 takes palette entries and low bytes for pixels'
