"""From a trained model to the content of a checked file."""

from dataclasses import dataclass

from ..methods import Method
from . import check, description, opened, to_onnx, to_torch, traced


@dataclass(frozen=True)
class Made:
    """An export that is not written yet."""

    content: bytes
    difference: float  # the largest of a logit from PyTorch's, see check.difference


def check_installed(kind: str) -> None:
    """Raises InputError where what a format needs is not installed."""
    if kind == "onnx":
        to_onnx.check_installed()


def exported(model: Method, about: dict, kind: str) -> Made:
    """A model, and what its model.json says, in the format "onnx" or "torch". Raises
    InputError for a method that cannot be traced.
    """
    size = about["recipe"]["image_size"]
    module = traced.predicting(model, about)
    program = traced.program(module, size)
    described = description.describe(about)

    made: opened.Opened
    if kind == "onnx":
        content = to_onnx.convert(program, described)
        made = opened.OpenedOnnx(content, threads=1)
    else:
        content = to_torch.convert(program, described)
        made = opened.OpenedProgram(content)
    return Made(content, check.difference(module, made.logits, size))
