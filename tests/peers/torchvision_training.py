"""Trains torchvision's AlexNet in PyTorch on a config's photos: what most people call AlexNet, beside this project's.

    PYTHONPATH=. python tests/peers/torchvision_training.py --config=configs/one_device.py:clothing \
        --config.variant=one_weird_trick --config.epochs=15 --workdir=runs/peer

The same records in the same batches with the same crops and flips, which are functions of the seed and the step, and
the same learning rate, momentum, weight decay, steps and drops. Network, initial weights, loss and update are
PyTorch's: torch.optim.SGD, which decays biases too. Prints progress; writes WORKDIR/result.json, with fields as
the project's has. PyTorch is that of the extra `torch`.
"""

import json
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from absl import app, flags
from ml_collections import config_flags
from torchvision_alexnet import Alexnet

from alexnet_jax.commands.command_line import parse_config_flags
from alexnet_jax.data.augment import centre_crop
from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.decode import get_crop_decoder
from alexnet_jax.data.pipeline import EvaluationBatches
from alexnet_jax.run.batches import make_batches
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.training.build import build_run
from alexnet_jax.training.validation import validate_config

_CONFIG = config_flags.DEFINE_config_file('config', help_string='As of alexnet_jax.main.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of result.json.')
flags.mark_flags_as_required(['config', 'workdir'])


class Normaliser:
    """uint8 crops to what the network reads: minus the mean image's centre, over torchvision's deviations."""

    def __init__(self, mean_image: np.ndarray, size: int, std: tuple[float, ...]) -> None:
        self._mean = np.asarray(centre_crop(mean_image, size), np.float32)
        self._std = np.asarray(std, np.float32)

    def __call__(self, images: np.ndarray) -> torch.Tensor:
        """(b, size, size, 3) -> (b, 3, size, size) float32."""
        x = (images.astype(np.float32) - self._mean) / self._std
        return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()


def views(images: np.ndarray, size: int, protocol: str) -> Iterator[np.ndarray]:
    """The crops of (b, 256, 256, 3) that are tested: the middle, or four corners and it, each mirrored too."""
    end = images.shape[1] - size
    middle = (end // 2, end // 2)
    places = [middle] if protocol == 'centre' else [middle, (0, 0), (0, end), (end, 0), (end, end)]
    for top, left in places:
        patch = images[:, top : top + size, left : left + size]
        yield patch
        if protocol == 'ten_view':
            yield patch[:, :, ::-1]


def test(network: Alexnet, records: Any, prepare: Normaliser, size: int, protocol: str) -> dict[str, float]:
    """Mean loss and errors of the mean softmax of the views, every image counted."""
    network.eval()
    probabilities, labels = [], []
    with torch.inference_mode():
        for batch in EvaluationBatches(records, 32, get_crop_decoder(records)).read():
            rows = [torch.softmax(network(prepare(view)), 1) for view in views(batch.images, size, protocol)]
            probabilities.append(torch.stack(rows).mean(0).numpy()[batch.valid])
            labels.append(batch.labels[batch.valid])
    given, right = np.concatenate(probabilities), np.concatenate(labels)
    order = np.argsort(-given, axis=1)
    hits = order == right[:, None]
    return {
        'examples': len(right),
        'loss': float(-np.log(given[np.arange(len(right)), right]).mean()),
        'top1_error': float(1 - hits[:, 0].mean()),
        'top5_error': float(1 - hits[:, :5].any(1).mean()),
    }


def main(argv: list[str]) -> None:
    """Trains, tests and writes."""
    del argv
    config = validate_config(_CONFIG.value)
    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(config.seed)
    dataset = open_dataset(config.dataset, data_dir=config.data_dir)
    num_classes, examples = len(dataset.classes), dataset.examples('train')
    run = build_run(config, num_classes=num_classes, examples=examples, mesh=make_mesh(1, 1))
    variant, steps, drops = run.variant, run.steps, run.drop_steps
    network = Alexnet(width=config.width, classes=num_classes).to(memory_format=torch.channels_last)
    prepare = Normaliser(dataset.mean_image, variant.input_size, variant.pixel_std)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
    )
    began, losses = time.perf_counter(), []
    for step, batch in enumerate(make_batches(run, dataset).read_from(0), start=1):
        network.train()
        for group in optimizer.param_groups:
            group['lr'] = config.learning_rate * config.drop_factor ** sum(step - 1 >= drop for drop in drops)
        logits = network(prepare(batch.images).to(memory_format=torch.channels_last))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(batch.labels).long())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % config.log_every == 0:
            seconds = time.perf_counter() - began
            print(f'step {step}/{steps}  loss {np.mean(losses):.3f}  {step * config.batch_size / seconds:.1f} images/s')
            losses.clear()
        if step == steps:
            break
    seconds = time.perf_counter() - began
    records = dataset.records('validation')
    result = {p: test(network, records, prepare, variant.input_size, p) for p in ('centre', 'ten_view')}
    result |= {'steps': steps, 'images_per_second': steps * config.batch_size / seconds, 'torch': torch.__version__}
    workdir = pathlib.Path(_WORKDIR.value)
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / 'result.json').write_text(json.dumps(result, indent=2))
    print(json.dumps(result))


if __name__ == '__main__':
    app.run(main, flags_parser=parse_config_flags)
