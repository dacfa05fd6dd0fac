"""A trained network in ONNX Runtime and as a StableHLO program, beside JAX, on real photographs.

    PYTHONPATH=. python experiments/other_runtimes.py WORKDIR [IMAGES]        needs the extra `onnx`

Takes the centre crops of the first IMAGES (100) validation images of the run's dataset, decoded by Pillow. Prints by
how much logits differ at most, relative to the largest, and for how many images the five likeliest classes are the
same in the same order; and whether weights come back from each file bit for bit.
"""

import datetime
import io
import pathlib
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
from PIL import Image

from alexnet_jax.checkpoints.hashes import hash_tree
from alexnet_jax.checkpoints.load import load_network
from alexnet_jax.data.augment import centre_crop, normalise
from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.model.alexnet import AlexNet
from alexnet_jax.weights import onnx_write, safetensors_file, stablehlo
from alexnet_jax.weights.open_weights import open_weights

# In a process of its own, which has nothing but JAX and the two files.
FRESH = """
import sys, jax, numpy
program = jax.export.deserialize(bytearray(open(sys.argv[1], 'rb').read()))
numpy.save(sys.argv[3], program.call(numpy.load(sys.argv[2]))['logits'])
assert not any(name.startswith(('alexnet_jax', 'flax')) for name in sys.modules)
"""


def by_onnxruntime(network, crops, folder):
    """Logits."""
    onnx_write.save_onnx(network, folder / 'net.onnx')
    session = onnxruntime.InferenceSession(folder / 'net.onnx', providers=['CPUExecutionProvider'])
    return session.run(['logits'], {'images': crops.transpose(0, 3, 1, 2).copy()})[0]


def by_stablehlo(network, crops, folder):
    """Logits, of a fresh process."""
    path = stablehlo.save_stablehlo(network, folder / 'net.stablehlo', today=datetime.date.today())
    np.save(folder / 'crops.npy', crops)
    files = (path.name, 'crops.npy', 'logits.npy')
    subprocess.run([sys.executable, '-I', '-c', FRESH, *files], cwd=folder, check=True)
    return np.load(folder / 'logits.npy')


def main(workdir, count=100):
    """Compares."""
    network = load_network(pathlib.Path(workdir))
    config = network.about['config']
    records = open_dataset(config['dataset'], data_dir=config['data_dir']).records('validation')
    images = (np.asarray(Image.open(io.BytesIO(records[i][0])).convert('RGB')) for i in range(int(count)))
    crops = np.stack([centre_crop(image, network.variant.input_size) for image in images]).astype(np.float32)
    x = normalise(jnp.asarray(crops), jnp.asarray(network.mean_image), std=network.variant.pixel_std)
    apply = jax.jit(AlexNet(network.variant, len(network.classes)).apply)
    expected = np.asarray(apply({'params': network.params}, x))
    print(f'{network.source}: {len(crops)} images, logits {expected.min():.1f} to {expected.max():.1f}')
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for runtime, run in (('ONNX Runtime', by_onnxruntime), ('StableHLO', by_stablehlo)):
            logits = run(network, crops, folder)
            difference = np.abs(logits - expected).max() / np.abs(expected).max()
            five, theirs = (np.argsort(-values, axis=1, kind='stable')[:, :5] for values in (expected, logits))
            same = int((five == theirs).all(axis=1).sum())
            print(f'{runtime:12}: at most {difference:.1e} apart, the same top-5 for {same} of {len(crops)}')
        safetensors_file.save_safetensors(network, folder / 'net.safetensors')
        for file in ('net.onnx', 'net.safetensors'):
            found = open_weights(folder / file)
            exact = hash_tree(found.params) == hash_tree(network.params)
            exact &= np.array_equal(found.mean_image, network.mean_image) and found.classes == network.classes
            print(f'{file:12}: {"comes back bit for bit" if exact else "CHANGED"}')


if __name__ == '__main__':
    main(*sys.argv[1:])
