"""Fine-tunes the head of a network whose convolutions were trained on ImageNet: a few thousand photographs are enough.

    alexnet prepare --images=DIR --name=NAME
    pip install 'alexnet-jax[pretrained]'
    python -m alexnet_jax.main --config=configs/fine_tune.py:NAME

On 3,068 photographs of clothes, ten classes: 12 minutes on 2 shared cores, 15.7 % error (docs/results.md).

The convolutions of imagenet_trunk stay as they are, fc6 to fc8 start from noise. --config.frozen=conv1,conv2 with
--config.rate_factors.conv3=0.1 and so on trains some of them too.
"""

import ml_collections

from alexnet_jax.errors import InputError
from alexnet_jax.training.config import make_config


def get_config(dataset: str | None = None) -> ml_collections.ConfigDict:
    """The recipe for `dataset`, a prepared dataset's name: eight epochs, the rate lowered for the last two."""
    if not dataset:
        raise InputError('name the dataset that alexnet prepare made of your images: configs/fine_tune.py:NAME')
    config = make_config(dataset, mesh=(1, 1))
    config.update(variant='one_weird_trick', init_from='imagenet_trunk')
    config.frozen = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5')
    config.update(epochs=8.0, schedule='steps', drop_epochs=(6.0,), warmup_epochs=0.5)
    return config
