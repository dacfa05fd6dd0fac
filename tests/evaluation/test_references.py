"""The published errors that stand beside a test, and which of them can be compared with it."""

import pytest

from alexnet_jax.evaluation.references import select_references
from alexnet_jax.model.network import NetworkName


def test_select_references_keeps_protocols_apart():
    """The rows that the paper's abstract and table 2 are known by, and the reason why they stand alone."""
    rows = {row.run: row for row in select_references('ten_view') if row.dataset == 'ILSVRC-2012'}
    assert (rows['paper, 1 CNN'].top1_error, rows['paper, 1 CNN'].top5_error) == pytest.approx((0.407, 0.182))
    assert {row.protocol for row in select_references('centre')} == {'centre'}
    assert not any(row.run.startswith('paper') and row.dataset == 'ILSVRC-2012' for row in select_references('centre'))
    assert {row.models for row in select_references('ten_view')} == {1}
    assert 'paper, 5 CNNs' in {row.run for row in select_references('ten_view', models=5)}


@pytest.mark.parametrize(
    ('name', 'protocol', 'first', 'besides'),
    [  # runs as CHM layers/, BVLC/caffe and torchvision call them
        (NetworkName('released'), 'ten_view', {'released 145'}, set()),
        (NetworkName('paper'), 'ten_view', set(), set()),
        (NetworkName('half'), 'ten_view', {'released 145-half'}, {'released 145-half'}),
        (NetworkName('no_exchange'), 'ten_view', {'released 150'}, {'released 150'}),
        (NetworkName('no_norm'), 'ten_view', {'released 148'}, {'released 148'}),
        (NetworkName('released', without=('norm',)), 'ten_view', {'released 148'}, {'released 148'}),
        (NetworkName('released', width=0.5, without=('norm',)), 'ten_view', set(), {'released 148'}),
        (NetworkName('no_overlap'), 'ten_view', {'released 147'}, {'released 147'}),
        (NetworkName('released', without=('norm2',)), 'centre', set(), {'released 167'}),
        (NetworkName('caffe_alexnet'), 'centre', {'Caffe bvlc_alexnet'}, set()),
        (NetworkName('caffenet'), 'centre', {'Caffe bvlc_reference_caffenet'}, set()),
        (NetworkName('one_weird_trick'), 'centre', {'torchvision AlexNet'}, set()),
    ],
)
def test_select_references_puts_a_network_s_own_first(name, protocol, first, besides):
    """Those of the same network come first; those of networks that lack the same part come beside the usual ones."""
    found = select_references(protocol, networks=[name.build()])
    same = [row.is_of([name.build()]) for row in found]
    assert {row.run for row, own in zip(found, same, strict=True) if own} == first
    assert same == sorted(same, reverse=True)
    assert {row.run for row in found} - {row.run for row in select_references(protocol)} == besides


def test_select_references_of_networks_for_cifar():
    """26, 19 and 18 % of whole images (CHM example-layers/): beside each of these networks, and beside no other."""
    for without in ((), ('norm',)):
        rows = select_references('centre', networks=[NetworkName('cifar10_18pct', without=without).build()])
        assert {row.run: row.top1_error for row in rows} == pytest.approx(
            {'cuda-convnet 80sec': 0.26, 'cuda-convnet 19pct': 0.19, 'cuda-convnet 18pct': 0.18}
        )
    later, first = (
        select_references('centre', networks=[NetworkName(name).build()])[0]
        for name in ('cifar10_18pct', 'cifar10_18pct_published')
    )
    assert later.run == 'cuda-convnet 80sec'  # of the same code as it is since 2012-07-17 nothing was published
    assert (first.run, first.top5_error) == ('cuda-convnet 18pct', None)
    assert first.unlike('cifar10', 'validation') == ''  # what TFDS and his data call the test images
    assert first.unlike('cifar10', 'train') == 'not comparable: test, not train'
    assert first.unlike('imagenet2012', 'validation') == 'not comparable: CIFAR-10, not imagenet2012'
    # CC a2a6af8 convdata.py has ten views for nine places, and the 11 % network.
    (eleven,) = select_references('ten_view', networks=[NetworkName('cifar10_11pct').build()])
    assert (eleven.run, eleven.top1_error) == ('cuda-convnet 11pct', pytest.approx(0.11))
    assert eleven.is_of([NetworkName('cifar10_11pct').build()])
    assert not eleven.is_of([NetworkName('cifar10_11pct_draft').build()])
    both = select_references('centre', networks=[NetworkName(name).build() for name in ('cifar10_18pct', 'released')])
    assert {row.dataset for row in both} == {'CIFAR-10', 'ILSVRC-2010', 'ILSVRC-2012'}
    assert 'CIFAR-10' not in {row.dataset for row in select_references('centre')}


def test_unlike_names_another_dataset_or_split():
    row = next(row for row in select_references('ten_view') if row.run == 'paper, 1 CNN')
    assert row.unlike('imagenet2012', 'validation') == ''
    assert row.unlike('demo', 'validation') == 'not comparable: ILSVRC-2012, not the embedded dataset'
    assert row.unlike('clothing', 'validation') == 'not comparable: ILSVRC-2012, not clothing'
    assert row.unlike('imagenet2012', 'train') == 'not comparable: validation, not train'
