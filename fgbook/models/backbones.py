"""Backbones: networks that turn an image into a feature map, with pretrained weights from wherever they can be had.

    backbone = create("mobilenet_v2")          # or resnet50, vit_b_16, small, timm:<name>, ...
    maps = backbone(images)                    # images (B, 3, H, W) in [0, 1] -> (B, backbone.channels, h, w)
"""

import hashlib
import math
import pickle
from collections.abc import Callable
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from .. import paths
from ..errors import InputError, unknown
from .small import Small

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHIPPED = Path(__file__).resolve().parents[1] / "weights" / "small.safetensors"
SUFFIXES = (".safetensors", ".pth", ".pt")
HEADS = ("fc.", "classifier.", "head.", "heads.")  # what classifiers are called in the files; a backbone has none
BatchNorm = nn.modules.batchnorm._BatchNorm


class Backbone(nn.Module):
    """A network without its classifier: images (B, 3, H, W), float in [0, 1] -> feature map (B, channels, h, w), h about H / stride.

    The mean and standard deviation that the network was trained with are applied inside. With `frozen_statistics` (see
    :func:`freeze_statistics`) BatchNorm layers keep and use their stored mean and variance in training too; weight and bias still learn.

    Cell (y, x) of the map looks at the input round (first + x * stride, first + y * stride). A convolution of odd size with stride 2 and
    symmetric padding samples pixels 0, 2, 4, ..., so after any number of them cell 0 looks at the middle of pixel 0: `first` is 0.5, and
    the map lies half a stride further up and left than its cells suggest. Networks that cut the image into patches have stride / 2.
    """

    def __init__(self, name: str, network: nn.Module, features: Callable[[nn.Module, Tensor], Tensor], channels: int, stride: int,
                 first: float = 0.5, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD):  # fmt: skip
        super().__init__()
        self.name, self.channels, self.stride, self.first = name, channels, stride, first
        self.network = network
        self.features = features
        self.frozen_statistics = False
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.features(self.network, (images - self.mean) / self.std)

    def train(self, mode: bool = True) -> "Backbone":
        super().train(mode)
        if self.frozen_statistics:
            for module in self.modules():
                if isinstance(module, BatchNorm):
                    module.eval()
        return self


def freeze_statistics(model: nn.Module) -> None:
    """From now on the BatchNorm layers of every Backbone in `model` stay in eval mode, whatever ``model.train()`` says."""
    for module in model.modules():
        if isinstance(module, Backbone):
            module.frozen_statistics = True
            module.train(module.training)


class SecondStatistics(nn.Module):
    """A second set of BatchNorm running statistics for a network that sees two kinds of images; all weights are shared.

    ``second(network, x)`` is ``network(x)`` with this set in place of the network's own: used in eval mode, updated in training, and saved
    with the model that holds it. It starts as a copy. Where statistics are frozen it stays that copy, and so changes nothing.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        for name, module in network.named_modules():
            if isinstance(module, BatchNorm):
                for kind, value in module.named_buffers():
                    self.register_buffer(f"{name}.{kind}".replace(".", "/"), value.clone())  # a buffer's name may not hold a dot

    def forward(self, network: nn.Module, x: Tensor) -> Tensor:
        return torch.func.functional_call(network, {name.replace("/", "."): value for name, value in self.named_buffers()}, (x,))


# ---- feature maps of torchvision's networks --------------------------------------------------------------------------


def _resnet(network: nn.Module, x: Tensor) -> Tensor:
    x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
    return network.layer4(network.layer3(network.layer2(network.layer1(x))))


def _convolutional(network: nn.Module, x: Tensor) -> Tensor:
    return network.features(x)


def _convnext(network: nn.Module, x: Tensor) -> Tensor:
    """The final LayerNorm, which torchvision applies after pooling, is applied at every place: pooling stays the last, linear step."""
    return network.classifier(network.features(x))


def _vit(network: nn.Module, x: Tensor) -> Tensor:
    """The patch tokens after the last layer, back in their places; the positional embedding is resized where the image is not 224 px."""
    x = network.conv_proj(x)  # (B, 768, h, w)
    h, w = x.shape[-2:]
    position = network.encoder.pos_embedding  # (1, 1 + side * side, 768)
    side = math.isqrt(position.shape[1] - 1)
    if (h, w) != (side, side):
        grid = position[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, (h, w), mode="bicubic", align_corners=False)
        position = torch.cat([position[:, :1], grid.flatten(2).transpose(1, 2)], 1)
    tokens = torch.cat([network.class_token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1) + position  # (B, 1 + h * w, 768)
    tokens = network.encoder.ln(network.encoder.layers(network.encoder.dropout(tokens)))
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (h, w))


# name -> (feature map, channels, stride, the classifier's attribute)
TORCHVISION = {
    "resnet18": (_resnet, 512, 32, "fc"),
    "resnet34": (_resnet, 512, 32, "fc"),
    "resnet50": (_resnet, 2048, 32, "fc"),
    "resnet101": (_resnet, 2048, 32, "fc"),
    "mobilenet_v2": (_convolutional, 1280, 32, "classifier"),
    "efficientnet_b0": (_convolutional, 1280, 32, "classifier"),
    "convnext_tiny": (_convnext, 768, 32, "classifier"),
    "vit_b_16": (_vit, 768, 16, "heads"),
}
PATCHES = ("convnext_tiny", "vit_b_16")  # cut the image into patches without overlap
NAMES = ("small", *TORCHVISION)


def _call(network: nn.Module, x: Tensor) -> Tensor:
    return network(x)


def _untrained(name: str) -> Backbone:
    """The backbone with random weights, drawn from torch's global generator as its authors chose."""
    if name == "small":
        return Backbone(name, Small(), _call, Small.channels, Small.stride)
    if name.startswith("timm:"):
        return _timm(name)
    if name not in TORCHVISION:
        raise unknown("backbone", name, [*NAMES, "timm:NAME"])
    features, channels, stride, head = TORCHVISION[name]
    network = torchvision.models.get_model(name, weights=None)
    setattr(network, head, network.classifier[:1] if name == "convnext_tiny" else nn.Identity())  # of ConvNeXt's head the LayerNorm stays
    return Backbone(name, network, features, channels, stride, stride / 2 if name in PATCHES else 0.5)


