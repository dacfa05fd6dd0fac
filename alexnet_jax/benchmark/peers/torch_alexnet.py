"""The two-tower network of 2012 in PyTorch: what `alexnet bench step` measures this project against.

Sizes and constants are those of the paper (model.zoo.PAPER), written again here, so that the parity test means
something. Weights convert by transposing: conv HWIO -> OIHW, fc (i, o) -> (o, i).
"""

import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet_jax.benchmark.protocol import Setting
from alexnet_jax.benchmark.sampling import Program

TOWERS = 2


def builtin_norm(x: Tensor) -> Tensor:
    """Normalises within each tower by PyTorch's own function, which divides alpha by the window's size, hence 5e-4."""
    return torch.cat([F.local_response_norm(t, 5, alpha=5e-4, beta=0.75, k=2.0) for t in x.chunk(TOWERS, dim=1)], 1)


class _ShiftedNorm(torch.autograd.Function):
    """y = x / s^0.75, s = 2 + 1e-4 * the sum of squares of five neighbours; x is (b, towers, c, h, w).

    Shifted sums and square roots, which the compiler fuses into one pass. Written with its gradient, for which s is
    computed again: 3 % faster than what the compiler derives.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * _compute_powers(x)[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        r, power = _compute_powers(x)
        return gradient * power - (2 * 1e-4 * 0.75) * x * _window_sum(gradient * x * power * r * r)


def _compute_powers(x: Tensor) -> tuple[Tensor, Tensor]:
    r = torch.rsqrt(2.0 + 1e-4 * _window_sum(x * x))
    return r, r * r.sqrt()  # s^-0.5, s^-0.75


def _window_sum(x: Tensor) -> Tensor:
    channels, padded = x.shape[2], F.pad(x, (0, 0, 0, 0, 2, 2))
    return functools.reduce(torch.add, [padded[:, :, i : i + channels] for i in range(5)])


def shifted_norm(x: Tensor) -> Tensor:
    """Normalises as `builtin_norm` does, by hand."""
    b, channels, h, w = x.shape
    return _ShiftedNorm.apply(x.view(b, TOWERS, channels // TOWERS, h, w)).view(b, channels, h, w)


class TorchAlexNet(nn.Module):
    """The network: uint8 images (b, 3, 224, 224) and lighting (b, 3) or None -> logits (b, classes)."""

    def __init__(self, *, width: float, classes: int, norm: Callable[[Tensor], Tensor] = builtin_norm) -> None:
        super().__init__()
        full = (96, 256, 384, 384, 256, 4096, 4096)
        c1, c2, c3, c4, c5, f6, f7 = (TOWERS * max(1, round(features * width / TOWERS)) for features in full)
        self.norm = norm
        self.register_buffer('mean_image', torch.full((3, 224, 224), 127.5))
        self.conv1 = nn.Conv2d(3, c1, 11, stride=4)
        self.conv2 = nn.Conv2d(c1, c2, 5, padding=2, groups=TOWERS)
        self.conv3 = nn.Conv2d(c2, c3, 3, padding=1)
        self.conv4 = nn.Conv2d(c3, c4, 3, padding=1, groups=TOWERS)
        self.conv5 = nn.Conv2d(c4, c5, 3, padding=1, groups=TOWERS)
        self.fc6, self.fc7, self.fc8 = nn.Linear(6 * 6 * c5, f6), nn.Linear(f6, f7), nn.Linear(f7, classes)
        for name, layer in self.named_children():
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.constant_(layer.bias, 1.0 if name in ('conv2', 'conv4', 'conv5', 'fc6', 'fc7') else 0.0)

    def forward(self, images: Tensor, lighting: Tensor | None) -> Tensor:
        """Computes the logits."""
        x = images.to(self.mean_image.dtype) - self.mean_image
        x = F.pad(x if lighting is None else x + lighting[:, :, None, None], (0, 3, 0, 3))
        x = F.max_pool2d(self.norm(F.relu(self.conv1(x))), 3, 2)
        x = F.max_pool2d(self.norm(F.relu(self.conv2(x))), 3, 2)
        x = F.relu(self.conv4(F.relu(self.conv3(x))))
        x = F.max_pool2d(F.relu(self.conv5(x)), 3, 2)
        x = x.permute(0, 2, 3, 1).flatten(1)  # rows, columns, channels, as alexnet_jax reads them
        x = self._dropout(F.relu(self.fc6(x)))
        return self.fc8(self._dropout(F.relu(self.fc7(x))))

    def _dropout(self, x: Tensor) -> Tensor:
        # F.dropout doubles what it keeps; the paper halves everything in testing instead.
        return F.dropout(x, 0.5, self.training) * 0.5


class Form(NamedTuple):
    """One way to run the network in PyTorch, by how much of PyTorch's speed its author asks for."""

    norm: Callable[[Tensor], Tensor] = builtin_norm
    layout: torch.memory_format = torch.contiguous_format
    compiled: bool = False
    fused_update: bool = False


