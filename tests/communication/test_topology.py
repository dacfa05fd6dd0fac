"""Topologies without their compiler: published figures against each other, and how many links lead to a group."""

import importlib.util
import math
import types

import numpy as np
import pytest

from alexnet_jax.communication.chips import CHIPS, list_slices
from alexnet_jax.communication.topology import count_links, get_chip, make_topology_devices, parse_topology
from alexnet_jax.errors import InputError


@pytest.mark.parametrize(
    ('kind', 'flops', 'all_reduce', 'bisection'),
    [
        ('v4', 1.1e18, 1.1e15, 24e12),  # of 4,096 chips, 16x16x16
        ('v5e', 50.63e15, 51.2e12, 1.6e12),  # of 256, 16x16
        ('v6e', 234.9e15, 102.4e12, 3.2e12),
    ],
)
def test_chips_agree_with_what_is_published_of_whole_pods(kind, flops, all_reduce, bisection):
    chip = CHIPS[kind]
    side = round(chip.pod ** (1 / chip.dimensions))
    assert side**chip.dimensions == chip.pod
    assert chip.pod * chip.flops == pytest.approx(flops, rel=0.03)
    assert chip.pod * 2 * chip.dimensions * chip.link_bandwidth == pytest.approx(all_reduce, rel=0.03)
    # A cut through a ring crosses two of its links.
    assert 2 * side ** (chip.dimensions - 1) * chip.link_bandwidth == pytest.approx(bisection, rel=0.05)


@pytest.mark.parametrize('kind', CHIPS)
def test_list_slices_has_every_power_of_two_up_to_256(kind):
    found = list_slices(CHIPS[kind])
    assert list(found) == [2**n for n in range(9)]
    assert {count: math.prod(parse_topology(name)) for count, name in found.items()} == {n: n for n in found}


def grid(shape, groups, *, names=('data', 'tower')):
    """A mesh of coordinates as JAX orders them: hosts of 2x2 chips one after another, `groups` wide."""
    width, height = shape
    places = [
        (x + dx, y + dy, 0)
        for y in range(0, height, 2)
        for x in range(0, width, 2)
        for dy in (0, 1)
        for dx in (0, 1)
        if x + dx < width and y + dy < height
    ]
    devices = np.empty(len(places), object)
    devices[:] = [types.SimpleNamespace(coords=place) for place in places]
    devices = devices.reshape(-1, groups)
    return types.SimpleNamespace(devices=devices, axis_names=names, shape=dict(zip(names, devices.shape, strict=True)))


@pytest.mark.parametrize(
    ('shape', 'groups', 'axis', 'expected'),
    [
        ((1, 2), 2, 'tower', 1),  # two neighbours
        ((16, 16), 2, 'tower', 1),
        ((2, 2), 1, 'data', 2),  # a neighbour along each side
        ((4, 4), 1, 'data', 2),  # the chip in a corner has two
        ((8, 16), 1, 'data', 1 + 2),  # a side of 16 is a ring
        ((16, 16), 1, 'data', 4),
        ((2, 2), 2, 'data', 1),  # replicas of towers: only along the other side
        ((4, 4), 2, 'data', 0.5 + 1),  # along the towers' side two groups share the links
        ((16, 16), 2, 'data', 1 + 2),
        ((16, 16), 4, 'tower', 2),  # a host
        ((16, 16), 4, 'data', 1 + 1),
    ],
)
def test_count_links_of_one_axis(shape, groups, axis, expected):
    assert count_links(grid(shape, groups), (axis,), f'v5e:{shape[0]}x{shape[1]}') == expected


def test_count_links_of_both_axes_is_all_of_a_chip():
    assert count_links(grid((16, 16), 8, names=('data', 'model')), ('data', 'model'), 'v5e:16x16') == 4


@pytest.mark.parametrize(
    ('topology', 'complaint'),
    [
        ('v9:2x2', "no chip 'v9' is known, only v4, v5e, v5p, v6e, a100, h100, h200, b200, l4"),
        ('v5e', 'no topology of v5e chips: use one like v5e:1x1, v5e:1x2, v5e:2x2'),
        ('v5e:', 'is no topology'),
        ('v5e:4', 'is no topology'),
        ('v5e:4x4x4', 'is no topology'),
        ('v5e:0x4', 'is no topology'),
        ('v5e:4xx4', 'is no topology'),
        ('v4:4x4', 'is no topology of v4 chips: use one like v4:1x1x1'),
        ('v5e:16x32', 'has 512 chips, a slice of v5e at most 256'),
    ],
)
def test_parse_topology_refuses_in_one_line(topology, complaint):
    with pytest.raises(InputError, match=complaint) as found:
        parse_topology(topology)
    assert '\n' not in found.value.args[0]  # str() would hide it


def test_parse_topology_and_get_chip_read_the_name():
    assert parse_topology('v5e:8x16') == (8, 16)
    assert parse_topology('v5p:4x4x8') == (4, 4, 8)
    assert get_chip('v6e:2x2') is get_chip('v6e') is CHIPS['v6e']


def test_make_topology_devices_names_the_command_that_installs_the_compiler(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(InputError, match=r"^--topology needs the TPU compiler: pip install 'alexnet-jax\[tpu\]'$"):
        make_topology_devices('v5e:2x2')
