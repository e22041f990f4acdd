"""The training loop: ``fit`` trains a model by a recipe, ``predict`` gives its class
probabilities.

What makes a run repeatable: nothing random is carried along. The order of an epoch, the
augmentation of an image and the dropout of a step are functions of (seed, epoch, image
or step), so a checkpoint needs no random state, and a run that was killed at any moment
goes on as if nothing had happened: on a CPU its final weights are identical, bit by
bit, to those of an undisturbed run.

What keeps a GPU busy: images lie on it as uint8 (or are copied from pinned memory),
everything else happens there, and the host looks at a result only every LOOK steps.

Several processes (torchrun, accelerate launch): each works on a slice of every batch,
losses and gradients are those of the whole batch. Batch statistics of BatchNorm are
then those of the slices, and the running statistics of the first process are kept; with
recipe.sync_batchnorm they are those of the whole batch.
"""

import copy
import json
import math
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import backbones
from ..data.dataset import DataSet, Split
from ..errors import InputError, listed, unknown
from ..images.augment import evaluation_view, key
from ..recipe import Recipe
from . import batches, devices, features, memory, optimiser, schedule, statistics
from .checkpoints import Folder, State
from .devices import Images, to_device

if TYPE_CHECKING:
    from accelerate import Accelerator
    from tqdm import tqdm

    from ..methods.method import Method, Views

# raise it when the same recipe and seed give other results, beyond rounding
VERSION = 1
# steps between two looks at the loss: each makes the host wait for the device
LOOK = 50
SAVE_SECONDS = 180.0  # between two checkpoints within an epoch


class NonFiniteLoss(InputError):
    """Training has overflowed: something (`what`) became infinite or not a number.

    ``step`` counts optimiser steps from 1, ``files`` are that batch's images.
    """

    def __init__(
        self,
        step: int,
        files: list[str],
        where: str,
        checkpoint: str,
        what: str = "the loss or a weight was",
    ):
        self.step, self.files = step, files
        super().__init__(
            f"{what} not finite at step {step} ({where}); last good checkpoint:"
            f" {checkpoint}; lower the learning rate, set clip_norm, or look at the"
            f" images of that batch: {listed(files, 8)}."
        )


@dataclass
class Outcome:
    """What became of a call of ``fit``."""

    finished: bool  # False: the time budget ended first; the same call goes on
    epochs: int  # completed, over all calls
    best_epoch: int  # counted from 1: the epoch whose weights are kept
    # of the best epoch, in [0, 1]; None where nothing was held out
    val_top1: float | None
    seconds: float  # of training and validation, over all calls
    # batches that led to the present state; each is an optimiser step, or several
    # where the method has rounds
    steps: int
    # Of all completed epochs: the share of updates whose gradient was cut to clip_norm,
    # and the mean of what gradients were multiplied by; None where nothing is cut. Each
    # epoch's are in the log.
    clipped: float | None = None
    clip_coefficient: float | None = None


