"""The files of a training run: checkpoints that survive a crash at any moment, the log,
the final weights.
"""

import io
import json
import os
import pickle
import shutil
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from .. import files
from ..errors import InputError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Damaged(InputError):
    """A file of weights is not as it was written."""


@dataclass
class State:
    """How far a run has come: what a checkpoint holds besides model, averaged weights,
    optimiser and scaler.
    """

    epoch: int = 0  # epochs completed
    step: int = 0  # steps done in the current one
    # loss name -> sum over the images seen in this epoch, float64
    sums: dict[str, Tensor] = field(default_factory=dict)
    # sums over the steps of this epoch, see optimiser.clipping
    clipping: Tensor = field(
        default_factory=lambda: torch.zeros(3, dtype=torch.float64)
    )
    activations: int = 0  # bytes kept for the backward pass, measured in the first step
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    log: list[dict[str, Any]] = field(default_factory=list)  # the lines of log.jsonl
    best_epoch: int = 0
    best_top1: float | None = None
    best_loss: float | None = None
    best: dict[str, Tensor] = field(default_factory=dict)  # weights of the best epoch
    notes: list[str] = field(default_factory=list)  # for the next line of the log

    def packed(self) -> dict[str, Any]:
        """As a checkpoint holds it: numbers in place of the sums."""
        sums = {name: float(total) for name, total in self.sums.items()}
        return {**vars(self), "sums": sums, "clipping": self.clipping.tolist()}

    @classmethod
    def unpacked(cls, values: dict[str, Any]) -> "State":
        """A state from :meth:`packed`; what an older version did not know is as in a
        fresh one.
        """
        state = cls(**values)
        for name, total in state.sums.items():
            state.sums[name] = torch.tensor(total, dtype=torch.float64)
        state.clipping = torch.as_tensor(state.clipping, dtype=torch.float64)
        return state


class Folder:
    """A run's folder: checkpoint.pt, checkpoint.previous.pt, log.jsonl, and at the end
    model.safetensors; `tensorboard`: also events for it.

    Every file is written under a temporary name, flushed to the disk and renamed, so
    that at any moment each name holds a whole file. Checkpoints and weights carry a
    digest, so that damage which happens later is noticed when they are read.
    """

    NAMES = (
        "checkpoint.pt",
        "checkpoint.previous.pt",
        "log.jsonl",
        "model.safetensors",
    )

    def __init__(
        self, path: Path, identity: dict, write: bool, tensorboard: bool = False
    ):
        self.path, self.identity, self.may_write = path, identity, write
        self.newest, self.previous, self.lines, self.model = (
            path / name for name in self.NAMES
        )
        self.saved = ""  # the last good checkpoint, in words
        self.damage: list[str] = []  # sentences about files that were not whole
        self.events = Events(path / "tensorboard") if tensorboard and write else None
        if write:
            self._begin()

    def _begin(self) -> None:
        """Make the folder, and remove what a process left that was killed while it
        wrote.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for name in self.NAMES:
                (self.path / f"{name}.tmp").unlink(missing_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot write in {self.path}: {error.strerror}; set FGBOOK_RUNS to a"
                " folder that can be written."
            ) from error

    def write(self, target: Path, content: bytes) -> None:
        """Give `target` the content. When that fails whatever stood there before is
        intact.
        """
        temporary = target.with_name(f"{target.name}.tmp")
        try:
            files.flush(temporary, content)
            if target == self.newest and target.exists():
                os.replace(target, self.previous)
            os.replace(temporary, target)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            kept = ""
            if self.saved:
                kept = f"; {self.saved} is intact, the same call goes on from it"
            raise InputError(
                f"cannot write {target}: {error.strerror or error}; free some space or"
                f" set FGBOOK_RUNS to another folder{kept}."
            ) from error

    # ---- checkpoints

    def save(self, state: State, parts: dict[str, dict]) -> None:
        """Write a checkpoint; the one before it is kept as checkpoint.previous.pt.
        `parts`: name -> state_dict.
        """
        content = {"run": self.identity, "state": state.packed(), "parts": parts}
        self.write(self.newest, _pack(content))
        self.saved = _words(self.newest, state)

    def resume(self, parts: dict[str, Any]) -> State:
        """Put the newest whole checkpoint into `parts` (name -> module, optimiser, ..)
        and return its state; a fresh one if there is none.
        """
        for path in (self.newest, self.previous):
            content = self._whole(path)
            if content is None:
                continue
            state = self._take(path, content, parts)
            self.saved = _words(path, state)
            state.notes += self.damage
            if self.damage:
                state.notes.append(f"Went on from {self.saved}.")
            return state
        if self.damage:
            return State(notes=[*self.damage, "Started again from the beginning."])
        return State()

    def _whole(self, path: Path) -> dict | None:
        """The content of a checkpoint; None where there is none, or only a damaged one,
        which is said and removed.
        """
        try:
            content = read(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(
                f"cannot read {path}: {error.strerror}; make it readable or choose"
                " another folder."
            ) from error
        if content is None:
            self._warn(f"{path.name} is damaged and was removed.")
            if self.may_write:
                path.unlink()  # or the next save would keep it as the previous one
        return content

    def _take(self, path: Path, content: dict, parts: dict[str, Any]) -> State:
        """Put a checkpoint's weights into `parts`, and return its state."""
        self.refuse(content["run"])
        try:
            for name, part in parts.items():
                part.load_state_dict(content["parts"][name])
            return State.unpacked(content["state"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{path} does not fit this model ({error}); choose another folder"
                " or delete it."
            ) from error

    def _warn(self, sentence: str) -> None:
        self.damage.append(sentence)
        warnings.warn(f"{self.path}: {sentence}", RuntimeWarning, stacklevel=4)

    # ---- the log

    def log(self, state: State) -> None:
        """Write log.jsonl whole: the checkpoint holds its lines, so none is ever lost
        or there twice.
        """
        if not self.may_write:
            return
        lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in state.log]
        self.write(self.lines, "".join(lines).encode())
        if self.events:
            self.events.show(state.log)

    # ---- the final weights

    def finish(self, model: nn.Module, outcome: dict) -> None:
        """Write the final weights, with `outcome` and a digest in the file's own
        header, then remove the checkpoints.
        """
        if not self.may_write:
            return
        weights = {}
        for name, value in model.state_dict().items():
            weights[name] = value.detach().cpu().contiguous()
        about = {"run": json.dumps(self.identity), "outcome": json.dumps(outcome)}
        about["digest"] = _digest(weights, about)
        self.write(self.model, safetensors.torch.save(weights, about))
        self._remove_checkpoints()
        if self.events:
            self.events.close()

    def finished(self, model: nn.Module) -> dict | None:
        """The outcome of a run that was finished here before, its weights put into
        `model`; None when there is none, or when its file is damaged: that is said, and
        the run goes on from its checkpoint or from the beginning.
        """
        try:
            weights, about = _open(self.model)
            identity, outcome = json.loads(about["run"]), json.loads(about["outcome"])
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (Damaged, KeyError, ValueError):
            self._warn(f"{self.model.name} is damaged; training again.")
            return None
        self.refuse(identity)
        model.load_state_dict(weights)
        if self.may_write:
            # of a process killed between the last two steps of `finish`
            self._remove_checkpoints()
        return outcome

    def _remove_checkpoints(self) -> None:
        self.newest.unlink(missing_ok=True)
        self.previous.unlink(missing_ok=True)

    def refuse(self, identity: dict) -> None:
        """Raise InputError unless a file's identity is this run's."""
        for name in {**identity, **self.identity}:
            there, here = identity.get(name), self.identity.get(name)
            if there != here:
                difference = f"{name} is {there!r} there, {here!r} here"
                raise InputError(
                    f"{self.path} holds another run ({difference}); choose another"
                    " folder or delete it."
                )


