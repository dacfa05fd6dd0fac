"""A measured process: python -m alexnet_jax.benchmark.worker NAME SETTING, see protocol."""

from alexnet_jax.benchmark.protocol import Setting, run_worker
from alexnet_jax.benchmark.sampling import Program


def make_programs(name: str, setting: Setting) -> tuple[dict[str, Program], dict[str, str]]:
    """Makes the programs of a process and {library: version}; imports only what they need.

    `name` is 'one_device', 'two_device', 'layers', 'ceilings', 'gpu_ceilings', 'input', 'torch_FORM', 'torch_ceiling',
    'torch_loader' or 'tf_FORM'.
    """
    peer, _, form = name.partition('_')
    if name == 'torch_loader':
        from alexnet_jax.benchmark.peers import torch_loader

        return torch_loader.make_loader_programs(setting)
    if peer == 'torch':
        from alexnet_jax.benchmark.peers import torch_alexnet

        return torch_alexnet.make_torch_programs(form, setting)
    if peer == 'tf':
        from alexnet_jax.benchmark.peers import tf_data

        return tf_data.make_tf_programs(form, setting)
    import jax
    import numpy as np

    versions = {'jax': jax.__version__, 'numpy': np.__version__}
    if name == 'input':
        from alexnet_jax.benchmark.input_programs import make_input_programs

        return make_input_programs(setting), versions
    from alexnet_jax.benchmark.step_programs import make_step_programs

    return make_step_programs(name, setting), versions


if __name__ == '__main__':
    run_worker(make_programs)
