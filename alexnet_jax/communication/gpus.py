"""Lists what NVIDIA publishes about its GPUs and their hosts, from which predictions for them are calculated."""

import dataclasses
import pathlib
import re

from alexnet_jax.errors import InputError

_TARGETS = pathlib.Path(__file__).parent / 'gpu_targets'
_COUNTS = (1, 2, 4, 8, 16, 32, 64)


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A kind of GPU, as published, and of hosts that have it.

    Attributes:
      flops: bfloat16 operations a second, dense, a multiplication and an addition being two.
      tf32_flops: the same in TF32, in which JAX multiplies float32 by default.
      float32_flops: the same in float32 itself, which no tensor core computes.
      memory: bytes of it.
      memory_bandwidth: bytes a second between the GPU and its memory.
      link: what joins the GPUs of a host, 'NVLink' or 'PCIe'.
      link_bandwidth: bytes a second that a GPU receives over it.
      host: GPUs of a host.
      network_bandwidth: bytes a second that a host receives of others, a GPU's part of it.
    """

    name: str
    flops: float
    tf32_flops: float
    float32_flops: float
    memory: float
    memory_bandwidth: float
    link: str
    link_bandwidth: float
    host: int
    network_bandwidth: float

    def get_peak(self, precision: str) -> float:
        """Returns the operations a second that products of `precision`, 'float32' or 'bfloat16', can reach."""
        return {'float32': self.tf32_flops, 'bfloat16': self.flops}[precision]


# GPUs: NVIDIA's data sheets of A100 (80 GB, SXM), H100 and H200 (SXM), HGX B200 (of one of its GPUs) and L4; H100's
# TF32 without sparsity from the white paper of its architecture. Where a sheet gives operations with sparsity, half of
# them; of a link's two ways, one. Hosts: the network ports that are one GPU's in the sheets of DGX A100 (200 Gb/s), DGX
# H100, H200 and B200 (400 Gb/s); for L4 Google's g2-standard-96, which has 8 GPUs and 100 Gb/s. docs/gpu.md says where
# each was read.
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu('a100', 312e12, 156e12, 19.5e12, 80e9, 2039e9, 'NVLink', 300e9, host=8, network_bandwidth=25e9),
        Gpu('h100', 989.5e12, 494.7e12, 67e12, 80e9, 3350e9, 'NVLink', 450e9, host=8, network_bandwidth=50e9),
        Gpu('h200', 989.5e12, 494.7e12, 67e12, 141e9, 4800e9, 'NVLink', 450e9, host=8, network_bandwidth=50e9),
        Gpu('b200', 2250e12, 1100e12, 75e12, 180e9, 7700e9, 'NVLink', 900e9, host=8, network_bandwidth=50e9),
        Gpu('l4', 121e12, 60e12, 30.3e12, 24e9, 300e9, 'PCIe', 32e9, host=8, network_bandwidth=100e9 / 8 / 8),
    )
}


def is_gpu(topology: str | None) -> bool:
    """Tells whether a topology, 'h100:2', or a kind, 'h100', is of GPUs."""
    return bool(topology) and str(topology).partition(':')[0] in GPUS


def get_gpu(topology: str) -> Gpu:
    """Returns the GPU of a topology or a kind that is one of GPUs."""
    return GPUS[topology.partition(':')[0]]


def parse_hosts(topology: str) -> tuple[int, int]:
    """Parses 'h100:2x4', two hosts of four GPUs, as (2, 4); 'h100:2' is one host of two.

    Raises:
      InputError: it is no such thing, or a host does not have as many.
    """
    gpu, counts = get_gpu(topology), topology.partition(':')[2]
    examples = f'use one like {gpu.name}:2, or hosts x GPUs, {gpu.name}:2x4'
    if not re.fullmatch(r'([1-9]\d{0,3}x)?[1-9]\d{0,3}', counts):
        raise InputError(f'--topology={topology} is no number of {gpu.name} GPUs: {examples}')
    hosts, each = map(int, counts.split('x')) if 'x' in counts else (1, int(counts))
    if each > gpu.host:
        raise InputError(f'--topology={topology} has {each} GPUs in a host, {gpu.name} at most {gpu.host}: {examples}')
    return hosts, each


def list_gpu_topologies(gpu: Gpu) -> dict[int, str]:
    """Lists what --chips can ask for, {number of GPUs: topology}: parts of a host, then whole hosts."""
    return {n: f'{gpu.name}:{n}' if n <= gpu.host else f'{gpu.name}:{n // gpu.host}x{gpu.host}' for n in _COUNTS}


def find_target(gpu: Gpu) -> pathlib.Path:
    """Finds the text that tells the compiler what the GPU is, a GpuTargetConfig of XLA's."""
    return _TARGETS / f'{gpu.name}.txtpb'
