"""A PyTorch process that is measured: python tests/peers/torch_worker.py FORM SETTING, see benchmark.protocol."""

import os
import sys

from alexnet_jax.benchmark import protocol
from alexnet_jax.benchmark.sampling import Program


def main(form: str, argument: str) -> None:
    """Builds the network in `form`, one of torch_alexnet.FORMS, or 'ceiling', a matrix product; answers requests."""
    setting, answers = protocol.begin(argument)
    import torch  # after `begin`, which sets the allocator
    import torch_alexnet

    torch.set_num_threads(os.cpu_count() or 1)
    if form == 'ceiling':
        side = 3072
        a, b, product = (torch.randn(side, side) for _ in range(3))
        programs = {'gemm_torch': Program(lambda: torch.matmul(a, b, out=product), flop=2 * side**3)}
    else:
        trainer = torch_alexnet.Trainer(torch_alexnet.FORMS[form], setting)
        programs = {'train': Program(trainer.train), 'inference': Program(trainer.inference)}
    protocol.serve(answers, programs, versions={'torch': torch.__version__})


if __name__ == '__main__':
    main(*sys.argv[1:])
