"""The weights of backbones: where they are, reading them without running code, checking
that they fit."""

import hashlib
import pickle
from functools import lru_cache
from pathlib import Path

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from .. import paths
from ..errors import InputError

SHIPPED = Path(__file__).resolve().parent / "shipped" / "small.safetensors"
SUFFIXES = (".safetensors", ".pth", ".pt")
# what classifiers are called in the files; a backbone has none
HEADS = ("fc.", "classifier.", "head.", "heads.", "AuxLogits.")


def find(name: str, weights: str):
    """Where the weights of the backbone `name` are: None (random), a Path, one of
    torchvision's weights (downloaded when not cached), or "timm" (the same). `weights`
    as for ``backbones.create``. Raises InputError when a file that is asked for is not
    there."""
    if weights == "none":
        return None
    if weights != "pretrained":
        folder = paths.weights()
        for path in (
            Path(weights).expanduser(),
            folder / weights,
            *(folder / f"{weights}{suffix}" for suffix in SUFFIXES),
        ):
            if path.is_file():
                return path
        there = sorted(p.name for p in folder.glob("*") if p.suffix in SUFFIXES)
        raise InputError(
            f"weights {weights!r} are neither a file nor in {folder} (there:"
            f" {', '.join(there) or 'none'}); give 'pretrained', 'none', or the path of"
            " a file."
        )
    if name == "small":
        if not SHIPPED.is_file():
            raise InputError(
                f"the weights that ship with the package are missing ({SHIPPED});"
                " install fgbook again or use weights='none'."
            )
        return SHIPPED
    own = name.removeprefix("timm:")
    name = name.removesuffix("_fc7")  # the same network and file as without
    stems = [f"{own}-imagenet1k", own, f"{name}-imagenet1k"]
    if name.startswith("timm:"):
        online = "timm"
    else:
        # The first ImageNet weights are the ones that the papers' years know; later
        # sets come from a stronger training recipe.
        online = torchvision.models.get_model_weights(name).IMAGENET1K_V1
        stems.append(Path(online.url).stem)
    for stem in stems:
        for suffix in SUFFIXES:
            if (paths.weights() / f"{stem}{suffix}").is_file():
                return paths.weights() / f"{stem}{suffix}"
    return online


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _read(path: Path) -> dict[str, Tensor]:
    """A state dict from a safetensors or torch file; no code that a file may carry is
    run."""
    try:
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    # torch's answer to everything that is not a plain tensor
    except pickle.UnpicklingError:
        raise InputError(
            f"{path} is not a plain state dict: it is damaged or holds Python objects"
            " or code, which are never run; save the tensors alone, as safetensors or"
            " with torch.save(model.state_dict(), ...)."
        ) from None
    except Exception as error:  # a damaged file makes the readers fail in many ways
        raise InputError(
            f"{path} cannot be read as weights ({_reason(error)})."
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if (
        not isinstance(state, dict)
        or not state
        or not all(isinstance(value, Tensor) for value in state.values())
    ):
        raise InputError(f"{path} does not hold a state dict (names with tensors).")
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def _download(name: str, online) -> dict[str, Tensor]:
    try:
        if online == "timm":
            import timm

            return timm.create_model(
                name.removeprefix("timm:"), pretrained=True, num_classes=0
            ).state_dict()
        return online.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # whatever a network, a proxy or a hub client raises
        file = f"{name.removeprefix('timm:')}-imagenet1k.safetensors"
        raise InputError(
            f"the pretrained weights of {name} are not in {paths.weights()} and cannot"
            f" be downloaded ({_reason(error)}); put {file} (or .pth) there, set"
            " FGBOOK_WEIGHTS to a folder with it, or use weights='none'."
        ) from None


def load(network: nn.Module, name: str, source: object) -> None:
    """Put the weights at `source`, as :func:`find` gave it, into the network; a
    classifier among them is ignored.

    Raises InputError when they cannot be downloaded or read, hold code, or do not fit
    (with the keys).
    """
    state = _read(source) if isinstance(source, Path) else _download(name, source)
    own = network.state_dict()
    # Old torch files have no counter of batches; it does not influence any result here.
    missing = [
        key
        for key in own
        if key not in state and not key.endswith("num_batches_tracked")
    ]
    unexpected = [key for key in state if key not in own and not key.startswith(HEADS)]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    problems = []
    for what, keys in (
        ("missing", missing),
        ("unexpected", unexpected),
        ("other shape", shapes),
    ):
        if keys:
            problems.append(
                f"{what}: {', '.join(keys[:3])}"
                + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            )
    if problems:
        raise InputError(
            f"the weights {source} do not fit {name}; {'; '.join(problems)}."
        )
    network.load_state_dict(
        {key: state[key] for key in own if key in state}, strict=False
    )


def identity(name: str, source: object) -> str:
    """What identifies the weights at `source` in a record. Downloads nothing."""
    if source is None:
        return "none"
    if source == "timm":
        return name
    if isinstance(source, Path):
        return (
            f"{source.name}"
            f" sha256:{_sha256(source, source.stat().st_mtime_ns, source.stat().st_size)[:8]}"
        )
    return str(source)


@lru_cache
def _sha256(path: Path, modified: int, size: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
