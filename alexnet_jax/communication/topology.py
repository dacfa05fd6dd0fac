"""Describes hardware that is not here: TPU chips for which libtpu compiles programs that are never run.

The devices know where they are in the grid of chips, and so does the compiler: the program is the one that the real
slice would run.
"""

import importlib.util
import itertools
import math
import os
import re
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from alexnet_jax.communication.chips import CHIPS, Chip, list_slices
from alexnet_jax.communication.gpus import GPUS
from alexnet_jax.errors import InputError

# Without these libtpu asks for the machine that it believes to be on, which takes minutes to fail, and refuses to be
# loaded by a second process, which no chip can suffer from here.
_ENVIRONMENT = {
    'TPU_SKIP_MDS_QUERY': '1',
    'TPU_ACCELERATOR_TYPE': 'v5litepod-256',
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
}


def get_chip(topology: str) -> Chip:
    """Returns the chip of a topology, 'v5e:4x4', or of a kind, 'v5e'; `InputError` if it is unknown."""
    kind = topology.partition(':')[0]
    if kind not in CHIPS:
        raise InputError(f'--topology={topology}: no chip {kind!r} is known, only {", ".join([*CHIPS, *GPUS])}')
    return CHIPS[kind]


def parse_topology(topology: str) -> tuple[int, ...]:
    """Parses the sides of a topology, in chips: (4, 4) of 'v5e:4x4'.

    Raises:
      InputError: it is none, or too large for one slice of such chips.
    """
    chip, sides = get_chip(topology), topology.partition(':')[2]
    known = ', '.join(list_slices(chip).values())
    if not re.fullmatch(r'[1-9]\d{0,3}(x[1-9]\d{0,3})*', sides) or sides.count('x') != chip.dimensions - 1:
        raise InputError(f'--topology={topology} is no topology of {chip.name} chips: use one like {known}')
    shape = tuple(map(int, sides.split('x')))
    if math.prod(shape) > chip.pod:
        count = f'{math.prod(shape):,} chips, a slice of {chip.name} at most {chip.pod:,}'
        raise InputError(f'--topology={topology} has {count}: use one like {known}')
    return shape


def make_topology_devices(topology: str) -> list[Any]:
    """Describes a topology's devices, for compilation only.

    In the order that JAX has on the real slice, host after host: the towers of one replica are neighbouring chips.

    Raises:
      InputError: libtpu is not installed, or there is no such topology.
    """
    chip, shape = get_chip(topology), parse_topology(topology)
    if importlib.util.find_spec('libtpu') is None:
        raise InputError("--topology needs the TPU compiler: pip install 'alexnet-jax[tpu]'")
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    jax.config.update('jax_platforms', 'cpu')  # with libtpu installed JAX would look for chips to run on
    jax.config.update('jax_enable_compilation_cache', False)  # programs for absent chips cannot be read from it
    # A host has 2x2 chips, or all of a smaller slice.
    host = (min(shape[0], 2), min(shape[1], 2), 1)
    try:
        found = topologies.get_topology_desc(
            topology, platform='tpu', chip_config_name=chip.setting, chips_per_host_bounds=host
        )
    except jax.errors.JaxRuntimeError as error:
        reason, known = ' '.join(str(error).split()), ', '.join(list_slices(chip).values())
        raise InputError(f'--topology={topology} cannot be compiled for: {reason}; use one like {known}') from error
    return found.devices


def count_links(mesh: Mesh, axes: tuple[str, ...], topology: str) -> float:
    """Counts the links' worth of bandwidth over which a chip receives what its group along `axes` says, at best.

    `mesh` is of devices with coordinates in `topology`, and larger than 1 along `axes` together.

    A group reaches a chip along each side of the grid on which its members differ: from two neighbours where the side
    is a ring, from one where it has ends, because those at the ends have one and the others wait for them. Groups that
    are interleaved on a side share its links. At best a group uses all of its sides at once, and evenly.
    """
    shape, ring = parse_topology(topology), get_chip(topology).ring
    grid = np.moveaxis(mesh.devices, [mesh.axis_names.index(axis) for axis in axes], range(len(axes)))
    groups = grid.reshape(math.prod(mesh.shape[axis] for axis in axes), -1).T
    return min(_count_group_links([device.coords for device in group], shape, ring) for group in groups)


def _count_group_links(members: list[tuple[int, ...]], shape: tuple[int, ...], ring: int) -> float:
    # Coordinates have three numbers, also where chips form a plane.
    total = 0.0
    for side, places in zip(shape, zip(*members, strict=True), strict=False):
        taken = sorted(set(places))
        if len(taken) > 1:
            closed = side % ring == 0 and len(taken) > 2
            total += (2 if closed else 1) / max(b - a for a, b in itertools.pairwise(taken))
    return total
