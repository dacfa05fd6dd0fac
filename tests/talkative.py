"""A network that breaks the schedule: what reads it must notice."""

from jax import lax

from alexnet_jax.model.alexnet import AlexNet
from alexnet_jax.sharding.mesh import TOWER


class Talkative(AlexNet):
    """Talks one time more: adds nothing to conv5's input, but asks the other tower what nothing is."""

    def _convolve(self, conv, x):
        if conv.name == 'conv5':
            x = x + 1e-30 * lax.psum(x.mean(), TOWER)
        return super()._convolve(conv, x)
