"""The training loop: ``fit`` trains a model by a recipe, ``predict`` gives its class
    probabilities.

What makes a run repeatable: nothing random is carried along. The order of an epoch, the
augmentation of an image and the dropout of a step are functions of (seed, epoch, image
or step), so a checkpoint needs no random state, and a run that was killed at any moment
goes on as if
nothing had happened: on a CPU its final weights are identical, bit by bit, to those of
    an undisturbed run.

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
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm.auto import tqdm

from .. import backbones
from ..data.dataset import DataSet, Split
from ..errors import InputError, unknown
from ..images.augment import augment, evaluation_view, key, mix, partners
from ..recipe import Recipe
from . import devices, memory
from .checkpoints import Folder, State
from .devices import Images, to_device

# raise it when the same recipe and seed give other results, beyond rounding
VERSION = 1
# steps between two looks at the loss: each makes the host wait for the device
LOOK = 50
SAVE_SECONDS = 180.0  # between two checkpoints within an epoch


class NonFiniteLoss(InputError):
    """The loss, or a weight, became infinite or not a number. ``step`` counts optimiser
    steps from 1, ``files`` are that batch's images."""

    def __init__(self, step: int, files: list[str], where: str, checkpoint: str):
        self.step, self.files = step, files
        super().__init__(
            f"the loss or a weight was not finite at step {step} ({where}); last good"
            f" checkpoint: {checkpoint}; lower the learning rate, set clip_norm, or"
            f" look at the images of that batch: {', '.join(files)}."
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
    steps: int  # optimiser steps that led to the present state


def fit(
    model: nn.Module,
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
    the last epoch. The test split is never touched. ``run_dir/log.jsonl`` gets one line
    an epoch (with `tensorboard` also ``run_dir/tensorboard``): activations_mib is what
    a part of a batch keeps for the backward pass, besides weights; peak_memory_mib is
    the most that this process ever held on its GPU (None on a CPU).

    A call with the same arguments goes on where an earlier one was stopped by the
    budget, by Ctrl-C or by a crash, and returns at once when the run is finished.
    `model` needs forward(images, targets) -> logits, losses(logits, targets, criterion)
    -> named means over images, predict(images) -> logits (B, C); targets are labels
    (B,) int64, or class probabilities (B, C) where images are mixed. Its ``backbone``,
    if it has one, learns at lr * backbone_lr_factor. Weight decay is on all parameters.
    The images left over after the last whole batch form a smaller one; a single image
    left over is skipped (BatchNorm cannot normalise it). torch's random generators are
    seeded anew at every step.

    Raises InputError (data or folder unusable, run_dir holds another run, disk full),
    NonFiniteLoss, KeyboardInterrupt (after a checkpoint; a second Ctrl-C does not wait
    for one).
    """
    begin = time.monotonic()
    accelerator = devices.accelerator(recipe, device)
    device, first, several = (
        accelerator.device,
        accelerator.is_main_process,
        accelerator.num_processes > 1,
    )
    train, val = (
        data.split(recipe.train_on),
        (data.val if recipe.train_on == "train" else None),
    )
    _check(data, train, val)
    steps = steps_per_epoch(len(train), recipe.batch_size)

    if recipe.batchnorm == "frozen":
        backbones.freeze_statistics(model)
    if several and recipe.sync_batchnorm:
        model = devices.synchronise_batchnorm(model, device)
    # faster than the default layout for convolutions, on CPUs too
    model.to(device, memory_format=torch.channels_last)
    folder = Folder(
        Path(run_dir),
        _identity(model, data, recipe, seed),
        write=first,
        tensorboard=tensorboard,
    )
    if (outcome := folder.finished(model)) is not None:
        model.eval()
        return Outcome(**outcome)

    optimiser = accelerator.prepare_optimizer(_optimiser(model, recipe))
    evaluated = copy.deepcopy(model) if recipe.ema else model  # with averaged weights
    parts = {
        "model": model,
        "average": evaluated if recipe.ema else None,
        "optimiser": optimiser,
        "scaler": accelerator.scaler,
    }
    # everything with a state_dict
    parts = {name: part for name, part in parts.items() if part is not None}
    state = folder.resume(parts)
    # counted once, not by every process
    state.sums = {name: total * first for name, total in state.sums.items()}
    accelerator.wait_for_everyone()  # all have read before the first one writes
    folder.log(state)  # also shows at once whether the folder can be written

    if recipe.compile:
        model.compile()
    # DistributedDataParallel
    network = accelerator.prepare_model(model) if several else model
    criterion = partial(F.cross_entropy, label_smoothing=recipe.label_smoothing)
    images, labels = Images(train.images, device), train.labels.to(device)
    held_out = Images(val.images, device) if val is not None else None
    # the first whose loss was not finite; see look()
    bad_step = torch.tensor(torch.inf, dtype=torch.float64, device=device)
    clock = saved = time.monotonic()
    deadline = begin + 60 * budget_minutes if budget_minutes is not None else math.inf

    def elapsed() -> float:
        nonlocal clock
        before, clock = clock, time.monotonic()
        state.seconds += clock - before
        return clock - before

    def look() -> None:
        """Wait for the device; add up what the processes have; stop the run if a loss
        was not finite."""
        bad = accelerator.gather(bad_step.view(1)).min().item()
        if not torch.stack(
            [parameter.isfinite().all() for parameter in model.parameters()]
        ).all():
            # the update itself overflowed
            bad = min(bad, state.epoch * steps + state.step - 1)
        state.epoch_seconds += elapsed()
        if several:
            # the first keeps it
            state.sums = {
                name: accelerator.reduce(total.to(device)) * first
                for name, total in state.sums.items()
            }
        if bad < math.inf:
            epoch, batch = divmod(int(bad), steps)
            files = [
                train.files[i]
                for i in (
                    _order(train, recipe, seed, epoch)
                    .split(recipe.batch_size)[batch]
                    .tolist()
                )
            ]
            raise NonFiniteLoss(
                int(bad) + 1,
                files,
                f"epoch {epoch + 1}, step {batch + 1} of {steps}",
                folder.saved or "none yet",
            )
        loss = sum(
            weight * float(state.sums[name])
            for name, weight in _weights(state.sums, recipe).items()
        )
        bar.set_postfix(
            loss=(
                f"{loss / max(1, min(state.step * recipe.batch_size, len(train))):.3f}"
            ),
            refresh=False,
        )

    def save() -> None:
        nonlocal saved
        if first:
            folder.save(
                state, {name: part.state_dict() for name, part in parts.items()}
            )
        saved = time.monotonic()

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    begun = state.epoch * steps + state.step
    bar = tqdm(
        total=recipe.epochs * steps,
        initial=begun,
        disable=not (progress and first),
        unit="step",
        desc="training",
    )
    with (
        bar,
        memory.recomputed(model, recipe.compile) if recipe.recompute else nullcontext(),
        _interruptible() as interrupts,
    ):
        while not _ended(state, recipe):
            epoch = state.epoch
            batches = _order(train, recipe, seed, epoch).split(recipe.batch_size)[
                :steps
            ]
            model.train()
            while state.step < steps:
                step = epoch * steps + state.step
                for group in optimiser.param_groups:
                    group["lr"] = group["rate"] * factor(recipe, step, steps)
                # dropout
                devices.reseed(key(seed, step, accelerator.process_index), device)

                batch = batches[state.step]
                pieces, shares = _slices(batch, recipe, accelerator)
                for piece, share in zip(pieces, shares):
                    view, targets = _examples(
                        piece, images, labels, data.num_classes, recipe, seed, epoch
                    )
                    kept = (
                        nullcontext()
                        if state.activations or recipe.compile
                        else memory.Activations(model)
                    )
                    # gradients meet once a step
                    with (
                        nullcontext()
                        if piece is pieces[-1]
                        else accelerator.no_sync(network)
                    ):
                        with accelerator.autocast(), kept:
                            losses = model.losses(
                                network(view, targets), targets, criterion
                            )
                            loss = sum(
                                weight * losses[name]
                                for name, weight in _weights(losses, recipe).items()
                            )
                        # of which the processes' mean is taken
                        accelerator.backward(loss * share * accelerator.num_processes)
                    for name, value in losses.items():
                        state.sums[name] = state.sums.get(
                            name, 0
                        ) + value.detach().double() * (share * len(batch))
                    state.activations = state.activations or getattr(kept, "bytes", 0)
                    bad_step = torch.where(
                        loss.detach().isfinite(), bad_step, bad_step.clamp(max=step)
                    )
                if recipe.clip_norm:
                    accelerator.clip_grad_norm_(model.parameters(), recipe.clip_norm)
                optimiser.step()
                optimiser.zero_grad()
                if recipe.ema:
                    _follow(evaluated, model, recipe.ema if step else 0.0)
                state.step += 1
                bar.update()

                # Several processes have to agree, which costs a message: they do so
                # only when they look anyway.
                looking, interrupted, over, due = (
                    state.step % LOOK == 0,
                    False,
                    False,
                    False,
                )
                if looking or not several:
                    now = time.monotonic()
                    interrupted, over, due = _agree(
                        (bool(interrupts), now > deadline, now > saved + SAVE_SECONDS),
                        accelerator,
                    )
                if interrupted or over or due or looking:
                    look()
                if interrupted or over or due:
                    save()
                if interrupted or over:
                    return _stopped(state, steps, interrupted)

            look()
            devices.share_buffers(evaluated)
            line = {
                "epoch": epoch + 1,
                "lr": max(group["lr"] for group in optimiser.param_groups),
            }
            seen = sum(map(len, batches))
            line["losses"] = {
                name: accelerator.reduce(total.to(device)).item() / seen
                for name, total in state.sums.items()
            }
            line["images_per_second"] = round(seen / state.epoch_seconds, 1)
            line["val_top1"], line["val_loss"] = None, None
            if val is not None:
                logits = _logits(
                    evaluated, held_out, recipe, accelerator, recipe.resolution
                )
                line["val_top1"] = (
                    (logits.argmax(1) == val.labels).double().mean().item()
                )
                line["val_loss"] = F.cross_entropy(logits, val.labels).item()
            state.epoch, state.step, state.sums = epoch + 1, 0, {}
            if val is None or recipe.keep == "last" or _better(line, state):
                state.best_epoch, state.best_top1, state.best_loss = (
                    epoch + 1,
                    line["val_top1"],
                    line["val_loss"],
                )
                state.best = {
                    name: value.detach().clone()
                    for name, value in evaluated.state_dict().items()
                }
            state.epoch_seconds = 0.0
            elapsed()
            line["seconds"] = round(state.seconds, 2)
            line["activations_mib"] = round(state.activations / 2**20, 3) or None
            line["peak_memory_mib"] = (
                round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
                if device.type == "cuda"
                else None
            )
            if state.notes:
                line["note"], state.notes = " ".join(state.notes), []
            state.log.append(line)
            bar.set_description(
                f"epoch {epoch + 1} of {recipe.epochs}"
                + (f", validation {line['val_top1']:.1%}" if val else "")
            )
            save()
            folder.log(state)
            interrupted, over = _agree(
                (bool(interrupts), time.monotonic() > deadline), accelerator
            )
            if (interrupted or over) and not _ended(state, recipe):
                return _stopped(state, steps, interrupted)

    model.load_state_dict(state.best)
    model.eval()
    outcome = Outcome(
        True,
        state.epoch,
        state.best_epoch,
        state.best_top1,
        state.seconds,
        state.epoch * steps,
    )
    folder.finish(model, asdict(outcome))
    accelerator.wait_for_everyone()
    if interrupts:
        raise KeyboardInterrupt("the run had just finished")
    return outcome


def predict(
    model: nn.Module,
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
    all get the whole result.
    """
    accelerator = devices.accelerator(recipe, device)
    model.to(accelerator.device, memory_format=torch.channels_last)
    return _logits(
        model, Images(split.images, accelerator.device), recipe, accelerator, resolution
    ).softmax(1)


# What a step depends on: pure functions of the recipe, the seed and counters


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Optimiser steps in an epoch: the last batch may be smaller, but one of a single
    image is left out (unless there is no other)."""
    whole, rest = divmod(images, batch_size)
    return whole + (rest > 1 or whole == 0)


def order(seed: int, epoch: int, images: int) -> Tensor:
    """The order in which an epoch takes the images: a permutation (images,) int64 that
    depends on nothing but the arguments."""
    return torch.randperm(
        images, generator=torch.Generator().manual_seed(key(seed, epoch))
    )


def by_class(labels: Tensor, per_class: int, seed: int, epoch: int) -> Tensor:
    """:func:`order` with `per_class` images of a class in a row: labels (N,) int64 on
    the CPU -> a permutation (N,) int64.

    Each class's images, in random order, are cut into groups of that many; groups
    follow each other in random order, those of every class's rest at the end of the
    epoch. So every image is still taken once, and a class may meet itself in a batch.
    (Hermans et al. 2017 draw P different classes and K images of each for every batch,
    anew.)
    """
    taken = order(seed, epoch, len(labels))
    taken = taken[labels[taken].argsort(stable=True)]  # class by class
    count = labels.bincount()
    # in its class
    rank = torch.arange(len(labels)) - (count.cumsum(0) - count)[labels[taken]]
    group = (rank % per_class == 0).cumsum(0) - 1
    rest = rank // per_class == count[labels[taken]] // per_class
    place = order(seed, epoch, int(group[-1]) + 1)[group]
    return taken[(place + len(labels) * rest).argsort(stable=True)]


def factor(recipe: Recipe, step: int, steps: int) -> float:
    """What the learning rates are multiplied by at optimiser step `step` (from 0) when
    an epoch has `steps` steps.

    "step", "cosine", "cyclic" and "onecycle" are PyTorch's StepLR, CosineAnnealingLR
    (to 0), CyclicLR (triangular, from a tenth) and OneCycleLR (30 % up from 1/25, then
    down to 1/250,000, by cosines; momentum stays). Warm-up multiplies: linearly to 1 in
    warmup_epochs.
    """
    total = recipe.epochs * steps
    if recipe.schedule == "step":
        value = recipe.step_factor ** (step // steps // recipe.step_epochs)
    elif recipe.schedule == "cosine":
        value = (1 + math.cos(math.pi * step / total)) / 2
    elif recipe.schedule == "cyclic":
        place = step / (recipe.cycle_epochs * steps) % 1
        value = 0.1 + 0.9 * (1 - abs(2 * place - 1))
    elif recipe.schedule == "onecycle":
        top, last = 0.3 * total - 1, total - 1
        start, end, share = (
            (1 / 25, 1, step / top)
            if step <= top
            else (1, 1 / 25e4, (step - top) / (last - top))
        )
        value = end + (start - end) * (1 + math.cos(math.pi * share)) / 2
    else:
        value = 1.0
    return value * min(1.0, (step + 1) / max(1.0, recipe.warmup_epochs * steps))


def _order(train: Split, recipe: Recipe, seed: int, epoch: int) -> Tensor:
    return (
        by_class(train.labels, recipe.per_class, seed, epoch)
        if recipe.per_class
        else order(seed, epoch, len(train))
    )


def _examples(
    index: Tensor,
    images: Images,
    labels: Tensor,
    num_classes: int,
    recipe: Recipe,
    seed: int,
    epoch: int,
) -> tuple[Tensor, Tensor]:
    """What is learnt from the images at index (B,) int64 on the CPU: views (V * B, 3,
    s, s), where V is recipe.views, and their labels (V * B,) or, where images are
    mixed, class probabilities (V * B, C). The first B are the images' first views, and
    so on, each from random numbers of its own."""
    seeds = [seed, *(key(seed, number) for number in range(1, recipe.views))]
    found = [
        _view(index, images, labels, num_classes, recipe, own, epoch) for own in seeds
    ]
    view, targets = found[0] if len(found) == 1 else map(torch.cat, zip(*found))
    return view.contiguous(memory_format=torch.channels_last), targets


def _view(
    index: Tensor,
    images: Images,
    labels: Tensor,
    num_classes: int,
    recipe: Recipe,
    seed: int,
    epoch: int,
) -> tuple[Tensor, Tensor]:
    """One view of each image, and its target."""
    there, view = _augmented(index, images, recipe, seed, epoch)
    targets = labels[there]
    if recipe.mixup or recipe.cutmix:
        others, other_view = _augmented(
            partners(index, len(images), seed, epoch), images, recipe, seed, epoch
        )
        view, targets = mix(
            view,
            other_view,
            targets,
            labels[others],
            num_classes,
            there,
            recipe,
            seed,
            epoch,
        )
    return view, targets


def _augmented(
    index: Tensor, images: Images, recipe: Recipe, seed: int, epoch: int
) -> tuple[Tensor, Tensor]:
    """Index (B,) on the device, and the augmented images at it."""
    there = to_device(index, images.device)
    return there, augment(images(index, there), there, recipe, seed, epoch)


def _weights(losses: dict, recipe: Recipe) -> dict[str, float]:
    """The weight of each of a model's losses; raises InputError when the recipe names
    one that the model does not have."""
    chosen = dict(recipe.loss_weights)
    for name in chosen if losses else ():
        if name not in losses:
            raise unknown("loss in loss_weights", name, losses)
    return {name: chosen.get(name, 1.0) for name in losses}


def _slices(
    batch: Tensor, recipe: Recipe, accelerator: Accelerator
) -> tuple[list[Tensor], list[float]]:
    """This process's images of a batch, in `accumulate` pieces (fewer for a smaller
    batch), and the share of the whole batch that each is.

    Losses are means, so a piece's loss times its share, added up over pieces and
    processes, is the loss of the whole batch. All processes have equally many pieces,
    because they meet in each (SyncBatchNorm). One that is left without an image works
    on one of the others' with share 0: all have to take part in the exchange of
    gradients.
    """
    slices = batch.tensor_split(accelerator.num_processes)  # the last is the smallest
    mine = slices[accelerator.process_index]
    if not len(mine):
        return [batch[:1]], [0.0]
    pieces = mine.tensor_split(
        min(
            max(1, len(slices[-1])),
            math.ceil(len(batch) * recipe.accumulate / recipe.batch_size),
        )
    )
    return list(pieces), [len(piece) / len(batch) for piece in pieces]


def _optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser with two groups of parameters: the backbone's, and all
    others. `rate`: a group's learning rate at factor 1."""
    old = list(model.backbone.parameters()) if hasattr(model, "backbone") else []
    if recipe.backbone_lr_factor == 0:
        for parameter in old:
            parameter.requires_grad_(False)
    known = set(map(id, old))
    groups = [
        {
            "params": [p for p in old if p.requires_grad],
            "rate": recipe.lr * recipe.backbone_lr_factor,
        },
        {
            "params": [
                p for p in model.parameters() if id(p) not in known and p.requires_grad
            ],
            "rate": recipe.lr,
        },
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(
            groups,
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )
    kind = {
        "adam": torch.optim.Adam,
        "adamax": torch.optim.Adamax,
        "adamw": torch.optim.AdamW,
    }[recipe.optimiser]
    return kind(groups, lr=recipe.lr, weight_decay=recipe.weight_decay)


def _better(line: dict, state: State) -> bool:
    return not state.best_epoch or (line["val_top1"], -line["val_loss"]) > (
        state.best_top1,
        -state.best_loss,
    )


def _ended(state: State, recipe: Recipe) -> bool:
    return state.epoch >= recipe.epochs or bool(
        recipe.patience and state.epoch - state.best_epoch >= recipe.patience
    )


def _stopped(state: State, steps: int, interrupted: bool) -> Outcome:
    if interrupted:
        raise KeyboardInterrupt(
            f"stopped in epoch {state.epoch + 1} after step {state.step} of {steps};"
            " the same call goes on from there"
        )
    return Outcome(
        False,
        state.epoch,
        state.best_epoch,
        state.best_top1,
        state.seconds,
        state.epoch * steps + state.step,
    )


def _check(data: DataSet, train: Split, val: Split | None) -> None:
    for name, split in (("training", train), ("validation", val)):
        if split is not None and not len(split):
            raise InputError(
                f"data set {data.name!r} has no {name} images"
                + ("; set train_on='train+val'." if split is val else ".")
            )
    if data.num_classes < 2:
        raise InputError(
            f"data set {data.name!r} has {data.num_classes} class; classification needs"
            " at least two."
        )


def _identity(model: nn.Module, data: DataSet, recipe: Recipe, seed: int) -> dict:
    """What has to be equal for a checkpoint to be one of this run."""
    shapes = json.dumps(
        [[name, list(value.shape)] for name, value in model.state_dict().items()]
    )
    about = {
        "version": VERSION,
        "data": data.fingerprint,
        "seed": seed,
        "model": sha256(shapes.encode()).hexdigest()[:16],
    }
    # as it is after a round trip
    return json.loads(json.dumps(about | recipe.determinants()))


@torch.no_grad()
def _logits(
    model: nn.Module,
    images: Images,
    recipe: Recipe,
    accelerator: Accelerator,
    resolution: str,
) -> Tensor:
    """Logits (N, C), float32 on the CPU. Each process takes every n-th batch, so that
    the batches are the same however many there are."""
    model.eval()
    mine, values = [], []
    for index in torch.arange(len(images)).split(recipe.batch_size)[
        accelerator.process_index :: accelerator.num_processes
    ]:
        there = to_device(index, accelerator.device)
        view = evaluation_view(images(index, there), there, recipe, resolution)
        with accelerator.autocast():
            values.append(
                model.predict(
                    view.contiguous(memory_format=torch.channels_last)
                ).float()
            )
        mine.append(index)
    found = [(torch.cat(mine), torch.cat(values).cpu())] if mine else []
    if accelerator.num_processes > 1:
        found = gather_object(found)
    index, values = (
        torch.cat([index for index, _ in found]),
        torch.cat([value for _, value in found]),
    )
    logits = torch.empty_like(values)
    logits[index] = values
    return logits


def _agree(flags: tuple[bool, ...], accelerator: Accelerator) -> tuple[bool, ...]:
    """What the first process says."""
    return broadcast_object_list([flags])[0] if accelerator.num_processes > 1 else flags


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Average = decay * average + (1 - decay) * model, for weights and running
    statistics; whole numbers are copied."""
    pairs = list(zip(average.state_dict().values(), model.state_dict().values()))
    floats = [pair for pair in pairs if pair[0].is_floating_point()]
    get_ema_multi_avg_fn(decay)(
        [kept for kept, _ in floats], [now for _, now in floats], None
    )
    for kept, now in pairs:
        if not kept.is_floating_point():
            kept.copy_(now)


@contextmanager
def _interruptible():
    """Ctrl-C is noted in the list that this gives, to be acted on between two steps; a
    second one interrupts at once."""
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
