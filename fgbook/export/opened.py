"""An exported file, used: without the classes of the methods, and ONNX without PyTorch.

model = opened.load(Path("model.onnx"))
logits = model.logits(images)  # (B, 3, S, S) float32 in [0, 1] -> (B, C)
model.about["classes"]
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..errors import InputError
from . import ENDINGS, description
from .noise import quiet

if TYPE_CHECKING:
    import onnxruntime
    import torch


class Opened(Protocol):
    """What both formats offer."""

    about: dict  # see description.describe

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Images (B, 3, S, S), float32 in [0, 1] -> logits (B, C) float32."""


class OpenedOnnx:
    """An ONNX file in ONNX Runtime, on the CPU.

    source: its path, or its bytes. threads: 0, as many as there are cores.
    """

    def __init__(self, source: Path | bytes, threads: int = 0):
        session = _session(source, threads)
        held = session.get_modelmeta().custom_metadata_map.get(description.NAME)
        self.about = description.loads(held, named(source))
        self.session = session

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Images (B, 3, S, S), float32 in [0, 1] -> logits (B, C) float32."""
        (found,) = self.session.run(None, {description.INPUT: images})
        return np.asarray(found)


class OpenedProgram:
    """A file of torch.export, in PyTorch, on the CPU; source: its path or bytes.

    PyTorch runs what such a file asks for, so one with more than `fgbook export` writes
    is refused before PyTorch opens it, see :func:`archive.cleaned`.
    """

    def __init__(self, source: Path | bytes):
        import io

        import torch

        from . import archive

        held = {description.NAME: ""}
        try:
            # read once: what is opened is what was looked at
            content = source.read_bytes() if isinstance(source, Path) else source
            with quiet():
                safe = archive.cleaned(content, named(source))
                program = torch.export.load(io.BytesIO(safe), extra_files=held)
        except InputError:
            raise
        except Exception as error:  # of zip, of JSON, of PyTorch
            raise _damaged(source, error) from error
        self.about = description.loads(_text(held), named(source))
        self.module: torch.nn.Module = program.module()

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Images (B, 3, S, S), float32 in [0, 1] -> logits (B, C) float32."""
        import torch

        with torch.inference_mode():
            return self.module(torch.from_numpy(images)).numpy()


def load(path: Path) -> Opened:
    """The model in an exported file. Raises InputError for a file that is damaged, that
    `fgbook export` did not write, or whose description is of another model.
    """
    model: Opened
    if path.suffix == ENDINGS["onnx"]:
        model = OpenedOnnx(path)
    elif path.suffix == ENDINGS["torch"]:
        model = OpenedProgram(path)
    else:
        raise InputError(
            f"{path} is no exported model: its name should end in"
            f" {' or '.join(ENDINGS.values())}."
        )
    _check_fits(model, path)
    return model


def _check_fits(model: Opened, path: Path) -> None:
    """Raises InputError where the model does not give a logit for each class of a
    picture as the description wants it: it is run on a black one.
    """
    size = model.about["preprocessing"]["crop_to"]
    classes = len(model.about["classes"])
    try:
        with quiet():
            found = model.logits(np.zeros((1, 3, size, size), np.float32))
    except Exception as error:  # as many kinds as there are reasons
        raise InputError(
            f"{path} was not written by `fgbook export` (its model does not take"
            f" pictures of {size} pixels, as its description says)."
        ) from error
    if found.shape != (1, classes):
        raise InputError(
            f"{path} was not written by `fgbook export` (its model gives logits of"
            f" shape {found.shape}, and its description names {classes} classes)."
        )


def views(pixels: np.ndarray, about: dict) -> np.ndarray:
    """What a model sees of decoded pictures: (B, 3, S, S) uint8 of the size that it
    asks for -> the middle of each, (B, 3, s, s) float32 in [0, 1].
    """
    size = about["preprocessing"]["crop_to"]
    start = (pixels.shape[-1] - size) // 2
    middle = slice(start, start + size)
    return pixels[..., middle, middle].astype(np.float32) / np.float32(255)


def shares(logits: np.ndarray) -> np.ndarray:
    """Probabilities (B, C) of logits (B, C): softmax."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def named(source: Path | bytes) -> str:
    """What to call a source in a sentence."""
    return str(source) if isinstance(source, Path) else "the exported model"


def _text(held: dict) -> str | None:
    text = held[description.NAME]
    return text.decode() if isinstance(text, bytes) else text or None


def _session(source: Path | bytes, threads: int) -> onnxruntime.InferenceSession:
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            f"reading {named(source)} needs onnxruntime, which the extra `export`"
            " brings: pip install 'fgbook[export]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    given = str(source) if isinstance(source, Path) else source
    try:
        return onnxruntime.InferenceSession(
            given, options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its errors have no common class
        raise _damaged(source, error) from error


def _damaged(source: Path | bytes, error: Exception) -> InputError:
    reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
    return InputError(
        f"{named(source)} cannot be read ({reason}); export the model again."
    )