class Events:
    """The log as TensorBoard's events. A call of ``fit`` begins them anew, from the
    lines there are: no epoch is lost or there twice.
    """

    SCALARS = (
        "lr",
        "val_top1",
        "val_loss",
        "images_per_second",
        "activations_mib",
        "peak_memory_mib",
        "clipped",
        "clip_coefficient",
    )

    def __init__(self, path: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                f"TensorBoard is not installed ({error}); install it with: pip install"
                " 'fgbook[tensorboard]'"
            ) from None
        self.make, self.path = SummaryWriter, path
        self.writer: "SummaryWriter | None" = None  # noqa: UP037  # not imported yet
        self.shown = 0  # lines that are in the file

    def show(self, lines: list[dict]) -> None:
        """Write the lines that are new."""
        if self.writer is None:
            shutil.rmtree(self.path, ignore_errors=True)
            self.writer = self.make(str(self.path))
        for line in lines[self.shown :]:
            scalars = {f"loss/{name}": value for name, value in line["losses"].items()}
            scalars |= {name: line.get(name) for name in self.SCALARS}
            for name, value in scalars.items():
                if value is not None:
                    self.writer.add_scalar(name, value, line["epoch"])
        self.shown = len(lines)
        self.writer.flush()

    def close(self) -> None:
        """Complete the file."""
        if self.writer is not None:
            self.writer.close()


# ---- files of weights


def load_model(path: Path) -> dict[str, Tensor]:
    """The final weights of a run, by name, on the CPU.

    Raises Damaged, an InputError, when the file is not as it was written, and another
    InputError when there is none or it cannot be read.
    """
    try:
        weights, _ = _open(path)
    except OSError as error:
        raise InputError(
            f"cannot read the weights {path}: {error.strerror or error}; put them back,"
            " or make them readable."
        ) from error
    return weights


def _open(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the header of a file of weights; raises Damaged, or OSError where
    it is not there or not to be read.
    """
    content = path.read_bytes()
    try:
        weights = safetensors.torch.load(content)
        about = _header(content)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise _damaged(path, str(error)) from error
    digest = about.pop("digest", None)  # runs of older versions have none
    if digest is not None and digest != _digest(weights, about):
        raise _damaged(path, "its digest is another")
    return weights, about


def _damaged(path: Path, why: str) -> Damaged:
    return Damaged(
        f"the weights {path} are damaged ({why}); delete that file and run the command"
        " that trains them again."
    )


def _header(content: bytes) -> dict[str, str]:
    """The strings in a safetensors file's header: 8 bytes that tell its length, then
    JSON.
    """
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]).get("__metadata__", {})


def _digest(weights: dict[str, Tensor], about: dict[str, str]) -> str:
    """SHA-256 of all that a file of weights says, whatever the order in it."""
    digest = sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(weights):
        value = weights[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        # as bytes: numpy does not know all of torch's types
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


# ---- checkpoint files


def _pack(content: dict) -> bytes:
    """A torch archive with its SHA-256 behind it; ``torch.load`` reads it as it is."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue() + sha256(buffer.getbuffer()).digest()


def read(path: Path) -> dict | None:
    """The content of a checkpoint; None when a bit of it is not as it was written, or
    when it holds anything but data.
    """
    file = path.read_bytes()
    archive, digest = file[:-32], file[-32:]
    if sha256(archive).digest() != digest:
        return None
    try:
        return torch.load(io.BytesIO(archive), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        return None


def _words(path: Path, state: State) -> str:
    if state.step:
        return f"{path} (epoch {state.epoch + 1}, step {state.step})"
    return f"{path} (after epoch {state.epoch})"