# ---- timm ------------------------------------------------------------------------------------------------------------


def _timm_model(name: str, **options) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise InputError(f"backbone {name!r} needs the timm package; install it with: pip install 'fgbook[timm]'") from None
    name = name.removeprefix("timm:")
    try:
        return timm.create_model(name, num_classes=0, **options)
    except RuntimeError as error:
        if "Unknown model" not in str(error):
            raise
        near = get_close_matches(name, timm.list_models(), n=3)
        raise InputError(f"timm has no model {name!r}; nearest: {', '.join(near) or 'none, see timm.list_models()'}.") from None


def _timm_map(network: nn.Module, x: Tensor) -> Tensor:
    """timm's feature maps come as (B, C, h, w), (B, h, w, C), or tokens of square images (B, prefix + h * h, C); here always the first."""
    maps = network.forward_features(x)
    if maps.ndim == 3:
        maps = maps[:, getattr(network, "num_prefix_tokens", 0) :]
        return maps.transpose(1, 2).unflatten(2, (math.isqrt(maps.shape[1]),) * 2)
    return maps.permute(0, 3, 1, 2) if getattr(network, "output_fmt", "NCHW") == "NHWC" else maps


def _timm(name: str) -> Backbone:
    try:
        network = _timm_model(name, dynamic_img_size=True)  # transformers that can take other image sizes than their own
    except TypeError:
        network = _timm_model(name)
    size = network.pretrained_cfg.get("input_size", (3, 224, 224))[-1]
    with torch.no_grad():
        maps = _timm_map(network.eval(), torch.zeros(1, 3, size, size))
    mean, std = (tuple(network.pretrained_cfg.get(k, v)) for k, v in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)))
    stride = round(size / maps.shape[2])
    # A guess by family: timm does not say where a cell looks. Networks with one-sided ("same") padding lie between the two.
    first = stride / 2 if network.__class__.__name__.endswith("Transformer") or "NeXt" in network.__class__.__name__ else 0.5
    return Backbone(name, network.train(), _timm_map, maps.shape[1], stride, first, mean, std)


# ---- weights ---------------------------------------------------------------------------------------------------------


