"""AlexNet as it was really trained: two towers on two devices, in JAX.

What this module exports is imported at its first use, so that `import alexnet_jax` and `alexnet --help` load no JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alexnet_jax.data.dataset import open_dataset as open_dataset
    from alexnet_jax.library import load as load
    from alexnet_jax.model.alexnet import AlexNet as AlexNet
    from alexnet_jax.model.alexnet import init_parameters as init_parameters
    from alexnet_jax.model.zoo import NETWORKS as NETWORKS
    from alexnet_jax.sharding.mesh import make_mesh as make_mesh
    from alexnet_jax.training.step import make_train_step as make_train_step

    __version__: str

_MODULES = {
    'NETWORKS': 'model.zoo',
    'AlexNet': 'model.alexnet',
    'init_parameters': 'model.alexnet',
    'load': 'library',
    'make_mesh': 'sharding.mesh',
    'make_train_step': 'training.step',
    'open_dataset': 'data.dataset',
}
__all__ = ['__version__', *_MODULES]


def __getattr__(name: str) -> Any:
    """Imports an export at its first use (PEP 562)."""
    if name == '__version__':
        from importlib import metadata

        try:
            return metadata.version('alexnet-jax')
        except metadata.PackageNotFoundError:
            return '0+not.installed'  # a checkout that is only on the path
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = globals()[name] = getattr(importlib.import_module(f'{__name__}.{_MODULES[name]}'), name)
    return value


def __dir__() -> list[str]:
    """Lists the exports too, imported or not."""
    return sorted({*globals(), *__all__})
