"""A file of torch.export that hides code: refused, and nothing of it has run. PyTorch's
own call runs it, which is what the first test is about."""

import contextlib
import io
import json
import os
import pickle
import struct
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.export.pt2_archive import PT2ArchiveReader, PT2ArchiveWriter

from fgbook.errors import InputError
from fgbook.export import archive, description, opened, to_torch

SIZE = 8  # pixels
WEIGHTS, CONSTANTS = archive.CONFIGS


class Small(nn.Module):
    """Two classes from the mean colour, with a weight and a constant."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.register_buffer("mean", torch.full((3,), 0.5), persistent=False)

    def forward(self, images):
        return self.head(images.mean((2, 3)) - self.mean)


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return Small().eval()


@pytest.fixture(scope="module")
def genuine(module):
    """The content of a file as `fgbook export` writes it."""
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(
        module, (torch.rand(2, 3, SIZE, SIZE),), dynamic_shapes=({0: batch},)
    )
    recipe = {"store_size": SIZE, "image_size": SIZE}
    about = {"key": "0" * 16, "command": "fgbook run", "classes": ["robin", "wren"]}
    described = description.describe({**about, "recipe": recipe})
    return to_torch.convert(program, described)


# ---- files with something inside


@dataclass
class Marking:
    """A pickle that makes a folder when it is read."""

    marker: Path

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def saved(marker):
    buffer = io.BytesIO()
    torch.save(Marking(marker), buffer)
    return buffer.getvalue()


def statement(marker):
    """The same in an expression of Python."""
    return f"__import__('os').mkdir({str(marker)!r})"


def records_of(content):
    reader = PT2ArchiveReader(io.BytesIO(content))
    names = [name for name in reader.get_file_names() if name not in archive.ADDED]
    return {name: reader.read_bytes(name) for name in names}


def written(records):
    buffer = io.BytesIO()
    with PT2ArchiveWriter(buffer) as writer:
        for name, record in records.items():
            writer.write_bytes(name, record)
    return buffer.getvalue()


def examples(records, marker):
    records[archive.EXAMPLES] = saved(marker)


def tensor(config, folder):
    def change(records, marker):
        held = json.loads(records[config])
        first = next(iter(held["config"].values()))
        first["use_pickle"] = True
        records[config] = json.dumps(held).encode()
        records[f"{folder}{first['path_name']}"] = saved(marker)

    return change


def lifted(prefix, dumps):
    """A constant that is an object."""

    def change(records, marker):
        held = json.loads(records[CONSTANTS])
        first = next(iter(held["config"].values()))
        first |= {"path_name": f"{prefix}0", "use_pickle": True, "tensor_meta": None}
        records[CONSTANTS] = json.dumps(held).encode()
        records[f"data/constants/{prefix}0"] = dumps(marker)

    return change


def renamed(records, marker):
    """A constant said to be numbers, whose record has the name of an object."""
    held = json.loads(records[CONSTANTS])
    next(iter(held["config"].values()))["path_name"] = "opaque_obj_0"
    records[CONSTANTS] = json.dumps(held).encode()
    pickled = pickle.dumps(Marking(marker))
    records["data/constants/opaque_obj_0"] = pickled + bytes(-len(pickled) % 4)


def record(name):
    def change(records, marker):
        records[name] = saved(marker)

    return change


def compiled(records, marker):
    records["data/aotinductor/model/model.so"] = b"\x7fELF"


def program(change_program):
    def change(records, marker):
        held = json.loads(records[archive.MODEL])
        change_program(held, marker)
        records[archive.MODEL] = json.dumps(held).encode()

    return change


@program
def size(held, marker):
    values = held["graph_module"]["graph"]["tensor_values"]
    values["images"]["sizes"][0]["as_expr"]["expr_str"] = statement(marker)


@program
def limit(held, marker):
    """The name of a size whose limits are said."""
    held["range_constraints"][statement(marker)] = {"min_val": 1, "max_val": 2}


@program
def guard(held, marker):
    held["guards_code"] = [f"{statement(marker)} is None"]


@program
def nesting(held, marker):
    """A dict with defaults, made by what stands in any module."""
    (entry, *_) = held["graph_module"]["module_call_graph"]
    context = {
        "default_factory_module": "os",
        "default_factory_name": "getcwd",
        "dict_context": "[]",
    }
    protocol, spec = json.loads(entry["signature"]["out_spec"])
    spec["type"] = "collections.defaultdict"
    spec["context"] = json.dumps(context)
    entry["signature"]["out_spec"] = json.dumps([protocol, spec])


@program
def variable(held, marker):
    """The name of the input, as it stands in the code that PyTorch makes."""
    text = json.dumps(held["graph_module"])
    code = json.dumps(f"images={statement(marker)}")
    held["graph_module"] = json.loads(text.replace('"images"', code))


def step(target, text=None):
    """The first step calls something else, with a path or a text."""

    @program
    def change(held, marker):
        first, *_ = held["graph_module"]["graph"]["nodes"]
        first["target"] = target
        path = {"as_string": text or str(marker)}
        first["inputs"] = [{"name": "filename", "arg": path, "kind": 1}]

    return change


def object_of_torch(marker):
    """A saved object of TorchScript has its own kind of pickle."""
    return torch._C._pickle_save(str(marker))


RUN = {
    "example inputs": examples,
    "a weight": tensor(WEIGHTS, "data/weights/"),
    "a constant": tensor(CONSTANTS, "data/constants/"),
    "an object": lifted("opaque_obj_", lambda marker: pickle.dumps(Marking(marker))),
    "an object under another label": renamed,
    "weights as before": record("data/weights/model.pt"),
    "constants as before": record("data/constants/model.pt"),
    "a size": size,
    "a guard": guard,
    "a variable": variable,
}
"""Where code hides that PyTorch runs when it opens a file, or uses it."""

REFUSED = RUN | {
    "an object of TorchScript": lifted("custom_obj_", object_of_torch),
    "compiled code": compiled,
    "a made default": nesting,
    "a limit": limit,
    "a function": step("torch.os.mkdir"),
    "a file": step("torch.ops.aten.from_file.default", "ran"),
    "a path to a file": step("torch.ops.aten.einsum.default"),
    "an operator that is not for everybody": step("torch.ops.aten._print.default", "x"),
    "an operator of another library": step("torch.ops.prims.view_of.default", "x"),
    "a path": record("../model.pt"),
    "another model": record("models/other.json"),
    "another extra": record("extra/fgbook/more"),
    "a name with a line feed": record("extra/fgbook\n"),
}


def changed(genuine, change, marker):
    records = records_of(genuine)
    change(records, marker)
    return written(records)


@pytest.mark.parametrize("change", RUN.values(), ids=RUN)
def test_pytorch_runs_what_a_file_holds(genuine, tmp_path, change):
    """Or the next test would say nothing."""
    marker = tmp_path / "ran"
    content = changed(genuine, change, marker)
    with contextlib.suppress(Exception):  # it has run by then
        loaded = torch.export.load(io.BytesIO(content)).module()
        loaded(torch.rand(1, 3, SIZE, SIZE))
    assert marker.is_dir()


@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED)
def test_a_file_that_could_run_code_is_refused(genuine, tmp_path, change):
    marker = tmp_path / "ran"
    path = tmp_path / "model.pt2"
    path.write_bytes(changed(genuine, change, marker))
    with pytest.raises(InputError, match="model.pt2 holds .* it was not opened"):
        opened.load(path)
    assert not marker.exists()


def test_a_file_of_an_old_pytorch_is_refused(tmp_path):
    """It is pickled as a whole."""
    marker = tmp_path / "ran"
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("version", "8.20")
        file.writestr("serialized_exported_program.json", "{}")
        for name in ("state_dict", "constants", "example_inputs"):
            file.writestr(f"serialized_{name}.pt", saved(marker))
    with pytest.raises(InputError, match=r"model.pt2 (holds|cannot be read)"):
        opened.load(path)
    assert not marker.exists()


# ---- files that two readers understand differently


def zipped(records, **options):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as file:
        file.writestr("archive/.data/version", "6\n")
        for name, record in records:
            file.writestr(f"archive/{name}", record)
    return buffer.getvalue()


def test_two_records_of_one_name_are_refused(genuine, tmp_path):
    marker = tmp_path / "ran"
    pairs = list(records_of(genuine).items())
    with pytest.warns(UserWarning, match="Duplicate name"):
        content = zipped([*pairs, (archive.EXAMPLES, saved(marker))])
    with pytest.raises(InputError, match="two records of one name"):
        opened.OpenedProgram(content)
    assert not marker.exists()


def test_packed_records_are_refused_before_they_fill_the_memory(genuine):
    records = records_of(genuine) | {"data/weights/weight_0": bytes(1 << 20)}
    content = zipped(records.items(), compression=zipfile.ZIP_DEFLATED)
    assert len(content) < 1 << 18
    with pytest.raises(InputError, match="packed records"):
        opened.OpenedProgram(content)


def test_what_pytorch_opens_is_what_was_looked_at(genuine, monkeypatch, tmp_path):
    """Also of a file with a second table of contents, which Python's zipfile reads
    and PyTorch's reader does not."""
    marker = tmp_path / "ran"
    evil = changed(genuine, examples, marker)
    both = with_second(genuine, evil)
    with zipfile.ZipFile(io.BytesIO(both)) as file:
        assert file.read(f"archive/{archive.EXAMPLES}") == saved(marker)
    given = []
    load = torch.export.load

    def watched(file, **options):
        given.append(file.getvalue())
        return load(file, **options)

    monkeypatch.setattr(torch.export, "load", watched)
    assert opened.OpenedProgram(both).about["classes"] == ["robin", "wren"]
    assert not marker.exists()
    (content,) = given
    assert saved(marker) not in content