def _source(name: str, weights: str):
    """Where the weights are: None (random), a Path, one of torchvision's weights (downloaded when not cached), or "timm" (the same)."""
    if weights == "none":
        return None
    if weights != "pretrained":
        folder = paths.weights()
        for path in (Path(weights).expanduser(), folder / weights, *(folder / f"{weights}{suffix}" for suffix in SUFFIXES)):
            if path.is_file():
                return path
        there = sorted(p.name for p in folder.glob("*") if p.suffix in SUFFIXES)
        raise InputError(f"weights {weights!r} are neither a file nor in {folder} (there: {', '.join(there) or 'none'}); "
                         "give 'pretrained', 'none', or the path of a file.")  # fmt: skip
    if name == "small":
        if not SHIPPED.is_file():
            raise InputError(f"the weights that ship with the package are missing ({SHIPPED}); install fgbook again or use weights='none'.")
        return SHIPPED
    stems = [f"{name.removeprefix('timm:')}-imagenet1k", name.removeprefix("timm:")]
    if name in TORCHVISION:
        # The first ImageNet weights are the ones that the papers' years know; later sets come from a stronger training recipe.
        online = torchvision.models.get_model_weights(name).IMAGENET1K_V1
        stems.append(Path(online.url).stem)
    elif name.startswith("timm:"):
        online = "timm"
    else:
        raise unknown("backbone", name, [*NAMES, "timm:NAME"])
    for stem in stems:
        for suffix in SUFFIXES:
            if (paths.weights() / f"{stem}{suffix}").is_file():
                return paths.weights() / f"{stem}{suffix}"
    return online


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _read(path: Path) -> dict[str, Tensor]:
    """A state dict from a safetensors or torch file; no code that a file may carry is run."""
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # torch's answer to everything that is not a plain tensor
        raise InputError(f"{path} is not a plain state dict: it is damaged or holds Python objects or code, which are never run; "
                         "save the tensors alone, as safetensors or with torch.save(model.state_dict(), ...).") from None  # fmt: skip
    except Exception as error:  # a damaged file makes the readers fail in many ways
        raise InputError(f"{path} cannot be read as weights ({_reason(error)}).") from None
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} does not hold a state dict (names with tensors).")
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def _download(name: str, online) -> dict[str, Tensor]:
    try:
        if online == "timm":
            return _timm_model(name, pretrained=True).state_dict()
        return online.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except InputError:
        raise
    except Exception as error:  # whatever a network, a proxy or a hub client raises
        file = f"{name.removeprefix('timm:')}-imagenet1k.safetensors"
        raise InputError(f"the pretrained weights of {name} are not in {paths.weights()} and cannot be downloaded ({_reason(error)}); put "
                         f"{file} (or .pth) there, set FGBOOK_WEIGHTS to a folder with it, or use weights='none'.") from None  # fmt: skip


def _load(network: nn.Module, state: dict[str, Tensor], name: str, where: object) -> None:
    """Put `state` into the network; a classifier in it is ignored. Raises InputError with the keys that do not fit."""
    own = network.state_dict()
    # Old torch files have no counter of batches; it does not influence any result here.
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own and not key.startswith(HEADS)]
    shapes = [f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
              for key in own if key in state and state[key].shape != own[key].shape]  # fmt: skip
    problems = []
    for what, keys in (("missing", missing), ("unexpected", unexpected), ("other shape", shapes)):
        if keys:
            problems.append(f"{what}: {', '.join(keys[:3])}" + (f" and {len(keys) - 3} more" if len(keys) > 3 else ""))
    if problems:
        raise InputError(f"the weights {where} do not fit {name}; {'; '.join(problems)}.")
    network.load_state_dict({key: state[key] for key in own if key in state}, strict=False)


def create(name: str, weights: str = "pretrained") -> Backbone:
    """The backbone of that name, in training mode.

    `name`: one of NAMES, or ``timm:<name>`` when timm is installed.
    `weights`: "none" (random); "pretrained" (for `small` the file in the package; for others a file in ``paths.weights()`` called
    <name>-imagenet1k, <name>, or as torchvision calls it, else torchvision's or timm's download); a path; or the name of another file in
    that folder, with or without its suffix. Files are safetensors or torch state dicts; a classifier in them is ignored.
    Raises InputError, with what to do, for an unknown name and for weights that cannot be found, downloaded or read, that hold code, or
    that do not fit (with the keys).
    """
    source = _source(name, weights)
    backbone = _untrained(name)
    if source is not None:
        _load(backbone.network, _read(source) if isinstance(source, Path) else _download(name, source), name, source)
    return backbone


def weights_id(name: str, weights: str = "pretrained") -> str:
    """What identifies the weights in a record: file name and sha256 (8 digits), the name of a download, or "none". Downloads nothing."""
    source = _source(name, weights)
    if source is None:
        return "none"
    if source == "timm":
        return name
    if isinstance(source, Path):
        return f"{source.name} sha256:{_sha256(source, source.stat().st_mtime_ns, source.stat().st_size)[:8]}"
    return str(source)


@lru_cache
def _sha256(path: Path, modified: int, size: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
