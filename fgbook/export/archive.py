"""A file of torch.export, looked at before PyTorch opens it, because opening one runs
what it asks for.

`torch.export.load` unpickles example inputs, weights and constants, loads compiled
code, evaluates sizes as Python, looks up what the steps of the program call, and puts
the names of tensors and conditions on inputs into Python code that it runs. So nothing
goes through but what `fgbook export` writes. Whether an operator of PyTorch that does
get through has faults of its own, or how much memory it takes, is not looked at.
"""

import io
import json
import re

import torch

from ..errors import InputError

MODEL = "models/model.json"
EXAMPLES = "data/sample_inputs/model.pt"
CONFIGS = {
    "data/weights/model_weights_config.json": r"weight_\d+",
    "data/constants/model_constants_config.json": r"tensor_\d+",
}
"""What lists tensors -> the names of their records."""

# Every archive has them and PyTorch's writer adds its own.
ADDED = (".data/version", ".data/serialization_id", "byteorder")

RECORDS = (
    r"data/weights/weight_\d+",
    r"data/constants/tensor_\d+",
    *map(re.escape, (MODEL, EXAMPLES, *CONFIGS, *ADDED)),
    "extra/fgbook",
    "archive_format",
    "archive_version",
)
"""All that a file may hold; what else PyTorch reads there is pickled or compiled."""

# ---- what the texts of a program look like

WORD = r"\w*"
# a tensor by its place in the model; those of statistics of our own have slashes
PLACE = r"[\w./]*"
# Calls of these on numbers and symbols. Powers are not among them: a short one takes
# days.
SIZE = (
    r"(?:(?:Symbol|Integer|Add|Mul|FloorDiv|CeilDiv|CleanDiv|Mod|PythonMod|Max|Min)\("
    r"|'\w+'|[a-z]+=True|[-\d(), ])*"
)
# How one image goes in and one tensor of logits comes out: nothing but tuples and
# an empty dict.
NESTING = (
    r'(?:"type": (?:null|"builtins\.(?:tuple|dict)")'
    r'|"context": (?:null|"null"|"\[\]")|"children_spec": |[][{}, 1])*'
)
# Operators on tensors that are for everybody, save the two that touch files; checks of
# tensors and antialiasing; arithmetic with sizes; and regions in which an option of
# PyTorch is off.
STEP = (
    r"torch\.ops\.aten\.(?:(?!from_file\b|save\b)[a-z]\w*|__\w+__"
    r"|_assert_tensor_metadata|_assert_scalar|_upsample_bi\w+2d_aa)\.\w+"
    r"|_operator\.(?:add|sub|mul|floordiv|truediv|mod|neg|eq|ne|lt|le|gt|ge|and_|or_)"
    r"|torch\.sym_\w+|math\.trunc"
    r"|torch\.ops\.higher_order\.wrap_with_(?:autocast|set_grad_enabled)"
)

TEXTS = {
    "target": STEP,
    "expr_str": SIZE,
    "in_spec": NESTING,
    "out_spec": NESTING,
    "parameter_name": PLACE,
    "buffer_name": PLACE,
    "tensor_constant_name": PLACE,
    "fqn": PLACE,
    "as_string": r"[\w,.> -]*",  # options, and equations of einsum
    "as_float": r"-?Infinity|NaN",
    "torch_version": r"[\w.+]*",
}
"""Name of a field -> how its text may look. All others are a WORD: one that is put into
Python code is the name of a variable there, and can do nothing."""


def cleaned(content: bytes, name: str) -> bytes:
    """The bytes of a `.pt2` file that is safe to open, made of one that may not be.

    It is written anew, record by record, so that what PyTorch opens is what was looked
    at: a zip file can be made that two programs read differently. The notes that
    PyTorch makes on where a step came from are left out.

    name: of the file, for a sentence. Raises InputError for a file with anything that
    could run code; and as many kinds of errors as there are kinds of damage.
    """
    try:
        from torch.export.pt2_archive import PT2ArchiveReader, PT2ArchiveWriter
    except ImportError as error:
        raise InputError(
            f"{name} needs a newer PyTorch than {torch.__version__}; export the model"
            " as .onnx."
        ) from error

    reader = PT2ArchiveReader(io.BytesIO(content))
    names = reader.get_file_names()
    for one in names:
        if not any(_is(one, pattern) for pattern in RECORDS):
            raise _refused(name, f"{one!r}")
    if len(set(names)) < len(names):
        raise _refused(name, "two records of one name")
    # PyTorch packs nothing: what unpacks to more than the file would fill the memory
    if sum(map(reader.archive_file.get_record_size, names)) > len(content):
        raise _refused(name, "packed records")

    records = {one: reader.read_bytes(one) for one in names if one not in ADDED}
    for config, of_tensor in CONFIGS.items():
        _check_tensors(records[config], of_tensor, name)
    _check_examples(records[EXAMPLES], name)
    program = _plain(json.loads(records[MODEL]), "", name)
    records[MODEL] = json.dumps(program).encode()

    buffer = io.BytesIO()
    with PT2ArchiveWriter(buffer) as writer:
        for one, record in records.items():
            writer.write_bytes(one, record)
    return buffer.getvalue()


def _check_tensors(config: bytes, of_tensor: str, name: str) -> None:
    """A record that PyTorch takes for a pickle is refused; others are bare numbers."""
    for payload in json.loads(config)["config"].values():
        if payload["use_pickle"] is not False:
            raise _refused(name, "a pickled tensor")
        if not _is(payload["path_name"], of_tensor):
            raise _refused(name, f"{payload['path_name']!r} as a tensor")


def _check_examples(pickled: bytes, name: str) -> None:
    """PyTorch unpickles what does not load as tensors alone; this does not."""
    try:
        torch.load(io.BytesIO(pickled), weights_only=True)
    except Exception as error:  # as many kinds as pickles can be wrong
        raise _refused(name, "example inputs that are no tensors") from error


def _plain(value: object, field: str, name: str) -> object:
    """A part of a program, as JSON has it, without its notes; `field` is where it
    stands. Raises InputError for a text that is not as those of its field are.
    """
    if isinstance(value, dict):
        made = {}
        for key, part in value.items():
            _check_text(key, "", name)
            made[key] = {} if key == "metadata" else _plain(part, key, name)
        return made
    if isinstance(value, list):
        return [_plain(part, field, name) for part in value]
    if isinstance(value, str):
        _check_text(value, field, name)
    return value


def _check_text(text: str, field: str, name: str) -> None:
    if not _is(text, TEXTS.get(field, WORD)):
        shown = text if len(text) <= 60 else f"{text[:60]}..."
        raise _refused(name, f"{shown!r} in its program")


def _is(text: str, pattern: str) -> bool:
    return re.fullmatch(pattern, text, re.ASCII) is not None


def _refused(name: str, what: str) -> InputError:
    return InputError(
        f"{name} holds {what}, which `fgbook export` does not write and which could run"
        " code; it was not opened. Export the model again, or take its .onnx."
    )
