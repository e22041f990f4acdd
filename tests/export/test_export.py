"""Exported files: that they say what PyTorch says, for every method, and that a file is
whole or not there."""

import errno
import json
import os
import re
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

from fgbook import files, paths
from fgbook.data import store
from fgbook.errors import InputError
from fgbook.export import (
    ENDINGS,
    check,
    description,
    int8,
    make,
    measured,
    opened,
    to_onnx,
    to_torch,
    traced,
)
from fgbook.images import augment
from fgbook.methods import METHODS, build
from fgbook.recipe import Recipe

SIZE = 40  # pixels: maps of 5 x 5 cells
CLASSES = ["robin", "=wren", "Kolibri \u00fc"]
# Suppression of overlapping boxes, crops, attention: what is hard to trace. All
# others take two minutes together; the plain backbone is what the other tests export.
QUICK = ("focus", "attention")


def cases():
    """Each method, and each of its variants."""
    for name, method in METHODS.items():
        for number in range(len(method.VARIANTS)):
            first = number == 0
            marks = () if name in QUICK and first else pytest.mark.slow
            yield pytest.param(name, number, marks=marks, id=f"{name}-{number}")


def model_of(method, variant=0, **recipe):
    """A method with random weights, also of its heads; and what model.json says."""
    recipe = {"image_size": SIZE, "store_size": SIZE + 5} | recipe
    chosen = Recipe(backbone="small", weights="none", **recipe)
    torch.manual_seed(0)
    attributes = torch.rand(len(CLASSES), 4)
    options = METHODS[method].VARIANTS[variant]
    model = build(method, len(CLASSES), chosen, options, attributes).eval()
    with torch.no_grad():  # the heads start near 0, where everything is equal
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(0, 0.3)
    about = {
        "key": "0123456789abcdef",
        "method": method,
        "classes": CLASSES,
        "data_fingerprint": "f" * 64,
        "command": "fgbook run feng",
        "recipe": chosen.as_dict(),
    }
    return model, about


def noise(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, SIZE, SIZE, generator=generator)


@pytest.fixture(scope="module")
def plain():
    """The plain backbone: the module, and its content in both formats."""
    model, about = model_of("plain")
    module = traced.predicting(model, about)
    program = traced.program(module, SIZE)
    described = description.describe(about)
    onnx_file = to_onnx.convert(program, described)
    return module, {"onnx": onnx_file, "torch": to_torch.convert(program, described)}


def put(folder, content, kind="onnx"):
    path = folder / f"model{ENDINGS[kind]}"
    path.write_bytes(content)
    return path


# ---- what it says


@pytest.mark.parametrize(("method", "variant"), list(cases()))
def test_every_method_says_the_same_when_it_is_exported(method, variant):
    """On images and numbers of images that were not traced. ONNX is made of the traced
    program, which takes most of the time, so of the first variant alone."""
    model, about = model_of(method, variant)
    module = traced.predicting(model, about)
    program = traced.program(module, SIZE)
    described = description.describe(about)
    reopened = opened.OpenedProgram(to_torch.convert(program, described))
    session = None
    if variant == 0:
        content = to_onnx.convert(program, described)
        session = onnxruntime.InferenceSession(content)
    for count in (1, 3):
        images = noise(count)
        with torch.no_grad():
            wanted = model.predict(images)
        found = reopened.logits(images.numpy())
        assert wanted.std() > 1e-3, "equal logits would say nothing"
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5, rtol=1e-4)
        if session is not None:
            (found,) = session.run(None, {"images": images.numpy()})
            np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_lower_resolution_is_part_of_the_file(tmp_path, kind):
    """Of a model that was trained on enlarged pictures."""
    model, about = model_of("plain", resolution="low", low_side=12)
    made = make.exported(model, about, kind)
    images = noise(3)
    with torch.no_grad():
        wanted = model.predict(augment.degrade(images, 12, "bicubic"))
        sharp = model.predict(images)
    found = opened.load(put(tmp_path, made.content, kind)).logits(images.numpy())
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)
    assert np.abs(found - sharp.numpy()).max() > 1e-2


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_files_are_read_again_with_their_description(plain, tmp_path, kind):
    module, contents = plain
    model = opened.load(put(tmp_path, contents[kind], kind))
    assert model.about["classes"] == CLASSES
    assert model.about["data_fingerprint"] == "f" * 64
    preprocessing = model.about["preprocessing"]
    assert (preprocessing["resize_to"], preprocessing["crop_to"]) == (SIZE + 5, SIZE)
    assert check.difference(module, model.logits, SIZE) < 1e-5


