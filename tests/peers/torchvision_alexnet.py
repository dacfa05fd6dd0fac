"""torchvision's alexnet in PyTorch, written down here (torchvision/models/alexnet.py), at any width."""

import torch
from torch import Tensor, nn


class Alexnet(nn.Module):
    """64-192-384-256-256 kernels and 4096 units, times `width`; one tower, no normalisation, dropout of inputs."""

    def __init__(self, *, width: float, classes: int) -> None:
        super().__init__()
        a, b, c, d, units = (2 * round(full * width / 2) for full in (64, 192, 384, 256, 4096))
        self.features = nn.Sequential(
            nn.Conv2d(3, a, kernel_size=11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(a, b, kernel_size=5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(b, c, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(c, d, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(d, d, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            nn.Dropout(p=0.5),
            nn.Linear(d * 6 * 6, units),
            nn.ReLU(inplace=True),
            nn.Dropout(p=0.5),
            nn.Linear(units, units),
            nn.ReLU(inplace=True),
            nn.Linear(units, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (b, classes) of images (b, 3, 224, 224)."""
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))
