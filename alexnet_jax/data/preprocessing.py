"""How programs bring a photograph to a square record: each network's images were made by its own program.

'paper' is this project's own (photo.square_image). Weights from elsewhere are tested on what they were trained for:
`Variant.preprocessing`, and what `alexnet prepare --preprocessing` makes.
"""

import numpy as np
from PIL import Image

PAPER = 'paper'
# Of each what it does, with the record's side.
PREPROCESSINGS = {
    # Krizhevsky et al. 2012, section 2, which does not name the filter.
    PAPER: 'shorter side to {0}, bicubic with antialiasing; centre {0}x{0}',
    # BVLC/caffe src/caffe/util/io.cpp, ReadImageToCVMat by cv::resize; examples/imagenet/create_imagenet.sh has 256.
    'caffe': 'warped to {0}x{0}, whatever its shape, bilinear without antialiasing',
    # torchvision/transforms/_presets.py, ImageClassification.
    'torchvision': 'shorter side to {0}, bilinear with antialiasing; centre {0}x{0} at whole pixels',
}


def describe_preprocessing(name: str, record_size: int) -> str:
    """Describes in a few words what a preprocessing does."""
    return PREPROCESSINGS[name].format(record_size)


def make_square(pixels: np.ndarray, preprocessing: str, record_size: int) -> np.ndarray:
    """Brings uint8 (h, w, 3) to (record_size, record_size, 3) as 'caffe' or 'torchvision' does."""
    if preprocessing == 'caffe':
        rows = _interpolate(pixels, record_size)
        return np.rint(_interpolate(rows.swapaxes(0, 1), record_size).swapaxes(0, 1)).astype(np.uint8)
    assert preprocessing == 'torchvision', preprocessing
    height, width, _ = pixels.shape
    short = min(height, width)
    size = (int(record_size * width / short), int(record_size * height / short))
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
    left, top = (round((side - record_size) / 2) for side in size)
    return np.asarray(image)[top : top + record_size, left : left + record_size]


def _interpolate(pixels: np.ndarray, size: int) -> np.ndarray:
    """Interpolates rows to `size` of them, float32: at (row + 1/2) * scale - 1/2, the border beyond it."""
    last = len(pixels) - 1
    places = ((np.arange(size) + 0.5) * (len(pixels) / size) - 0.5).clip(0, last)
    above = places.astype(np.int64)
    weights = (places - above).astype(np.float32)[:, None, None]
    below = np.minimum(above + 1, last)
    return pixels[above] * (1 - weights) + pixels[below] * weights