def fit(
    model: "Method",
    data: DataSet,
    recipe: Recipe,
    run_dir: Path,
    *,
    seed: int = 0,
    device: str | None = None,
    budget_minutes: float | None = None,
    progress: bool = True,
    tensorboard: bool = False,
) -> Outcome:
    """Train `model` on `data` by `recipe`; the chosen weights are then in `model` (in
    eval mode) and in ``run_dir/model.safetensors``.

    The weights of the epoch with the highest validation top-1 are chosen (equal: lower
    validation loss, then earlier); with train_on="train+val" or keep="last" those of
    the last epoch. With recompute_statistics their running statistics are then made
    anew (see :mod:`fgbook.training.statistics`). The test split is never touched.

    ``run_dir/log.jsonl`` gets one line an epoch (with `tensorboard` also
    ``run_dir/tensorboard``): activations_mib is what a part of a batch keeps for the
    backward pass, besides weights; peak_memory_mib is the most that this process ever
    held on its GPU (None on a CPU); where clip_norm is set, clipped and
    clip_coefficient are the epoch's (see :class:`Outcome`).

    A call with the same arguments goes on where an earlier one was stopped by the
    budget, by Ctrl-C or by a crash, and returns at once when the run is finished.

    `model` needs forward(images, targets) -> logits, losses(logits, targets, criterion)
    -> named means over images, predict(images) -> logits (B, C); targets are labels
    (B,) int64, or class probabilities (B, C) where images are mixed. Its ``backbone``,
    if it has one, learns at lr * backbone_lr_factor. Weight decay is on all parameters.
    Its ``prepare``, if it has one, sees the training images before the first step.
    Where it has ``rounds``, each batch gets an optimiser step for each of these (see
    :class:`fgbook.methods.method.Method`); a step of the schedule, of ema and of the
    log is a batch with all its rounds.
    The images left over after the last whole batch form a smaller one; a single image
    left over is skipped (BatchNorm cannot normalise it). torch's random generators are
    seeded anew at every step. A model that is ``solved`` learns without steps, by its
    ``solve``.

    Raises InputError (data or folder unusable, run_dir holds another run, disk full),
    NonFiniteLoss, KeyboardInterrupt (after a checkpoint; a second Ctrl-C does not wait
    for one).
    """
    deadline = math.inf
    if budget_minutes is not None:
        deadline = time.monotonic() + 60 * budget_minutes
    accelerator = devices.accelerator(recipe, device)
    _check(data, recipe)
    model = _prepared(model, recipe, accelerator)
    folder = Folder(
        Path(run_dir),
        _identity(model, data, recipe, seed),
        write=accelerator.is_main_process,
        tensorboard=tensorboard,
    )
    earlier = folder.finished(model)
    if earlier is not None:
        model.eval()
        return Outcome(**earlier)
    if getattr(model, "solved", False):
        return _solve(model, data, recipe, folder, accelerator)
    if hasattr(model, "prepare"):
        model.eval()
        with torch.no_grad():
            # a run that goes on then takes the weights of its checkpoint
            model.prepare(_views(data, recipe, accelerator))
    trainer = Trainer(model, data, recipe, seed, folder, accelerator)
    return trainer.run(deadline, progress)


class Asked(NamedTuple):
    """What may be asked for between two steps; the answer is the first process's."""

    interrupted: bool = False  # by Ctrl-C
    over: bool = False  # the time budget
    due: bool = False  # a checkpoint

    @property
    def stop(self) -> bool:
        """Whether this call of ``fit`` is to end."""
        return self.interrupted or self.over