def with_second(first, second):
    """One file after another, where the end of the second says that its table is at
    the place of that of the first."""
    place = first.rindex(b"PK\x05\x06")
    (table,) = struct.unpack_from("<I", first, place + 16)
    content = bytearray(first + second)
    end = content.rindex(b"PK\x05\x06")
    struct.pack_into("<I", content, end + 16, table)
    return bytes(content)


# ---- files as they should be


def test_a_genuine_file_says_the_same_before_and_after(genuine, module):
    images = torch.rand(3, 3, SIZE, SIZE)
    model = opened.OpenedProgram(genuine)
    with torch.inference_mode():
        wanted = module(images).numpy()
        untouched = torch.export.load(io.BytesIO(genuine)).module()(images).numpy()
    np.testing.assert_array_equal(model.logits(images.numpy()), untouched)
    np.testing.assert_allclose(untouched, wanted, atol=1e-6)


def test_all_tensors_of_a_file_are_kept(genuine):
    before = records_of(genuine)
    after = records_of(archive.cleaned(genuine, "model.pt2"))
    assert before.keys() == after.keys()
    different = [name for name in before if before[name] != after[name]]
    assert different == [archive.MODEL]


def test_where_a_step_came_from_is_left_out(genuine):
    """The notes hold paths of the machine on which a model was exported."""
    assert b"test_archive" in genuine
    assert b"test_archive" not in archive.cleaned(genuine, "model.pt2")


def test_a_pytorch_that_is_too_old_is_named(genuine, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.export.pt2_archive", None)
    with pytest.raises(InputError, match=r"needs a newer PyTorch .*\.onnx"):
        opened.OpenedProgram(genuine)