def test_the_description_is_plain_json_for_other_programs(plain):
    read = onnx.load_from_string(plain[1]["onnx"])
    onnx.checker.check_model(read, full_check=True)
    (entry,) = read.metadata_props
    assert entry.key == "fgbook"
    assert json.loads(entry.value)["classes"] == CLASSES
    (images,) = read.graph.input
    batch, *rest = images.type.tensor_type.shape.dim
    assert batch.dim_param, "the number of images is free"
    assert [side.dim_value for side in rest] == [3, SIZE, SIZE]


def turned(path):
    """A photograph that was taken with the camera on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(3).integers(0, 256, (70, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)


def transparent(path):
    pixels = np.random.default_rng(3).integers(0, 256, (70, 60, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="PNG")


@pytest.mark.parametrize("draw", [turned, transparent])
def test_the_page_says_how_to_use_a_file_without_this_package(
    plain, tmp_path, monkeypatch, capsys, draw
):
    page = (paths.REPOSITORY / "book" / "export.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    assert "import fgbook" not in code
    path = put(tmp_path, plain[1]["onnx"])
    draw(tmp_path / "bird.jpg")

    square, _ = store.decode(tmp_path / "bird.jpg", SIZE + 5)
    model = opened.load(path)
    (logits,) = model.logits(opened.views(square[None], model.about))
    monkeypatch.chdir(tmp_path)
    said: dict = {}
    exec(code, said)
    np.testing.assert_allclose(said["logits"][0], logits, atol=1e-5)
    assert capsys.readouterr().out.strip() == CLASSES[logits.argmax()]


def test_nothing_of_this_machine_is_in_a_file(plain):
    here = os.path.dirname(to_onnx.__file__).encode()
    assert here not in plain[1]["onnx"]


@pytest.mark.parametrize("stored", [SIZE, SIZE + 1, SIZE + 6])
def test_views_are_those_of_evaluation(stored):
    generator = torch.Generator().manual_seed(0)
    shape = (2, 3, stored, stored)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    about = {"preprocessing": {"crop_to": SIZE}}
    found = opened.views(pixels.numpy(), about)
    wanted = augment.centre(pixels, SIZE).numpy()
    np.testing.assert_array_equal(found, wanted)


def test_shares_are_the_softmax():
    logits = torch.tensor([[1.0, 2.0, 300.0], [0.0, 0.0, -1.0]])
    found = opened.shares(logits.numpy())
    np.testing.assert_allclose(found, logits.softmax(1).numpy(), rtol=1e-6)


# ---- how it is checked


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda logits: logits + (len(logits) == 1) * 0.01, 0.01),
        (lambda logits: logits + (len(logits) > 1) * 0.01, 0.01),
        (lambda logits: logits[:, :-1], float("inf")),
        (lambda logits: logits * float("nan"), float("inf")),
    ],
    ids=["of one image", "of several", "of another shape", "of no numbers"],
)
def test_a_difference_is_told(plain, wrong, told):
    module, contents = plain
    model = opened.OpenedOnnx(contents["onnx"])
    found = check.difference(module, lambda x: wrong(model.logits(x)), SIZE)
    assert found == pytest.approx(told, rel=1e-3)


def test_a_method_that_cannot_be_traced_is_named():
    class Looking(nn.Module):
        def predict(self, images):
            return images.mean((1, 2, 3))[:, None] * (3 if images.max() > 0.5 else 2)

    module = traced.Predicting(Looking(), Recipe(backbone="small"))
    with pytest.raises(InputError, match="Looking cannot be exported"):
        traced.program(module, SIZE)


# ---- eight bits


def test_eight_bits_say_nearly_the_same_in_a_smaller_file(plain):
    module, contents = plain
    images = traced.probes(SIZE, 24, seed=5)
    small = int8.quantise(contents["onnx"], images.numpy())
    assert len(small) < 0.5 * len(contents["onnx"])
    model = opened.OpenedOnnx(small)
    assert model.about["classes"] == CLASSES
    assert model.about["int8"]["pictures"] == 24
    with torch.no_grad():
        wanted = module(images).numpy()
    off = model.logits(images.numpy()) - wanted
    spread = wanted.std(0).mean()
    assert 0 < np.sqrt((off**2).mean()) < 0.2 * spread


# ---- files that cannot be read


@pytest.mark.parametrize("kind", ["onnx", "torch"])
@pytest.mark.parametrize("kept", [0, 0.5, 0.999])
def test_a_truncated_file_is_refused(plain, tmp_path, kind, kept):
    content = plain[1][kind]
    path = put(tmp_path, content[: int(kept * len(content))], kind)
    with pytest.raises(InputError, match=f"{path.name} cannot be read"):
        opened.load(path)


def test_a_file_of_another_program_is_refused(plain, tmp_path):
    """As the sentence says: one that `fgbook export` writes is read."""
    other = onnx.load_from_string(plain[1]["onnx"])
    del other.metadata_props[:]
    path = put(tmp_path, other.SerializeToString())
    with pytest.raises(InputError, match="was not written by `fgbook export`"):
        opened.load(path)
    assert opened.load(put(tmp_path, plain[1]["onnx"])).about


@pytest.mark.parametrize(
    "text", [None, "", "[1]", "{}", '{"classes": 3}', "not JSON"], ids=repr
)
def test_a_description_that_says_too_little_is_refused(text):
    with pytest.raises(InputError, match="model.onnx was not written by"):
        description.loads(text, "model.onnx")


def other(described, **parts):
    """A description that says something else, also of the preprocessing."""
    both = {**described, **described["preprocessing"]}
    assert parts.keys() <= both.keys()
    sizes = {
        name: parts.pop(name) for name in ("resize_to", "crop_to") if name in parts
    }
    held = {**described, **parts}
    return {**held, "preprocessing": {**described["preprocessing"], **sizes}}


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"classes": []}, "two different names or more"),
        ({"classes": ["robin"]}, "two different names or more"),
        ({"classes": ["robin", "wren", "robin"]}, "two different names or more"),
        ({"classes": [1, 2]}, "classes should be names"),
        ({"classes": ["robin", None, "wren"]}, "classes should be names"),
        ({"classes": "robin"}, "classes is 'robin'"),
        ({"key": 5}, "key is 5"),
        ({"command": None}, "command is None"),
        ({"preprocessing": []}, r"preprocessing is \[\]"),
        ({"preprocessing": {}}, "resize_to should be a number of pixels .* not None"),
        ({"resize_to": -4}, "resize_to should be a number of pixels .* not -4"),
        ({"resize_to": 45.0}, "resize_to should be a number of pixels .* not 45.0"),
        ({"resize_to": 10**6}, "resize_to should be a number of pixels from 1 to 8192"),
        ({"crop_to": True}, "crop_to should be a number of pixels .* not True"),
        ({"crop_to": 0}, "crop_to should be a number of pixels .* not 0"),
        ({"crop_to": SIZE + 6}, "crop_to, 46, is larger than resize_to, 45"),
    ],
    ids=str,
)
def test_a_description_that_cannot_be_is_refused(plain, parts, said):
    described = opened.OpenedOnnx(plain[1]["onnx"]).about
    if "preprocessing" in parts:
        changed = {**described, **parts}
    else:
        changed = other(described, **parts)
    with pytest.raises(InputError, match=f"model.onnx was not written by .*{said}"):
        description.loads(json.dumps(changed), "model.onnx")
    assert description.loads(json.dumps(described), "model.onnx") == described


@pytest.mark.parametrize("kind", ["onnx", "torch"])
@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"classes": CLASSES[:2]}, r"logits of shape \(1, 3\), and .* names 2 classes"),
        ({"classes": [*CLASSES, "tit"]}, "names 4 classes"),
        ({"crop_to": SIZE - 1}, "does not take pictures of 39 pixels"),
    ],
    ids=str,
)
def test_a_description_of_another_model_is_refused(plain, tmp_path, kind, parts, said):
    changed = other(opened.OpenedOnnx(plain[1]["onnx"]).about, **parts)
    if kind == "onnx":
        content = to_onnx.described(onnx.load_from_string(plain[1]["onnx"]), changed)
    else:
        content = to_torch.convert(traced.program(plain[0], SIZE), changed)
    with pytest.raises(InputError, match=f"was not written by .*{said}"):
        opened.load(put(tmp_path, content, kind))


def test_what_reads_onnx_may_be_missing(plain, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"pip install 'fgbook\[export\]'"):
        opened.load(put(tmp_path, plain[1]["onnx"]))


# ---- files that cannot be written


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_file_is_whole_or_as_it_was(tmp_path, monkeypatch, number):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"before")

    def full(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="cannot write .*model.onnx"):
        files.write(path, b"after")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_becomes_too_large_is_not_there(tmp_path):
    """As a full disk, but with the system's own refusal."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(InputError, match="name another file with -o"):
            files.write(tmp_path / "model.onnx", b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


# ---- what it costs


@pytest.mark.parametrize(("load", "threads"), [(0.4, (1, 2)), (3.0, (1,))])
def test_two_threads_are_timed_on_an_idle_machine_only(monkeypatch, load, threads):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0, 0), raising=False)
    monkeypatch.setattr(measured.records, "cores", lambda: 2)
    assert measured.threads_to_time() == threads
