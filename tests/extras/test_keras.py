"""Keras's files, as Keras writes them, give Keras's own logits; other models are refused by name, with shapes."""

import os

import numpy as np
import pytest
from extras.conftest import extra
from weights.networks import assert_same_logits, compute_logits, make_pictures

from alexnet_jax.errors import InputError
from alexnet_jax.weights.open_weights import open_weights

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
keras, h5py = extra('keras'), extra('h5py')
layers = keras.layers

NAMES = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7', 'fc8')
MEAN, STD = np.float32([0.485, 0.456, 0.406]) * 255, np.float32([0.229, 0.224, 0.225]) * 255
WIDTHS = {224: (4, 12, 24, 16, 16, 256), 227: (6, 16, 24, 24, 16, 256)}  # 1/16 of torchvision's, of Caffe's


@keras.saving.register_keras_serializable()
class LRN(layers.Layer):
    """Caffe's, in the plain sum that tf.nn.local_response_normalization has."""

    def call(self, x):
        padded = keras.ops.pad(x**2, ((0, 0), (0, 0), (0, 0), (2, 2)))
        near = sum(padded[..., place : place + x.shape[-1]] for place in range(5))
        return x / (1 + 1e-4 / 5 * near) ** 0.75


def make_chain(names, *, size=224, activation='relu', first=(), classes=10):
    """The layers of torchvision's network (224, padded) or of Caffe's (227, two towers)."""
    a, b, c, d, e, units = WIDTHS[size]
    groups, caffe = (1, False) if size == 224 else (2, True)
    norm = [LRN] * caffe
    pool = [lambda: layers.MaxPooling2D(3, 2)]
    conv1, conv2, conv3, conv4, conv5, fc6, fc7, fc8 = ({'name': name} if name else {} for name in names)
    relu, same = {'activation': activation}, {'padding': 'same'}
    return [
        *first,
        *([] if caffe else [layers.ZeroPadding2D(2)]),
        layers.Conv2D(a, 11, strides=4, **relu, **conv1),
        *(make() for make in norm + pool),
        layers.Conv2D(b, 5, groups=groups, **same, **conv2),
        layers.ReLU(),
        *(make() for make in norm + pool),
        layers.Conv2D(c, 3, **same, **relu, **conv3),
        layers.Conv2D(d, 3, groups=groups, **same, **relu, **conv4),
        layers.Conv2D(e, 3, groups=groups, **same, **conv5),
        layers.Activation('relu'),
        pool[0](),
        layers.Flatten(),
        layers.Dropout(0.5),
        layers.Dense(units, **relu, **fc6),
        layers.Dropout(0.5),
        layers.Dense(units, **relu, **fc7),
        layers.Dense(classes, **fc8),
    ]


def make_sequential(chain, size=224):
    return keras.Sequential([keras.Input((size, size, 3)), *chain])


def make_functional(chain, size=224):
    start = x = keras.Input((size, size, 3))
    for layer in chain:
        x = layer(x)
    return keras.Model(start, layers.Softmax()(x))


def make_nested(chain, size=224):
    middle = next(place for place, layer in enumerate(chain) if isinstance(layer, layers.Flatten))
    return make_sequential([keras.Sequential(chain[:middle]), keras.Sequential(chain[middle:])], size)


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


def save(model, path):
    """Saves a model after its biases were made other than 0."""
    random = np.random.default_rng(2)
    model.set_weights([x if x.ndim > 1 else random.normal(0, 0.1, x.shape) for x in model.get_weights()])
    (model.save_weights if path.name.endswith('.weights.h5') else model.save)(path)
    return path


def compute_keras_logits(model, x):
    """Logits: of the last Dense, in front of a softmax."""
    if isinstance(model.layers[-1], layers.Softmax):
        model = keras.Model(model.inputs, model.layers[-2].output)
    return np.asarray(model(x, training=False))


