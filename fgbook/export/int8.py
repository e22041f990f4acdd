"""An ONNX model with weights and maps in eight bits: a quarter of the size.

Convolutions and matrix products read eight-bit numbers. What a number stands for is a
scale for each output channel of a weight, and for a map a range that is measured on
pictures (static quantisation).
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import data
from ..data.dataset import Split
from ..errors import InputError
from . import description, opened, to_onnx
from .noise import quiet

CALIBRATED = 64
"""Training images on which ranges are measured."""

JUDGED = 1000
"""Validation images, at most, on which accuracy is compared."""

BATCH = 8

# fmt: off
KINDS = (
    "Conv", "Gemm", "MatMul", "Add",
    "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool",
)
# fmt: on
"""Operations in eight bits; what chooses (boxes, classes, cells) keeps its floats.

With Relu and Clip among them the range of a convolution is that of what is left after
them; without, a trained EfficientNet-Lite0 loses many times as much.
"""


@dataclass(frozen=True)
class Pictures:
    """Images of the data set that a model was trained on, as the model sees them."""

    train: np.ndarray  # (N, 3, s, s) float32 in [0, 1]
    val: np.ndarray  # the same, (M, 3, s, s)
    labels: np.ndarray  # (M,) int64, of val


def pictures(about: dict) -> Pictures:
    """What eight bits are measured and judged on, of what the model.json of a model
    says. Raises InputError where its training pictures are not here, or others.
    """
    recipe = about["recipe"]
    try:
        dataset = data.load(about["dataset"], recipe["store_size"])
    except (InputError, OSError) as error:
        raise InputError(
            f"eight bits are measured on training pictures, which are not here: {error}"
        ) from error
    if dataset.fingerprint != about["data_fingerprint"]:
        raise InputError(
            f"the pictures of {about['dataset']} are others than those that run"
            f" {about['key']} was trained on; export it without --int8."
        )
    train, _ = some(dataset.train, CALIBRATED, about)
    val, labels = some(dataset.val, JUDGED, about)
    return Pictures(train, val, labels)


def some(split: Split, most: int, about: dict) -> tuple[np.ndarray, np.ndarray]:
    """At most so many images of a split, evenly from all of it, as a model sees them,
    (N, 3, s, s) float32 in [0, 1]; and their labels (N,) int64.
    """
    count = min(most, len(split))
    index = np.linspace(0, len(split) - 1, count).round().astype(np.int64)
    described = description.describe(about)
    if not count:
        size = described["preprocessing"]["crop_to"]
        return np.zeros((0, 3, size, size), np.float32), np.zeros(0, np.int64)
    pixels = split.images.numpy()[index]
    return opened.views(pixels, described), split.labels.numpy()[index]


def accuracy(content: bytes, of: Pictures) -> float:
    """The share of validation images, 0 .. 1, whose class an ONNX model names."""
    model = opened.OpenedOnnx(content)
    named = [model.logits(some).argmax(1) for some in batches(of.val)]
    return float((np.concatenate(named) == of.labels).mean())


def quantise(content: bytes, images: np.ndarray) -> bytes:
    """The bytes of an ONNX model of this package in eight bits. images: (N, 3, S, S)
    float32 in [0, 1], on which the ranges of the maps are measured.

    A map's range is from its least to its largest value, and each channel of a weight
    has its own scale. On a trained EfficientNet-Lite0 percentiles were no better.
    """
    import onnx
    from onnxruntime import quantization

    floating = onnx.load_from_string(content)
    about = opened.OpenedOnnx(content, threads=1).about
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / "int8.onnx"
        quantization.quantize_static(
            floating,
            path,
            _reader(images),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(KINDS),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        made = onnx.load(path)
    return to_onnx.described(made, {**about, "int8": {"pictures": len(images)}})


def _reader(images: np.ndarray) -> Any:
    """Batches of images, in the form in which ONNX Runtime asks for them."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = batches(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            one = next(self.rest, None)
            return None if one is None else {description.INPUT: one}

    return Reader()


def batches(images: np.ndarray) -> Iterator[np.ndarray]:
    """Images, some at a time."""
    for first in range(0, len(images), BATCH):
        yield images[first : first + BATCH]
