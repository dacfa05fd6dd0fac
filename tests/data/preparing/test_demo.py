import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from alexnet_jax.data.preparing import demo
from alexnet_jax.data.preparing.writer import prepare


def test_render_is_a_pure_function_of_split_and_index():
    image, label = demo.render('train', 7)
    again, _ = demo.render('train', 7)

    assert image.shape == (256, 256, 3)
    assert image.dtype == np.uint8
    assert label == 7
    np.testing.assert_array_equal(image, again)
    assert (image != demo.render('validation', 7)[0]).mean() > 0.5
    assert (image != demo.render('train', 17)[0]).mean() > 0.5


@pytest.mark.parametrize('split', ['train', 'validation'])
def test_render_balances_classes(split):
    labels = [demo.get_label(i) for i in range(demo.COUNTS[split])]

    counts = np.bincount(labels, minlength=len(demo.CLASSES))
    assert counts.tolist() == [demo.COUNTS[split] // 10] * 10
    assert demo.render(split, 23)[1] == labels[23]


# Areas of the shapes in units of the outer radius squared, from school geometry.
AREAS = {
    'disc': np.pi,
    'ring': np.pi * (1 - demo.RING_HOLE**2),
    'triangle': 3 * np.sqrt(3) / 4,
    'square': 2.0,
    'star': 5 * np.sin(np.pi / 5) * 0.45,
}


@pytest.mark.parametrize('shape', demo.SHAPES)
def test_demo_shapes_have_the_area_of_geometry_and_are_symmetric(shape):
    x, y = demo._X - 128, demo._Y - 128
    inside = demo._coverage(demo._distance(shape, x, y, radius=100.0, tilt=0.0))

    assert inside.sum() / 100**2 == pytest.approx(AREAS[shape], rel=0.01)
    np.testing.assert_allclose(inside, inside[:, ::-1], atol=1e-3)


@pytest.mark.parametrize(('fill', 'share'), [('striped', 0.5), ('spotted', np.pi * demo.SPOT_RADIUS**2)])
def test_demo_textures_are_coarse_and_cover_their_share(fill, share):
    rng = np.random.default_rng(0)
    pattern = np.stack([demo._texture(fill, rng) for _ in range(20)])

    assert pattern.mean() == pytest.approx(share, abs=0.03)
    width = {'striped': 0.5, 'spotted': 2 * demo.SPOT_RADIUS}[fill] * demo.PERIOD[fill][0]
    assert width >= 16  # px, of a stripe or spot; conv1 looks every 4 px


def test_prepare_demo_writes_rendered_images_as_tfds_dataset(tmp_path):
    prepare(demo.make_demo_spec(train=12, validation=10), data_dir=tmp_path, workers=1)

    builder = tfds.builder('demo', data_dir=tmp_path)
    train = builder.as_data_source('train', decoders={'image': tfds.decode.SkipDecoding()})
    assert builder.info.features['label'].names == list(demo.CLASSES)
    assert (len(train), builder.info.splits['validation'].num_examples) == (12, 10)
    assert sorted(int(r['label']) for r in train) == sorted([*range(10), 0, 1])
    for record in train:
        if record['label'] == 5:
            pixels = np.asarray(Image.open(io.BytesIO(record['image'])), np.int16)
            assert np.abs(pixels - demo.render('train', 5)[0]).mean() < 3  # JPEG's loss, no more
