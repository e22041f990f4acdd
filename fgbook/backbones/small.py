"""The `small` backbone of the quick profile: a residual network that two CPU cores
fine-tune in seconds.
"""

from torch import Tensor, nn

from .backbone import Backbone
from .geometry import geometry


class Block(nn.Module):
    """Basic residual block (He et al. 2016, Figure 2): two 3x3 convolutions; a strided
    1x1 projection where the shape changes.

    (B, inputs, H, W) -> (B, outputs, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Both convolutions, and the shortcut past them."""
        y = self.relu(self.norm1(self.conv1(x)))
        return self.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class Small(nn.Module):
    """A small residual network: (B, 3, H, W) -> feature map (B, 192, ceil(H / 8),
    ceil(W / 8)), not negative.

    Most of the work is done at strides 4 and 8, where a bird's eye ring or wing bar
    still has a cell of its own at 64-96 pixels. The last 1x1 convolution widens the
    map, so that a linear head has enough features without the cost of wide 3x3
    convolutions.
    """

    channels = 192
    stride = 8

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
        )
        self.blocks = nn.Sequential(Block(16, 32, 2), Block(32, 96, 2), Block(96, 96))
        self.widen = nn.Sequential(
            nn.Conv2d(96, self.channels, 1, bias=False),
            nn.BatchNorm2d(self.channels),
            nn.ReLU(inplace=True),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(
                    module.weight, mode="fan_out", nonlinearity="relu"
                )

    def forward(self, images: Tensor) -> Tensor:
        """The feature map of normalised images."""
        return self.widen(self.blocks(self.stem(images)))


HALF = (3, 2, 1)  # kernel, stride, padding
DEPTHS = geometry((32, HALF, HALF), (96, HALF), (Small.channels,))


def maps(network: Small, x: Tensor) -> list[Tensor]:
    """The last map of stride 4, the first of stride 8, and the feature map."""
    fine = network.blocks[0](network.stem(x))
    coarse = network.blocks[1](fine)
    return [fine, coarse, network.widen(network.blocks[2](coarse))]


def untrained() -> Backbone:
    """The backbone with random weights."""
    return Backbone("small", Small(), maps, DEPTHS)
