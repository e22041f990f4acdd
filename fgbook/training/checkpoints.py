"""The files of a training run: checkpoints that survive a crash at any moment, the log,
the final weights."""

import io
import json
import os
import pickle
import shutil
import warnings
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import nn

from ..errors import InputError


@dataclass
class State:
    """How far a run has come: what a checkpoint holds besides model, averaged weights,
    optimiser and scaler."""

    epoch: int = 0  # epochs completed
    step: int = 0  # steps done in the current one
    # loss name -> sum over the images seen in this epoch
    sums: dict = field(default_factory=dict)
    activations: int = 0  # bytes kept for the backward pass, measured in the first step
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    log: list = field(default_factory=list)  # the lines of log.jsonl
    best_epoch: int = 0
    best_top1: float | None = None
    best_loss: float | None = None
    best: dict = field(default_factory=dict)  # the weights of the best epoch
    notes: list = field(default_factory=list)  # sentences for the next line of the log


class Folder:
    """A run's folder: checkpoint.pt, checkpoint.previous.pt, log.jsonl, and at the end
        model.safetensors; `tensorboard`: also events for it.

    Every file is written under a temporary name, flushed to the disk and renamed, so
    that at any moment each name holds a whole file.
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
        self.events = Events(path / "tensorboard") if tensorboard and write else None
        if write:
            try:
                path.mkdir(parents=True, exist_ok=True)
                for name in self.NAMES:
                    # of a process killed while it wrote
                    (path / f"{name}.tmp").unlink(missing_ok=True)
            except OSError as error:
                raise InputError(
                    f"cannot write in {path}: {error.strerror}; set FGBOOK_RUNS to a"
                    " folder that can be written."
                ) from error

    def write(self, target: Path, content: bytes) -> None:
        """Give `target` the content. When that fails whatever stood there before is
        intact."""
        temporary = target.with_name(f"{target.name}.tmp")
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if target == self.newest and target.exists():
                os.replace(target, self.previous)
            os.replace(temporary, target)
        except OSError as error:
            try:
                temporary.unlink(missing_ok=True)
            except OSError:
                pass
            kept = (
                f"; {self.saved} is intact, the same call goes on from it"
                if self.saved
                else ""
            )
            message = (
                f"cannot write {target}: {error.strerror or error}; free some space or"
                f" set FGBOOK_RUNS to another folder{kept}."
            )
            raise InputError(message) from error

    def save(self, state: State, parts: dict) -> None:
        """Write a checkpoint; the one before it is kept as checkpoint.previous.pt.
        `parts`: name -> state_dict."""
        sums = {name: float(total) for name, total in state.sums.items()}
        self.write(
            self.newest,
            _pack(
                {
                    "run": self.identity,
                    "state": {**vars(state), "sums": sums},
                    "parts": parts,
                }
            ),
        )
        self.saved = _words(self.newest, state)

    def resume(self, parts: dict) -> State:
        """Put the newest whole checkpoint into `parts` (name -> module ..) and return
        its state; a fresh one if there is none."""
        notes = []
        for path in (self.newest, self.previous):
            try:
                found = read(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise InputError(
                    f"cannot read {path}: {error.strerror}; make it readable or choose"
                    " another folder."
                ) from error
            if found is None:
                notes.append(f"{path.name} is damaged and was removed.")
                warnings.warn(
                    f"{path.parent}: {notes[-1]}", RuntimeWarning, stacklevel=3
                )
                if self.may_write:
                    path.unlink()  # or the next save would keep it as the previous one
                continue
            self.refuse(found["run"])
            try:
                for name, part in parts.items():
                    part.load_state_dict(found["parts"][name])
                state = State(**found["state"])
            except (KeyError, TypeError, ValueError, RuntimeError) as error:
                raise InputError(
                    f"{path} does not fit this model ({error}); choose another folder"
                    " or delete it."
                ) from error
            state.sums = {
                name: torch.tensor(total, dtype=torch.float64)
                for name, total in state.sums.items()
            }
            state.notes += notes
            self.saved = _words(path, state)
            if notes:
                state.notes.append(f"Went on from {self.saved}.")
            return state
        return State(
            notes=notes + ["Started again from the beginning."] if notes else []
        )

    def log(self, state: State) -> None:
        """Write log.jsonl whole: the checkpoint holds its lines, so none is ever lost
        or there twice."""
        if self.may_write:
            self.write(
                self.lines,
                "".join(
                    json.dumps(line, ensure_ascii=False) + "\n" for line in state.log
                ).encode(),
            )
            if self.events:
                self.events.show(state.log)

    def finish(self, model: nn.Module, outcome: dict) -> None:
        """Write the final weights, with `outcome` in the file's own header, then remove
        the checkpoints."""
        if self.may_write:
            weights = {
                name: value.detach().cpu().contiguous()
                for name, value in model.state_dict().items()
            }
            about = {"run": json.dumps(self.identity), "outcome": json.dumps(outcome)}
            self.write(self.model, safetensors.torch.save(weights, about))
            self.newest.unlink(missing_ok=True)
            self.previous.unlink(missing_ok=True)
            if self.events:
                self.events.writer.close()

    def finished(self, model: nn.Module) -> dict | None:
        """The outcome of a run that was finished here before, its weights put into
        `model`; None when there is none."""
        try:
            with safetensors.safe_open(self.model, "pt") as file:
                about = file.metadata() or {}
                weights = {name: file.get_tensor(name) for name in file.keys()}
            identity, outcome = json.loads(about["run"]), json.loads(about["outcome"])
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, safetensors.SafetensorError, KeyError, ValueError) as error:
            warnings.warn(
                f"{self.model} is damaged ({error}); training again.",
                RuntimeWarning,
                stacklevel=3,
            )
            return None
        self.refuse(identity)
        model.load_state_dict(weights)
        if self.may_write:  # of a process killed between the last two steps of `finish`
            self.newest.unlink(missing_ok=True)
            self.previous.unlink(missing_ok=True)
        return outcome

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
    lines there are: no epoch is lost or there twice."""

    def __init__(self, path: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                f"TensorBoard is not installed ({error}); install it with: pip install"
                " 'fgbook[tensorboard]'"
            ) from None
        self.make, self.path, self.writer, self.shown = SummaryWriter, path, None, 0

    def show(self, lines: list[dict]) -> None:
        """Write the lines that are new."""
        if self.writer is None:
            shutil.rmtree(self.path, ignore_errors=True)
            self.writer = self.make(str(self.path))
        for line in lines[self.shown :]:
            scalars = {f"loss/{name}": value for name, value in line["losses"].items()}
            scalars |= {
                name: line.get(name)
                for name in (
                    "lr",
                    "val_top1",
                    "val_loss",
                    "images_per_second",
                    "activations_mib",
                    "peak_memory_mib",
                )
            }
            for name, value in scalars.items():
                if value is not None:
                    self.writer.add_scalar(name, value, line["epoch"])
        self.shown = len(lines)
        self.writer.flush()


def _pack(content: dict) -> bytes:
    """A torch archive with its SHA-256 behind it; ``torch.load`` reads it as it is."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue() + sha256(buffer.getbuffer()).digest()


def read(path: Path) -> dict | None:
    """The content of a checkpoint; None when a bit of it is not as it was written, or
    when it holds anything but data."""
    file = path.read_bytes()
    archive, digest = file[:-32], file[-32:]
    if sha256(archive).digest() != digest:
        return None
    try:
        return torch.load(io.BytesIO(archive), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        return None


def _words(path: Path, state: State) -> str:
    return (
        f"{path} (epoch {state.epoch + 1}, step {state.step})"
        if state.step
        else f"{path} (after epoch {state.epoch})"
    )
