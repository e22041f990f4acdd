"""What a prediction and a training step cost: parameters, operations, memory and time,
of networks with random weights.

    for name, network in networks(200):
        cost = measure(name, network, 224)
    times = milliseconds(records)  # row -> of predicting an image
"""

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from .. import backbones, methods
from ..methods import Attention, Method
from ..recipe import Recipe
from ..training import devices
from ..training.memory import Activations

GATED = "resnet50 with attention"  # paper C's system
TRANSFORMERS = ("vit_ti_16", "vit_b_16")
NAMES = ("mobilenet_v2", "efficientnet_b0", "resnet50", GATED, *TRANSFORMERS)


@dataclass(frozen=True)
class Cost:
    """Of one network and one square image."""

    name: str
    image_size: int  # pixels
    parameters: int
    flops: int  # of a prediction; 2 a multiply-add
    # bytes that a forward pass in training keeps for the backward pass, in float32
    activations: int
    seconds: np.ndarray  # (repeats,) of a prediction
    threads: int  # of torch, on the CPU
    device: str

    @property
    def median(self) -> float:
        """Seconds of a prediction, median over repeats."""
        return float(np.median(self.seconds))


def networks(
    classes: int, names: tuple[str, ...] = NAMES
) -> Iterator[tuple[str, Method]]:
    """Classifiers with random weights, one after the other (together they would need a
    gigabyte): backbone, mean over space, linear head.

    GATED has both gates of :class:`fgbook.methods.Attention`, all others none.
    vit_ti_16 is the vision transformer of 12 layers, 192 channels and 3 heads (Touvron
    et al. 2021), vit_b_16 that of 768 channels and 12 heads (Dosovitskiy et al. 2021).
    Raises InputError for an unknown name.
    """
    for name in names:
        if name == "vit_ti_16":
            backbone = _tiny_transformer()
        elif name == GATED:
            backbone = backbones.create("resnet50", "none")
        else:
            backbone = backbones.create(name, "none")
        gates = name == GATED
        yield name, Attention(backbone, classes, channel=gates, spatial=gates)


def _tiny_transformer() -> backbones.Backbone:
    """ViT-Ti/16, which torchvision has the parts of but not the name."""
    from torchvision.models import VisionTransformer  # late: it takes seconds

    network = VisionTransformer(
        image_size=224,
        patch_size=16,
        num_layers=12,
        num_heads=3,
        hidden_dim=192,
        mlp_dim=768,
    )
    network.heads = nn.Identity()
    depths = backbones.geometry((192, (16, 16, 0)))
    return backbones.Backbone("vit_ti_16", network, backbones.networks.vit, depths)


def measure(
    name: str,
    network: Method,
    image_size: int,
    *,
    repeats: int = 5,
    warm_up: int = 1,
    device: str = "cpu",
) -> Cost:
    """The cost of one image, in float32. Times wait for the device to finish; the first
    `warm_up` do not count. Leaves the network in eval mode.
    """
    place = torch.device(device)
    network.to(place).to(memory_format=torch.channels_last)

    with Activations(network.train()) as kept:
        network(_image(image_size, place))

    seconds = prediction_seconds(network, image_size, repeats, warm_up)
    parameters, flops = size(network, image_size)
    return Cost(
        name=name,
        image_size=image_size,
        parameters=parameters,
        flops=flops,
        activations=kept.bytes,
        seconds=seconds,
        threads=torch.get_num_threads(),
        device=str(place),
    )


@torch.inference_mode()
def prediction_seconds(
    network: Method, image_size: int, repeats: int = 5, warm_up: int = 1
) -> np.ndarray:
    """(repeats,) seconds of predicting one square image of that side, where the network
    is. Times wait for the device to finish; the first `warm_up` do not count. Leaves
    the network in eval mode.
    """
    network.eval()
    place = next(network.parameters()).device
    image = _image(image_size, place)
    seconds = []
    for _ in range(warm_up + repeats):
        _wait(place)
        start = time.perf_counter()
        network.predict(image)
        _wait(place)
        seconds.append(time.perf_counter() - start)
    return np.array(seconds[warm_up:])


def milliseconds(
    found: list[dict], device: str | None = None, repeats: int = 5
) -> dict[str, float]:
    """Row -> how long a network like the one of its records takes for one image: the
    median, in milliseconds. Weights are random, so that none have to be here; methods
    that find their regions by a threshold may find others. None: a GPU if there is one.
    """
    place = device or devices.default_device()
    times: dict[str, float] = {}
    for record in found:
        if record["row"] in times:
            continue
        recipe = Recipe.of(record["recipe"]).but(weights="none")
        network = methods.build(
            record["method"], record["num_classes"], recipe, record["options"]
        )
        network.to(place).to(memory_format=torch.channels_last)
        seconds = prediction_seconds(network, recipe.image_size, repeats)
        times[record["row"]] = 1000 * float(np.median(seconds))
    return times


def _image(size: int, device: torch.device) -> torch.Tensor:
    """One of noise (1, 3, size, size), channels last."""
    image = torch.rand(1, 3, size, size, device=device)
    return image.contiguous(memory_format=torch.channels_last)


def _wait(device: torch.device) -> None:
    """Until all that a GPU was told to do is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.no_grad()
def size(network: Method, image_size: int) -> tuple[int, int]:
    """Trainable and fixed parameters, and floating-point operations (2 a multiply-add)
    of predicting one square image of that side.

    Nothing is computed for it: tensors have shapes and no values.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    device = next(network.parameters()).device
    # A copy: methods keep constants of an image size, and these would have no values.
    copied = copy.deepcopy(network).eval()
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        # attention in plain matrix products: the counter knows few fused kernels
        _without_fast_path(),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        copied.predict(torch.rand(1, 3, image_size, image_size, device=device))

    parameters = sum(parameter.numel() for parameter in network.parameters())
    return parameters, counter.get_total_flops()


@contextmanager
def _without_fast_path() -> Iterator[None]:
    """Transformer layers without their fused path for evaluation."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
