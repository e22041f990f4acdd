"""A method as ONNX: one file, any number of images, checked in ONNX Runtime."""

from importlib import util

import torch

from ..errors import InputError
from . import description
from .noise import quiet

OPSET = 18
"""The oldest set of operators that has all that is used."""

PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def check_installed() -> None:
    """Raises InputError where a package of the extra `export` is missing."""
    missing = [name for name in PACKAGES if util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"writing ONNX needs {' and '.join(missing)}, which the extra `export`"
            " brings: pip install 'fgbook[export]'"
        )


def convert(program: torch.export.ExportedProgram, about: dict) -> bytes:
    """A traced program as the bytes of an ONNX file, with the description of its model
    inside.
    """
    with quiet():
        made = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[description.INPUT],
            output_names=[description.OUTPUT],
            verbose=False,
        )
    assert made is not None
    return described(made.model_proto, about)


def described(proto, about: dict) -> bytes:
    """An ONNX model with its description, as bytes."""
    del proto.metadata_props[:]
    proto.metadata_props.add(key=description.NAME, value=description.dumps(about))
    # where in our code an operation came from helps nobody who runs it
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        del value.metadata_props[:]
    for value in proto.graph.initializer:
        del value.metadata_props[:]
    return proto.SerializeToString()
