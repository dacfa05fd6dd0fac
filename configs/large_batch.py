"""AlexNet by LARS at a batch of 4,096 or 8,192 (You, Gitman, Ginsburg, arXiv 1708.03888), as its authors trained it.

    python -m alexnet_jax.main --config=configs/large_batch.py --config.mesh=8,1          4,096 images a step, ImageNet
    python -m alexnet_jax.main --config=configs/large_batch.py:8k --config.mesh=8,1
    python -m alexnet_jax.main --config=configs/large_batch.py:cifar10                    80sec at 4,096, in minutes

The numbers are those of their solver files in NVIDIA/caffe: models/bvlc_alexnet/solver.prototxt at 2683ab5f, and
solver_8K.prototxt at 448ad5b8. The network is Caffe's AlexNet, with response normalisation; with batch normalisation,
which is not here, models/alexnet_bn/solver_8K.prototxt has the same rates. Their ramp begins at a rate of 1 and the
polynomial behind it; here the first step has one part of the ramp, and both hold from the start. --config.accumulate=8
where a device cannot hold its images. Neither of the first two was run here.
"""

import ml_collections

from alexnet_jax.errors import InputError
from alexnet_jax.model.cifar10 import CIFAR10, DECAY
from alexnet_jax.training.config import make_config

# batch_size, learning_rate, warmup_epochs: of 1,281,167 images, 1,250 iterations and 600.
RECIPES = {'4k': (4096, 10.0, 4.0), '8k': (8192, 10.0, 3.84), 'cifar10': (4096, 10.0, 0.5)}


def get_config(recipe: str | None = None) -> ml_collections.ConfigDict:
    """The recipe, a key of RECIPES, by default 4k, for ImageNet or CIFAR-10; --config.dataset=NAME for another."""
    recipe = recipe or '4k'
    if recipe not in RECIPES:
        raise InputError(f'configs/large_batch.py:{recipe}: there is no such recipe; use one of {", ".join(RECIPES)}')
    batch_size, learning_rate, warmup_epochs = RECIPES[recipe]
    if recipe == 'cifar10':
        config = make_config('cifar10', mesh=(1, 1))
        config.update(variant=CIFAR10['cifar10_80sec'].name, weight_decay=DECAY, epochs=10.0)
    else:
        config = make_config('imagenet2012', parallelism='data_parallel')
        config.update(variant='caffe_alexnet', weight_decay=5e-4, epochs=100.0)
    config.update(batch_size=batch_size, learning_rate=learning_rate, warmup_epochs=warmup_epochs)
    config.update(trust_coefficient=0.001, schedule='polynomial', schedule_power=2.0)
    return config
