"""A method as a file of torch.export: PyTorch runs it without this package."""

import io

import torch

from . import description


def convert(program: torch.export.ExportedProgram, about: dict) -> bytes:
    """A traced program as the bytes of a `.pt2` file, with the description of its model
    inside.
    """
    buffer = io.BytesIO()
    held = {description.NAME: description.dumps(about)}
    torch.export.save(program, buffer, extra_files=held)
    return buffer.getvalue()
