"""What the choices of the input pipeline rest on: JPEG decoders, resizers and record formats, measured in turn.

    python -m experiments.decoders IMAGES

IMAGES is a folder of photographs (JPEG), any depth. Compared are the libraries that are installed:
`pip install opencv-python-headless imagecodecs PyTurboJPEG cykooz-resizer kornia-rs pyvips[binary]`; PyTurboJPEG also
needs the system's libturbojpeg. Speeds are medians of interleaved rounds, of resizers by CPU time (some start threads);
docs/data.md holds the result.
"""

from __future__ import annotations

import concurrent.futures
import functools
import importlib
import io
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from alexnet_jax.data.photo import _resize, photo_to_jpeg, square_image
from alexnet_jax.data.statistics import Statistics

ROUNDS, TAKEN = 7, 200
Call = Callable[[Any], Any]


def main(folder: str) -> None:
    """Measures and prints the four tables."""
    paths = sorted(p for p in pathlib.Path(folder).rglob('*') if p.suffix.lower() in ('.jpg', '.jpeg'))
    photos = [path.read_bytes() for path in paths[:: max(1, len(paths) // TAKEN)]]
    records = [photo_to_jpeg(photo) for photo in photos]
    for name, jpegs in (('records, 256x256, quality 95, 4:4:4', records), ('photographs', photos)):
        print(f'decoding {name}: {len(jpegs)} of {sum(map(len, jpegs)) / len(jpegs):,.0f} bytes')
        table(decoders(), jpegs, threads=(1, 2))
    print('a decoded photograph to 256x256, by CPU time; PSNR to Pillow bicubic in one call, median and worst')
    pixels = [simplejpeg.decode_jpeg(photo) for photo in photos]
    wanted = [pillow_square(image) for image in pixels]
    compared = functools.partial(compare, pixels=pixels, wanted=wanted)
    table(resizers(), pixels, threads=(1,), clock=time.process_time, note=compared)
    print('records by quality and chroma; PSNR to the uncompressed 256x256')
    squares, calls = [square_image(photo) for photo in photos], {}
    for quality, chroma in ((q, c) for q in (90, 95, 98) for c in ('444', '420')):
        jpegs = [simplejpeg.encode_jpeg(square, quality, 'RGB', chroma, fastdct=False) for square in squares]
        size = f'{sum(map(len, jpegs)) / len(jpegs):,.0f} bytes'
        calls[f'quality {quality}, {":".join(chroma)}, {size}'] = functools.partial(decode_of, jpegs)
    places = range(len(squares))
    table(calls, places, threads=(1,), note=lambda call: psnr_of([call(i) for i in places], squares))
    print('a photograph prepared: converted, encoded, decoded again, added to the mean and the covariance')
    table({'this project': prepare(Statistics(1)), 'Pillow and NumPy': pillow_prepare()}, photos, threads=(1,))


def decode_of(jpegs: list[bytes], index: int) -> np.ndarray:
    """One of them."""
    return simplejpeg.decode_jpeg(jpegs[index])


def table(
    calls: dict[str, Call],
    items: Sequence[Any],
    *,
    threads: Sequence[int],
    clock: Callable[[], float] = time.perf_counter,
    note: Callable[[Call], str] | None = None,
) -> None:
    """Prints items/s of each call, and the ratio to the first, medians over rounds in which they take turns."""
    seconds: dict[tuple[str, int], list[float]] = {(name, n): [] for n in threads for name in calls}
    for n in threads:
        with concurrent.futures.ThreadPoolExecutor(n) as pool:
            for _ in range(ROUNDS):
                for name, call in calls.items():
                    began = clock()
                    for _ in pool.map(lambda part, call=call: [call(item) for item in part], split(items, 4 * n)):
                        pass
                    seconds[name, n].append((clock() - began) / len(items))
    first = next(iter(calls))
    for name, call in calls.items():
        cells = []
        for n in threads:
            ratio = statistics.median(a / b for a, b in zip(seconds[first, n], seconds[name, n], strict=True))
            cells.append(f'{1 / statistics.median(seconds[name, n]):8,.0f}/s {ratio:5.2f}x')
        print(f'    {name:36}{"   ".join(cells)}   {note(call) if note else ""}', flush=True)


def split(items: Sequence[Any], parts: int) -> list[Sequence[Any]]:
    """Parts of equal length, or nearly."""
    return [items[i * len(items) // parts : (i + 1) * len(items) // parts] for i in range(parts)]


def compare(call: Call, *, pixels: Sequence[np.ndarray], wanted: list[np.ndarray]) -> str:
    """PSNR of what the call makes of the images to what is wanted; nothing where that is a crop."""
    found = [call(image) for image in pixels]
    return psnr_of(found, wanted) if found[0].shape == wanted[0].shape else ''


def psnr_of(images: list[np.ndarray], wanted: list[np.ndarray]) -> str:
    """Median and smallest peak signal-to-noise ratio, dB."""
    errors = [np.square(a.astype(float) - b).mean() for a, b in zip(images, wanted, strict=True)]
    values = [10 * np.log10(255**2 / max(error, 1e-9)) for error in errors]
    return f'{statistics.median(values):.1f} dB, {min(values):.1f}' if max(errors) > 0 else 'equal'


def decoders() -> dict[str, Call]:
    """{library and version: bytes -> RGB}; those that are not there are named."""
    found: dict[str, Call] = {'simplejpeg': simplejpeg.decode_jpeg}
    found['simplejpeg, fastdct'] = lambda data: simplejpeg.decode_jpeg(data, fastdct=True, fastupsample=True)
    found['Pillow'] = lambda data: np.asarray(Image.open(io.BytesIO(data)).convert('RGB'))
    try:
        turbojpeg: Any = importlib.import_module('turbojpeg')
        turbo = turbojpeg.TurboJPEG()
        found['PyTurboJPEG'] = lambda data: turbo.decode(data, turbojpeg.TJPF_RGB)
    except (ImportError, RuntimeError) as error:
        print(f'    PyTurboJPEG: {error}')
    if (cv2 := opencv()) is not None:
        found['OpenCV'] = lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    try:
        found['imagecodecs'] = importlib.import_module('imagecodecs').jpeg8_decode
    except ImportError as error:
        print(f'    imagecodecs: {error}')
    return found


def resizers() -> dict[str, Call]:
    """{how: decoded image -> 256x256 of its central square}."""
    found: dict[str, Call] = {
        'this project: Pillow, rows first': lambda image: _resize(image, top=0, left=0, side=256, record_size=256),
        '... and a crop of 224': lambda image: _resize(image, top=5, left=17, side=224, record_size=256),
        'Pillow, bicubic': pillow_square,
        'Pillow, bicubic, reducing_gap 1.0': lambda image: pillow_square(image, reducing_gap=1.0),
        'Pillow, box': lambda image: pillow_square(image, resample=Image.Resampling.BOX),
    }
    if (cv2 := opencv()) is not None:
        for name, way in (('area', cv2.INTER_AREA), ('cubic: aliases', cv2.INTER_CUBIC)):
            found[f'OpenCV, {name}'] = lambda image, way=way: cv2.resize(central(image), (256, 256), interpolation=way)
    for name, make in (('cykooz_resizer', cykooz), ('kornia_rs.imgproc', kornia), ('pyvips', vips)):
        try:
            found[f'{name.split(".")[0]}, bicubic'] = make(importlib.import_module(name))
        except ImportError as error:
            print(f'    {name}: {error}')
    return found


def cykooz(library: Any) -> Call:
    """What this project used before: no wheels for ARM Linux."""
    resizer, kind = library.Resizer(), library.PixelType.U8x3
    way = library.ResizeAlg.convolution(library.FilterType.catmull_rom)

    def call(image: np.ndarray) -> np.ndarray:
        height, width, _ = image.shape
        side = min(height, width)
        box = library.CropBox((width - side) / 2, (height - side) / 2, side, side)
        source, square = library.ImageData(width, height, kind, image.tobytes()), library.ImageData(256, 256, kind)
        resizer.resize(source, square, library.ResizeOptions(resize_alg=way, crop_box=box))
        return np.frombuffer(square.get_buffer(), np.uint8).reshape(256, 256, 3)

    return call


def kornia(library: Any) -> Call:
    """SIMD, a form for each kind of processor, and threads of its own."""
    return lambda image: library.resize(np.ascontiguousarray(central(image)), (256, 256), 'bicubic', antialias=True)


def vips(library: Any) -> Call:
    """libvips."""
    library.cache_set_max(0)

    def call(image: np.ndarray) -> np.ndarray:
        pixels = np.ascontiguousarray(central(image))
        whole = library.Image.new_from_memory(pixels, *pixels.shape[:2], 3, 'uchar')
        return whole.resize(256 / len(pixels), kernel='cubic').numpy()

    return call


def opencv() -> Any:
    """The library with one thread, or None where it is not installed."""
    try:
        cv2: Any = importlib.import_module('cv2')
    except ImportError as error:
        print(f'    OpenCV: {error}')
        return None
    cv2.setNumThreads(1)
    return cv2


def central(image: np.ndarray) -> np.ndarray:
    """The largest square in the middle, to whole pixels."""
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def pillow_square(image: np.ndarray, **options: Any) -> np.ndarray:
    """The conversion by Pillow, of the needed box alone."""
    height, width, _ = image.shape
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    options = {'resample': Image.Resampling.BICUBIC, 'box': (left, top, left + side, top + side)} | options
    return np.asarray(Image.fromarray(image).resize((256, 256), **options))


def prepare(statistics_: Statistics) -> Call:
    """What `prepare` does with each image."""
    return lambda data: statistics_.add(simplejpeg.decode_jpeg(photo_to_jpeg(data)), 0)


def pillow_prepare() -> Call:
    """The same as one would write it with Pillow and NumPy."""
    image_sum, product_sum = np.zeros((256, 256, 3)), np.zeros((3, 3))

    def call(data: bytes) -> None:
        nonlocal image_sum, product_sum
        image = Image.open(io.BytesIO(data)).convert('RGB')
        scale = 256 / min(image.size)
        width, height = (round(length * scale) for length in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - 256) // 2, (height - 256) // 2
        out = io.BytesIO()
        image.crop((left, top, left + 256, top + 256)).save(out, 'JPEG', quality=95, subsampling=0)
        pixels = np.asarray(Image.open(out), np.float64)
        image_sum += pixels
        flat = pixels.reshape(-1, 3)
        product_sum += flat.T @ flat

    return call


if __name__ == '__main__':
    main(*sys.argv[1:])