FORMS = {
    'eager': Form(),
    'eager_channels_last': Form(layout=torch.channels_last),
    'compiled': Form(layout=torch.channels_last, compiled=True),
    'best': Form(norm=shifted_norm, layout=torch.channels_last, compiled=True, fused_update=True),
}


def make_torch_optimizer(model: TorchAlexNet, *, fused: bool) -> torch.optim.SGD:
    """Makes the paper's update at a constant rate: weights decay, biases do not."""
    layers = list(model.children())
    groups = [{'params': [x.weight for x in layers], 'weight_decay': 5e-4}, {'params': [x.bias for x in layers]}]
    return torch.optim.SGD(groups, lr=0.01, momentum=0.9, fused=fused or None)


def make_torch_programs(name: str, setting: Setting) -> tuple[dict[str, Program], dict[str, str]]:
    """Makes 'train' and 'inference' of form `name` of FORMS, or of 'ceiling' a matrix product; {library: version}."""
    torch.set_num_threads(os.cpu_count() or 1)
    device = 'cuda' if setting.device == 'gpu' else 'cpu'
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = setting.precision == 'tf32'
    torch.backends.cudnn.benchmark = True  # each shape's fastest convolution, as XLA chooses it
    versions = {'torch': torch.__version__}
    if name == 'ceiling':
        a, b, product = (torch.randn(3072, 3072) for _ in range(3))
        return {'gemm_torch': Program(lambda: torch.matmul(a, b, out=product), flop=2 * 3072**3)}, versions
    torch.manual_seed(0)
    form = FORMS[name]
    model = TorchAlexNet(width=setting.width, classes=setting.classes, norm=form.norm)
    model = model.to(device, memory_format=form.layout)
    optimizer = make_torch_optimizer(model, fused=form.fused_update)
    images = torch.randint(256, (setting.batch, 3, 224, 224), dtype=torch.uint8).contiguous(memory_format=form.layout)
    images, labels = images.to(device), torch.randint(setting.classes, (setting.batch,), device=device)
    lighting = torch.randn(setting.batch, 3, device=device)
    # On a GPU the compiler tries products of its own and records CUDA graphs.
    mode = 'max-autotune' if device == 'cuda' else None
    compiled = functools.partial(torch.compile, mode=mode) if form.compiled else lambda function: function
    narrow = setting.precision == 'bfloat16'

    @compiled
    def compute_loss(images: Tensor, labels: Tensor, lighting: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=narrow):
            return F.cross_entropy(model(images, lighting).float(), labels)

    @compiled
    def compute_logits(images: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=narrow):
            return model(images, None).float()

    def start() -> None:
        if device == 'cuda' and form.compiled:
            torch.compiler.cudagraph_mark_step_begin()  # the graphs' results of the step before may be overwritten

    def train() -> None:
        model.train()
        start()
        optimizer.zero_grad(set_to_none=True)
        loss = compute_loss(images, labels, lighting)
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss), 'training diverged: its speed means nothing'

    @torch.inference_mode()
    def infer() -> None:
        model.eval()
        start()
        compute_logits(images)
        if device == 'cuda':
            torch.cuda.synchronize()

    peak = torch.cuda.max_memory_allocated if device == 'cuda' else None
    return {'train': Program(train, peak=peak), 'inference': Program(infer)}, versions
