"""A backbone: a network that turns an image into a feature map."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .geometry import Depth, Maps

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
BatchNorm = nn.modules.batchnorm._BatchNorm


class Backbone(nn.Module):
    """A network without its classifier: images (B, 3, H, W), float in [0, 1] -> feature
    map (B, channels, h, w), h about H / stride.

    The mean and standard deviation that the network was trained with are applied
    inside.

    features: gives the maps of the network at several depths, the last one being the
        feature map.
    depths: what these maps are, or, for networks whose cells look elsewhere at another
        size of the image, a function of that size.
    channels: of the feature map; needed where `depths` is a function.
    usual_size: the side of images that the network was made for; it takes others too,
        unless it says otherwise.
    """

    mean: Tensor  # (3, 1, 1)
    std: Tensor

    def __init__(
        self,
        name: str,
        network: nn.Module,
        features: Maps,
        depths: tuple[Depth, ...] | Callable[[int], tuple[Depth, ...]],
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        *,
        channels: int | None = None,
        usual_size: int = 224,
    ):
        super().__init__()
        self.name = name
        self.network = network
        self.features = features
        self._depths = depths
        self.usual_size = usual_size
        self.channels = self.depths[-1].channels if channels is None else channels
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

        # Set by freezing.freeze_statistics and freezing.freeze_stages, for train().
        self.frozen_statistics = False
        self.frozen_modules: tuple[str, ...] = ()

    def forward(self, images: Tensor) -> Tensor:
        """The feature map: the last of ``stages``."""
        return self.stages(images)[-1]

    def stages(self, images: Tensor) -> list[Tensor]:
        """The maps (B, channels, h, w) at every one of `depths`, in one pass; the last
        is what ``forward`` gives.
        """
        return self.features(self.network, (images - self.mean) / self.std)

    def depths_at(self, size: int) -> tuple[Depth, ...]:
        """What the maps of square images of `size` pixels are, and where their cells
        look. Raises InputError when the network takes no images of that size.
        """
        return self._depths(size) if callable(self._depths) else self._depths

    def depth_at(self, size: int) -> Depth:
        """The same of the feature map alone."""
        return self.depths_at(size)[-1]

    @property
    def depths(self) -> tuple[Depth, ...]:
        """What the maps are. Channels and strides are the same at all sizes; `first` is
        that of images of the usual size, see :meth:`depths_at`.
        """
        return self.depths_at(self.usual_size)

    @property
    def stride(self) -> int:
        """Pixels between the places where two neighbouring cells look."""
        return self.depths[-1].stride

    @property
    def first(self) -> float:
        """Where cell 0 looks, in images of the usual size; see :meth:`depth_at`."""
        return self.depths[-1].first

    def train(self, mode: bool = True) -> "Backbone":
        """As every module's, but what is frozen stays in eval mode."""
        super().train(mode)
        if self.frozen_statistics:
            for module in self.modules():
                if isinstance(module, BatchNorm):
                    module.eval()
        for name in self.frozen_modules:
            self.get_submodule(name).eval()
        return self