class Trainer:
    """One call of :func:`fit`, from wherever an earlier one was stopped. Read ``run``
    first; what it calls follows in its order.

    WAITS marks the lines at which the host waits for the device. ``step`` has none.
    """

    def __init__(
        self,
        model: "Method",
        data: DataSet,
        recipe: Recipe,
        seed: int,
        folder: Folder,
        accelerator: "Accelerator",
    ):
        self.model, self.recipe, self.seed = model, recipe, seed
        self.folder, self.accelerator = folder, accelerator
        self.device: torch.device = accelerator.device
        self.several = accelerator.num_processes > 1
        self.first = accelerator.is_main_process

        # what is learnt, and what is held out
        self.num_classes = data.num_classes
        self.train = data.split(recipe.train_on)
        self.val = data.val if recipe.train_on == "train" else None
        self.images = Images(self.train.images, self.device)
        self.labels = self.train.labels.to(self.device)
        self.held_out: Images | None = None
        if self.val is not None:
            self.held_out = Images(self.val.images, self.device)
        self.steps = schedule.steps_per_epoch(len(self.train), recipe.batch_size)

        # what learns; `evaluated` are the weights that validation sees
        made = optimiser.make(model, recipe)
        self.optimiser = accelerator.prepare_optimizer(made)
        self.evaluated = copy.deepcopy(model) if recipe.ema else model
        self.criterion = partial(
            F.cross_entropy, label_smoothing=recipe.label_smoothing
        )

        # what a checkpoint holds: everything with a state_dict, and the state
        self.parts: dict[str, Any] = {"model": model, "optimiser": self.optimiser}
        if recipe.ema:
            self.parts["average"] = self.evaluated
        if accelerator.scaler is not None:  # fp16
            self.parts["scaler"] = accelerator.scaler
        self.state = self._resume()

        # What forward is told in each round of a batch, after images and targets; of
        # most methods there is one round, which is told nothing.
        self.names: tuple[str, ...] = getattr(model, "rounds", ())
        self.rounds: list[tuple[str, ...]] = [(name,) for name in self.names] or [()]

        self.frozen_precision = devices.in_precision(model, recipe, self.device)

        # what is called in place of the model: compiled, DistributedDataParallel
        if recipe.compile:
            model.compile()
        self.network: nn.Module = model
        if self.several:
            self.network = devices.parallel(model, accelerator, len(self.rounds) > 1)

        # the first step, over all epochs, whose loss was not finite; see look()
        self.bad_step = torch.tensor(math.inf, dtype=torch.float64, device=self.device)
        self.clock = self.saved = time.monotonic()

    def _resume(self) -> State:
        """The newest checkpoint's state, its weights put where they belong; a fresh one
        where there is none.
        """
        state = self.folder.resume(self.parts)
        # sums over images are counted once, not by every process
        state.sums = {name: total * self.first for name, total in state.sums.items()}
        state.clipping = state.clipping.to(self.device)
        self.accelerator.wait_for_everyone()  # all have read before the first writes
        self.folder.log(state)  # also shows at once whether the folder can be written
        return state

    def run(self, deadline: float, progress: bool) -> Outcome:
        """Train to the end, or until `deadline` (as of time.monotonic) or Ctrl-C."""
        self.deadline = deadline
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        with (
            self._progress_bar(progress) as self.bar,
            self._recomputed(),
            _interruptible() as self.interrupts,
        ):
            while not self.ended():
                stopped = self.epoch()
                if stopped:
                    return self.stopped(stopped)
        return self.finish()

    def epoch(self) -> Asked | None:
        """From where the state stands to the end of its epoch. What asked to stop, if
        something did before the run's end; else None.
        """
        of_epoch = self.batches(self.state.epoch)
        self.model.train()

        while self.state.step < self.steps:
            # 1. learn from the next batch
            self.step(of_epoch[self.state.step])

            # 2. now and then look at the loss, save, or stop. Several processes have to
            # agree on that, which costs a message: they do so only when they look
            # anyway.
            looking = self.state.step % LOOK == 0
            asked = self.asked() if looking or not self.several else Asked()
            if looking or any(asked):
                self.look()
            if any(asked):
                self.checkpoint()
            if asked.stop:
                return asked

        # 3. the epoch is over: look at its loss, measure, keep the best weights
        self.look()
        line = self.measure()
        self.keep(line)

        # 4. write down what happened
        self.log(line)
        self.checkpoint()
        self.folder.log(self.state)
        asked = self.asked()
        return asked if asked.stop and not self.ended() else None

    # ---- a step: nothing here waits for the device

    def step(self, batch: Tensor) -> None:
        """Learn from the images at `batch` (B,) int64: one update, or one a round."""
        number = self.state.epoch * self.steps + self.state.step

        # the learning rates of this step
        for group in self.optimiser.param_groups:
            group["lr"] = group["rate"] * schedule.factor(
                self.recipe, number, self.steps
            )
        # dropout, and whatever else is random in the model
        process = self.accelerator.process_index
        devices.reseed(key(self.seed, number, process), self.device)

        # What is learnt from, part by part. Several rounds learn from the same views,
        # so these are made once; one round makes each when its turn comes.
        parts, shares = batches.parts(batch, self.recipe, self.accelerator)
        examples: Iterable[tuple[Tensor, Tensor]] = map(self.examples, parts)
        if len(self.rounds) > 1:
            examples = list(examples)

        # the updates
        for told in self.rounds:
            self.update(number, examples, shares, len(batch), told)

        # the averaged weights begin as those after the first step
        if self.recipe.ema:
            decay = self.recipe.ema if number else 0.0
            optimiser.follow(self.evaluated, self.model, decay)

        self.state.step += 1
        self.bar.update()

    def update(
        self,
        number: int,
        examples: Iterable[tuple[Tensor, Tensor]],
        shares: list[float],
        images: int,
        told: tuple[str, ...],
    ) -> None:
        """One optimiser step, of step `number`: examples part by part, of a batch of so
        many images, and the share of it that each part is. `told`: the round.
        """
        # Forward and backward; gradients add up, and processes exchange them with the
        # last part.
        pairs = zip(examples, shares, strict=True)
        for place, ((views, targets), share) in enumerate(pairs, 1):
            last = place == len(shares)
            exchange = nullcontext() if last else self.accelerator.no_sync(self.network)
            # memory is measured once, in all rounds of the first step
            counted = number == 0 and place == 1
            with exchange:
                losses, loss = self.forward(views, targets, told, counted)
                # times their number, because the processes' mean is taken
                part_of_whole = loss * share * self.accelerator.num_processes
                self.accelerator.backward(part_of_whole)
            self.note(number, losses, loss, share * images)

        # the weights
        if self.recipe.clip_norm:
            parameters, clip_norm = self.model.parameters(), self.recipe.clip_norm
            norm = self.accelerator.clip_grad_norm_(parameters, clip_norm)
            self.state.clipping += optimiser.clipping(norm, clip_norm)
        self.optimiser.step()
        self.optimiser.zero_grad()

    def examples(self, part: Tensor) -> tuple[Tensor, Tensor]:
        """Views of the images at `part` (b,), and their targets."""
        return batches.examples(
            part,
            self.images,
            self.labels,
            self.num_classes,
            self.recipe,
            self.seed,
            self.state.epoch,
        )

    def forward(
        self, views: Tensor, targets: Tensor, told: tuple[str, ...], counted: bool
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The losses of these views by name, and their weighted sum; `counted`: what
        is kept for the backward pass is noted.
        """
        kept = None
        if counted and not self.recipe.compile:  # nothing can be counted in a graph
            kept = memory.Activations(self.model)
        with (
            self.accelerator.autocast(),
            self.frozen_precision(),
            kept or nullcontext(),
            _batchnorm_explained(self.recipe),
        ):
            logits = self.network(views, targets, *told)
            losses = self.model.losses(logits, targets, self.criterion)
            loss = _total(losses, self.recipe, self.names)
        if kept:
            self.state.activations = max(self.state.activations, kept.bytes)
        return losses, loss

    def note(
        self, number: int, losses: dict[str, Tensor], loss: Tensor, images: float
    ) -> None:
        """Add the losses of so many images to the epoch's, and note whether they are
        finite. It stays on the device, to be read by ``look``.
        """
        for name, value in losses.items():
            before = self.state.sums.get(name, 0)
            self.state.sums[name] = before + value.detach().double() * images
        earliest = self.bad_step.clamp(max=number)
        finite = loss.detach().isfinite()
        self.bad_step = torch.where(finite, self.bad_step, earliest)

    # ---- between steps

    def asked(self) -> Asked:
        """Whether to save or to stop now, as the first process sees it."""
        now = time.monotonic()
        mine = Asked(
            interrupted=bool(self.interrupts),
            over=now > self.deadline,
            due=now > self.saved + SAVE_SECONDS,
        )
        if not self.several:
            return mine
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([mine])[0]  # WAITS for the first process

    def look(self) -> None:
        """Read what has gathered on the device, add up what the processes have, show
        it. Raises NonFiniteLoss if a loss or a weight is not finite.
        """
        bad = self.accelerator.gather(self.bad_step.view(1)).min().item()  # WAITS
        finite = [weight.isfinite().all() for weight in self.model.parameters()]
        if not torch.stack(finite).all():  # WAITS
            # the loss may have been finite and only the last update overflowed
            bad = min(bad, self.state.epoch * self.steps + self.state.step - 1)
        self.state.epoch_seconds += self._elapsed()
        if bad < math.inf:
            raise self._diverged(int(bad), "the loss or a weight was")

        if self.several:
            # the first process keeps the sums, the others begin again from 0
            for name, total in self.state.sums.items():
                together = self.accelerator.reduce(total.to(self.device))
                self.state.sums[name] = together * self.first
        seen = min(self.state.step * self.recipe.batch_size, len(self.train))
        loss = float(_total(self.state.sums, self.recipe)) / max(1, seen)  # WAITS
        self.bar.set_postfix(loss=f"{loss:.3f}", refresh=False)

    def checkpoint(self) -> None:
        """Save all that is needed to go on from here. WAITS: weights are copied."""
        if self.first:
            parts = {name: part.state_dict() for name, part in self.parts.items()}
            self.folder.save(self.state, parts)
        self.saved = time.monotonic()

    def stopped(self, asked: Asked) -> Outcome:
        """The outcome of a call that something stopped before the run's end; raises
        KeyboardInterrupt if that was Ctrl-C.
        """
        state = self.state
        if asked.interrupted:
            raise KeyboardInterrupt(
                f"stopped in epoch {state.epoch + 1} after step {state.step} of"
                f" {self.steps}; the same call goes on from there"
            )
        return self.outcome(finished=False)

    # ---- the end of an epoch

    def measure(self) -> dict[str, Any]:
        """The epoch's line of the log: losses, speed, and what validation says."""
        devices.share_buffers(self.evaluated)
        seen = sum(map(len, self.batches(self.state.epoch)))
        losses = {}
        for name, total in self.state.sums.items():
            together = self.accelerator.reduce(total.to(self.device))
            losses[name] = together.item() / seen  # WAITS
        line = {
            "epoch": self.state.epoch + 1,
            "lr": max(group["lr"] for group in self.optimiser.param_groups),
            "losses": losses,
            "images_per_second": round(seen / self.state.epoch_seconds, 1),
        }
        if self.recipe.clip_norm:
            line |= _clipping(self.state.clipping)  # WAITS
        top1, loss = self.validate()
        return line | {"val_top1": top1, "val_loss": loss}

    def validate(self) -> tuple[float | None, float | None]:
        """Top-1 accuracy and loss on validation; None, None where there is none."""
        if self.val is None or self.held_out is None:
            return None, None
        logits = _logits(  # WAITS
            self.evaluated,
            self.held_out,
            self.recipe,
            self.accelerator,
            self.recipe.resolution,
        )
        right = logits.argmax(1) == self.val.labels
        top1 = right.double().mean().item()
        return top1, F.cross_entropy(logits, self.val.labels).item()

    def keep(self, line: dict[str, Any]) -> None:
        """Count the epoch, and keep its weights if they are the ones to keep so far."""
        state = self.state
        any_is_better = self.val is None or self.recipe.keep == "last"
        if any_is_better or _better(line, state):
            # finite weights may still give predictions that overflow
            if line["val_loss"] is not None and not math.isfinite(line["val_loss"]):
                last = (state.epoch + 1) * self.steps - 1
                raise self._diverged(last, "the predictions on validation images were")
            state.best_epoch = state.epoch + 1
            state.best_top1, state.best_loss = line["val_top1"], line["val_loss"]
            weights = self.evaluated.state_dict().items()
            state.best = {name: value.detach().clone() for name, value in weights}
        state.epoch, state.step, state.sums = state.epoch + 1, 0, {}
        state.clipping = torch.zeros_like(state.clipping)

    def log(self, line: dict[str, Any]) -> None:
        """Complete an epoch's line and put it into the state's log."""
        state, on_gpu = self.state, self.device.type == "cuda"
        state.epoch_seconds = 0.0
        self._elapsed()
        line["seconds"] = round(state.seconds, 2)
        line["activations_mib"] = round(state.activations / 2**20, 3) or None
        line["peak_memory_mib"] = None
        if on_gpu:
            peak = torch.cuda.max_memory_allocated(self.device)
            line["peak_memory_mib"] = round(peak / 2**20, 1)
        if state.notes:
            line["note"], state.notes = " ".join(state.notes), []
        state.log.append(line)

        said = f"epoch {state.epoch} of {self.recipe.epochs}"
        if line["val_top1"] is not None:
            said += f", validation {line['val_top1']:.1%}"
        self.bar.set_description(said)

    def ended(self) -> bool:
        """Whether the last epoch is over, or patience is."""
        if self.state.epoch >= self.recipe.epochs:
            return True
        waited = self.state.epoch - self.state.best_epoch
        return bool(self.recipe.patience) and waited >= self.recipe.patience

    # ---- the end of the run

    def finish(self) -> Outcome:
        """Put the chosen weights into the model and its file."""
        self.model.load_state_dict(self.state.best)
        if self.recipe.recompute_statistics:
            statistics.recompute(self.model, self.images, self.recipe)
        self.model.eval()
        outcome = self.outcome(finished=True)
        self.folder.finish(self.model, asdict(outcome))  # WAITS
        self.accelerator.wait_for_everyone()
        if self.interrupts:
            raise KeyboardInterrupt("the run had just finished")
        return outcome

    def outcome(self, finished: bool) -> Outcome:
        """How far the run has come."""
        state = self.state
        noted = [line for line in state.log if line.get("clipped") is not None]
        # epochs have equally many steps
        count = len(noted) or 1
        clipped = sum(line["clipped"] for line in noted) / count
        coefficient = sum(line["clip_coefficient"] for line in noted) / count
        return Outcome(
            finished=finished,
            epochs=state.epoch,
            best_epoch=state.best_epoch,
            val_top1=state.best_top1,
            seconds=state.seconds,
            steps=state.epoch * self.steps + state.step,
            clipped=clipped if noted else None,
            clip_coefficient=coefficient if noted else None,
        )

    # ---- used above

    def batches(self, epoch: int) -> tuple[Tensor, ...]:
        """The places of the training images in an epoch's batches; a single image that
        is left over is in none.
        """
        taken = schedule.of_epoch(self.train.labels, self.recipe, self.seed, epoch)
        return taken.split(self.recipe.batch_size)[: self.steps]

    def _elapsed(self) -> float:
        """Seconds since the last call, also added to the run's."""
        before, self.clock = self.clock, time.monotonic()
        self.state.seconds += self.clock - before
        return self.clock - before

    def _diverged(self, step: int, what: str) -> NonFiniteLoss:
        """The error for optimiser step `step`, counted from 0 over all epochs."""
        epoch, in_epoch = divmod(step, self.steps)
        files = [self.train.files[i] for i in self.batches(epoch)[in_epoch].tolist()]
        where = f"epoch {epoch + 1}, step {in_epoch + 1} of {self.steps}"
        kept = self.folder.saved or "none yet"
        return NonFiniteLoss(step + 1, files, where, kept, what)

    def _progress_bar(self, progress: bool) -> "tqdm":
        from tqdm.auto import tqdm

        return tqdm(
            total=self.recipe.epochs * self.steps,
            initial=self.state.epoch * self.steps + self.state.step,
            disable=not (progress and self.first),
            unit="step",
            desc="training",
        )

    def _recomputed(self) -> AbstractContextManager:
        if self.recipe.recompute:
            return memory.recomputed(self.model, self.recipe.compile)
        return nullcontext()


def predict(
    model: "Method",
    split: Split,
    recipe: Recipe,
    *,
    device: str | None = None,
    resolution: str = "high",
) -> Tensor:
    """Class probabilities (N, C), float32 on the CPU, in the split's order, from the
    centre crop of each image.

    `resolution`: "high": the crop as it is; "low": reduced to recipe.low_side and
    enlarged again; "mixed": every other image of both kinds. Leaves `model` in eval
    mode on the device. In several processes each image is computed by one of them, and
    all get the whole result. Raises InputError if a prediction is not finite.
    """
    accelerator = devices.accelerator(recipe, device)
    devices.move(model, accelerator.device)
    images = Images(split.images, accelerator.device)
    found = _logits(model, images, recipe, accelerator, resolution).softmax(1)
    if not found.isfinite().all():
        raise InputError(
            "the model's predictions are not finite: its weights grew too large while"
            " it was trained; lower the learning rate or set clip_norm, and train it"
            " again."
        )
    return found


def _views(data: DataSet, recipe: Recipe, accelerator: "Accelerator") -> "Views":
    """The images that are learnt from, as they are evaluated, with labels, batch by
    batch: the same in every process. Nothing is read before it is asked for.
    """
    split = data.split(recipe.train_on)
    images = Images(split.images, accelerator.device)
    for index in torch.arange(len(images)).split(recipe.batch_size):
        labels = to_device(split.labels[index], accelerator.device)
        yield _view(images, index, recipe, "high"), labels


def _view(images: Images, index: Tensor, recipe: Recipe, resolution: str) -> Tensor:
    """Images (B, 3, S, S) as they are evaluated, on the device."""
    there = to_device(index, images.device)
    view = evaluation_view(images(index, there), there, recipe, resolution)
    return view.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def _logits(
    model: "Method",
    images: Images,
    recipe: Recipe,
    accelerator: "Accelerator",
    resolution: str,
) -> Tensor:
    """Logits (N, C), float32 on the CPU. Each process takes every n-th batch, so that
    the batches are the same however many there are.
    """
    model.eval()
    frozen_precision = devices.in_precision(model, recipe, accelerator.device)
    all_batches = torch.arange(len(images)).split(recipe.batch_size)
    mine = all_batches[accelerator.process_index :: accelerator.num_processes]
    logits = []
    for index in mine:
        view = _view(images, index, recipe, resolution)
        with accelerator.autocast(), frozen_precision():
            logits.append(model.predict(view).float())
    found = [(torch.cat(mine), torch.cat(logits).cpu())] if mine else []  # WAITS
    if accelerator.num_processes > 1:
        from accelerate.utils import gather_object

        found = gather_object(found)

    # back into the order of the images
    index = torch.cat([places for places, _ in found])
    values = torch.cat([some for _, some in found])
    ordered = torch.empty_like(values)
    ordered[index] = values
    return ordered


# ---- in place of steps


def _solve(
    model: "Method",
    data: DataSet,
    recipe: Recipe,
    folder: Folder,
    accelerator: "Accelerator",
) -> Outcome:
    """What :func:`fit` does with a model that is solved: one epoch of one step. A run
    that was killed begins again. Every process finds the same.
    """
    begun = time.monotonic()
    place = accelerator.device
    held_out = _all_examples(data.val, place) if len(data.val) else None
    refit = recipe.train_on == "train+val"
    losses = model.solve(_all_examples(data.train, place), held_out, refit)
    model.eval()

    top1 = None
    if not refit:
        images = Images(data.val.images, place)
        logits = _logits(model, images, recipe, accelerator, "high")
        top1 = (logits.argmax(1) == data.val.labels).double().mean().item()
    seconds = time.monotonic() - begun
    outcome = Outcome(True, 1, 1, top1, seconds, 1)
    line = {"epoch": 1, "losses": losses, "val_top1": top1, "seconds": seconds}
    folder.log(State(log=[line]))
    folder.finish(model, asdict(outcome))
    accelerator.wait_for_everyone()
    return outcome


def _all_examples(split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
    """The features of a split, those of mirrored images among them, and their labels,
    on the device.
    """
    maps = split.images.transpose(0, 1).flatten(0, 1)  # (V * N, n, h, w)
    labels = split.labels.repeat(split.images.shape[1])
    return maps.float().to(device), labels.to(device)


# ---- before the first step


def _check(data: DataSet, recipe: Recipe) -> None:
    """Raise InputError for data that cannot be trained on by the recipe."""
    train = data.split(recipe.train_on)
    if not len(train):
        raise InputError(f"data set {data.name!r} has no training images.")
    if recipe.train_on == "train" and not len(data.val):
        raise InputError(
            f"data set {data.name!r} has no validation images; set"
            " train_on='train+val'."
        )
    if data.num_classes < 2:
        raise InputError(
            f"data set {data.name!r} has {data.num_classes} class; classification needs"
            " at least two."
        )
    if train.images.is_floating_point():
        features.check(recipe)


def _prepared(model: "Method", recipe: Recipe, accelerator: "Accelerator") -> "Method":
    """The model on the device, with what the recipe wants to be frozen or shared."""
    if recipe.batchnorm == "frozen":
        backbones.freeze_statistics(model)
    if recipe.frozen_stages:
        backbones.freeze_stages(model, recipe.frozen_stages)
    if accelerator.num_processes > 1 and recipe.sync_batchnorm:
        devices.synchronise_batchnorm(model, accelerator.device)
    devices.move(model, accelerator.device)
    return model


def _identity(model: nn.Module, data: DataSet, recipe: Recipe, seed: int) -> dict:
    """What has to be equal for a checkpoint to be one of this run."""
    state = model.state_dict().items()
    shapes = json.dumps([[name, list(value.shape)] for name, value in state])
    about = {
        "version": VERSION,
        "data": data.fingerprint,
        "seed": seed,
        "model": sha256(shapes.encode()).hexdigest()[:16],
    }
    # as it is after a round trip
    return json.loads(json.dumps(about | recipe.determinants()))


# ---- losses and numbers


def _total(
    losses: dict[str, Tensor], recipe: Recipe, names: tuple[str, ...] = ()
) -> Any:
    """The sum of a model's losses with the recipe's weights (1 where it names none);
    raises InputError when the recipe names one that the model does not have. `names`:
    all that it has, where these are the losses of one round.
    """
    weights = dict(recipe.loss_weights)
    for name in weights if losses else ():
        if name not in (names or losses):
            raise unknown("loss in loss_weights", name, names or losses)
    return sum(weights.get(name, 1.0) * loss for name, loss in losses.items())


def _clipping(sums: Tensor) -> dict[str, float | None]:
    """An epoch's part of the log, from the sums of ``optimiser.clipping``."""
    steps, clipped, coefficient = sums.tolist()
    if not steps:
        return {"clipped": None, "clip_coefficient": None}
    return {"clipped": clipped / steps, "clip_coefficient": coefficient / steps}


def _better(line: dict[str, Any], state: State) -> bool:
    """Whether an epoch beats the best one so far: higher accuracy, or the same with a
    lower loss.
    """
    if not state.best_epoch or state.best_top1 is None or state.best_loss is None:
        return True
    if line["val_top1"] != state.best_top1:
        return line["val_top1"] > state.best_top1
    return line["val_loss"] < state.best_loss


@contextmanager
def _batchnorm_explained(recipe: Recipe) -> Iterator[None]:
    """What torch says of a single value that BatchNorm cannot normalise, in terms of
    the recipe.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InputError(
            "BatchNorm cannot normalise a single value, but batch_size"
            f" {recipe.batch_size} with accumulate {recipe.accumulate} puts one image"
            f" at a time through the network, whose map is one cell at image_size"
            f" {recipe.image_size}; set a larger batch_size or image_size, a smaller"
            " accumulate, or batchnorm='frozen'."
        ) from error


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Ctrl-C is noted in the list that this gives, to be acted on between two steps; a
    second one interrupts at once.
    """
    noted: list[int] = []

    def note(number, frame):
        if noted:
            raise KeyboardInterrupt(
                "interrupted twice; the run goes on from its last checkpoint"
            )
        noted.append(number)

    # signals reach the main thread only
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)
