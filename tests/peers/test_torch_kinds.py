"""Every kind of file that PyTorch's users have of torchvision's alexnet gives PyTorch's own logits, or one line."""

import argparse
import copy
import functools

import pytest
from weights.networks import WIDTH, assert_same_logits, compute_logits, make_pictures

from alexnet_jax.errors import InputError
from alexnet_jax.weights.open_weights import open_weights

torch = pytest.importorskip('torch', reason="PyTorch is not installed: pip install 'alexnet-jax[torch]'")
safetensors_torch = pytest.importorskip('safetensors.torch')
from peers.torchvision_alexnet import Alexnet  # noqa: E402 - it imports torch

nn, swa = torch.nn, torch.optim.swa_utils
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@functools.cache
def make_model(classes):
    """The network with PyTorch's own random weights, those of fc8 ten times as large, so that classes lie apart."""
    torch.manual_seed(classes)
    model = Alexnet(width=WIDTH, classes=classes).eval()
    with torch.no_grad():
        model.classifier[6].weight *= 10
    return model


def compute_torch_logits(model, crops):
    """PyTorch's, of images as torchvision/transforms/_presets.py makes them."""
    x = torch.from_numpy(crops.transpose(0, 3, 1, 2).copy()) / 255
    with torch.no_grad():
        return model((x - MEAN[:, None, None]) / STD[:, None, None]).numpy()


def reference_checkpoint(model):
    """What references/classification/train.py of torchvision saves, with --model-ema and --amp."""
    average = swa.AveragedModel(model, multi_avg_fn=swa.get_ema_multi_avg_fn(0.9), use_buffers=True)
    average.update_parameters(copy.deepcopy(model))
    with torch.no_grad():
        for parameter in average.parameters():
            parameter += 1
    optimizer = torch.optim.SGD([{'params': model.parameters(), 'weight_decay': 1e-4}], 0.01, momentum=0.9)
    return {
        'model': model.state_dict(),
        'optimizer': optimizer.state_dict(),
        'lr_scheduler': torch.optim.lr_scheduler.StepLR(optimizer, 30).state_dict(),
        'epoch': 89,
        'args': argparse.Namespace(model='alexnet', lr=0.01, output_dir='.'),
        'model_ema': average.state_dict(),
        'scaler': torch.amp.GradScaler('cpu').state_dict(),
    }


def ddp(model, path):
    """DistributedDataParallel of one process."""
    torch.distributed.init_process_group('gloo', f'file://{path}.store', rank=0, world_size=1)
    try:
        return nn.parallel.DistributedDataParallel(model).state_dict()
    finally:
        torch.distributed.destroy_process_group()


def average(model):
    averaged = swa.AveragedModel(model)
    averaged.update_parameters(model)
    return averaged.state_dict()


def export(model, path, *, dynamo):
    if dynamo:
        pytest.importorskip('onnxscript', reason='PyTorch exports by dynamo with onnxscript')
    torch.onnx.export(model, (torch.zeros(1, 3, 224, 224),), path, dynamo=dynamo)


def save(value, path, **options):
    torch.save(value, path, **options)


KINDS = {
    'state dict': lambda m, p: save(m.state_dict(), p),
    'state dict, before the zip': lambda m, p: save(m.state_dict(), p, _use_new_zipfile_serialization=False),
    'state dict, channels last': lambda m, p: save(m.to(memory_format=torch.channels_last).state_dict(), p),
    'parameters': lambda m, p: save(dict(m.named_parameters()), p),
    "torchvision's train.py": lambda m, p: save(reference_checkpoint(m), p),
    "torchvision's train.py, before the zip": lambda m, p: save(
        reference_checkpoint(m), p, _use_new_zipfile_serialization=False
    ),
    'DataParallel': lambda m, p: save({'state_dict': nn.DataParallel(m).state_dict(), 'epoch': 3}, p),
    'DistributedDataParallel': lambda m, p: save(ddp(m, p), p),
    'torch.compile': lambda m, p: save(torch.compile(m).state_dict(), p),
    'torch.compile of DataParallel': lambda m, p: save(torch.compile(nn.DataParallel(m)).state_dict(), p),
    'AveragedModel': lambda m, p: save(average(m), p),
    'safetensors': lambda m, p: safetensors_torch.save_file(m.state_dict(), p),
    'safetensors, metadata': lambda m, p: safetensors_torch.save_file(m.state_dict(), p, {'format': 'pt', 'by': 'me'}),
    'safetensors of a model': lambda m, p: safetensors_torch.save_model(torch.compile(m), p, {'format': 'pt'}),
    'ONNX by TorchScript': lambda m, p: export(m, p, dynamo=False),
    'ONNX by dynamo': lambda m, p: export(m, p, dynamo=True),
}
# Each way of the reader once; the others are these in one another, or with metadata.
ONCE = {
    'state dict, channels last',
    "torchvision's train.py, before the zip",
    'DistributedDataParallel',
    'torch.compile',
}
ONCE |= {'AveragedModel', 'safetensors', 'ONNX by dynamo'}


def example(kind, *values):
    return pytest.param(kind, *values, marks=() if kind in ONCE else pytest.mark.repeats)


DTYPES = [(kind, dtype, 10) for kind in ('state dict', 'safetensors') for dtype in ('float16', 'bfloat16', 'float64')]


@pytest.mark.parametrize(
    ('kind', 'dtype', 'classes'),
    [
        *(example(kind, 'float32', 10) for kind in KINDS),
        *DTYPES,
        *((kind, 'float32', 365) for kind in ('state dict', 'safetensors')),
    ],
)
def test_open_weights_gives_torchs_logits(tmp_path, kind, dtype, classes):
    model = copy.deepcopy(make_model(classes)).to(getattr(torch, dtype))
    KINDS[kind](copy.deepcopy(model), tmp_path / 'w')
    net, crops = open_weights(tmp_path / 'w'), make_pictures(224)
    assert_same_logits(compute_logits(net, crops), compute_torch_logits(model.float(), crops))
    assert (net.name.width, net.preprocessing, net.classes[-1]) == (WIDTH, 'torchvision', str(classes - 1))


@pytest.mark.parametrize('kind', [example(kind) for kind in KINDS if kind != 'ONNX by dynamo'])
def test_open_weights_refuses_another_network_in_one_line(tmp_path, kind):
    model = copy.deepcopy(make_model(10))
    model.features[7] = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(24))  # which no exporter puts into a convolution
    KINDS[kind](model.eval(), tmp_path / 'w')
    with pytest.raises(InputError, match=r'it holds [a-z.]*features\.7\.1\.\w+ too|BatchNormalization') as refused:
        open_weights(tmp_path / 'w')
    assert '\n' not in str(refused.value)