@pytest.mark.parametrize('kind', ['w.keras', 'w.h5', 'w.weights.h5'])
@pytest.mark.parametrize(
    ('make', 'names'),
    [
        (make_sequential, [None] * 8),
        (make_functional, [*'zyxwvuts']),
        (make_nested, NAMES),
        (make_nested, [*'abcdeabc']),
    ],
)
def test_load_keras_gives_keras_logits(tmp_path, make, names, kind):
    model = make(make_chain(names))
    net = open_weights(save(model, tmp_path / kind))
    assert (net.name.variant, net.name.width, net.preprocessing) == ('one_weird_trick', 0.0625, 'torchvision')
    crops = make_pictures(224)
    assert_same_logits(compute_logits(net, crops), compute_keras_logits(model, (crops - MEAN) / STD))


def test_load_keras_gives_keras_logits_of_two_towers(tmp_path):
    model = make_sequential(make_chain(NAMES, size=227), 227)
    path = save(model, tmp_path / 'w.weights.h5')
    with pytest.raises(InputError, match=r'--variant=NAME --to=safetensors .* with one of .*caffe_alexnet') as refused:
        open_weights(path)
    assert '\n' not in str(refused.value)
    net, crops = open_weights(path, variant='caffe_alexnet'), make_pictures(227)
    expected = compute_keras_logits(model, crops - np.float32([123, 117, 104]))
    assert_same_logits(compute_logits(net, crops), expected)
    with h5py.File(path, 'r+') as file:  # as if the layers had been made in another order: the names tell
        for one, other in (('conv2d', 'first'), ('conv2d_3', 'conv2d'), ('first', 'conv2d_3')):
            file.move(f'layers/{one}', f'layers/{other}')
    assert_same_logits(compute_logits(open_weights(path, variant='caffe_alexnet'), crops), expected)


@pytest.mark.parametrize(
    ('kind', 'how', 'says'),
    [
        ('w.keras', {'activation': 'tanh'}, 'it has tanh conv2d.* where one_weird_trick has Relu'),
        ('w.h5', {'first': [layers.Rescaling(1 / 255)]}, 'is Rescaling, which is none that is known here'),
        ('w.keras', {'size': 227}, r'is LRN, which .*save_weights\(.*--variant'),
        ('w.keras', {'first': [layers.Conv2D(3, 3, strides=2, padding='same')]}, "pads by 'same', which depends"),
        (
            'w.weights.h5',
            {'first': [layers.BatchNormalization()]},
            r'batch_normalization.* has arrays of \(3,\), \(3,\)',
        ),
        ('w.weights.h5', {'first': [layers.Conv2D(3, 1)]}, r'9 layers have weights, not 8: conv2d.* \(1, 1, 3, 3\)'),
    ],
)
def test_load_keras_refuses_other_models(tmp_path, kind, how, says):
    size = how.get('size', 224)
    path = save(make_sequential(make_chain([None] * 8, **how), size), tmp_path / kind)
    with pytest.raises(InputError, match=says) as refused:
        open_weights(path)
    assert '\n' not in str(refused.value)


def test_load_keras_refuses_weights_whose_order_is_not_known(tmp_path):
    path = save(make_sequential(make_chain([None] * 8)), tmp_path / 'w.weights.h5')
    with h5py.File(path, 'r+') as file:  # as of a model in the model
        file.move('layers/conv2d_1', 'layers/sequential/layers/conv2d')
    with pytest.raises(InputError, match='two of its layers are conv2d of one number: name the layers conv1 to fc8'):
        open_weights(path)


def test_load_keras_refuses_damage_and_other_hdf5(tmp_path):
    path = save(make_sequential(make_chain(NAMES)), tmp_path / 'w.h5')
    content = path.read_bytes()
    for damaged, says in ((content[: len(content) // 2], 'copy it again'), (content[:700], 'copy it again')):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=says) as refused:
            open_weights(path)
        assert '\n' not in str(refused.value)
    with h5py.File(path, 'w') as file:
        file['a/b/c'] = np.zeros(3)
    with pytest.raises(InputError, match=r'its layer a/b .* has arrays of \(3,\), no kernel and bias'):
        open_weights(path)
