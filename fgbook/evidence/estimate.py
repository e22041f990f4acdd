"""What a run would take, before it is made: images, steps, network, memory, and time
from a few steps of the real loop. Nothing of it is kept.
"""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from .. import methods
from ..data.dataset import DataSet, Split
from ..errors import InputError, count
from ..evaluation import cost
from ..methods import Method
from ..recipe import Recipe
from ..training import checkpoints, devices, features, loop, schedule
from . import models, records, runs

TIMED_SECONDS = 5.0  # spent on timed steps, at least one
MIB = 2**20  # bytes


@dataclass
class Estimate:
    """Of one run, on one device."""

    images: dict[str, int]  # by split
    steps: int  # an epoch; 0: it is solved at once
    trained: int  # parameters that learn
    fixed: int
    flops: int  # of predicting one image
    memory: dict[str, int]  # bytes by what they hold
    timed: int  # steps that were timed
    step_seconds: float
    fixed_seconds: float  # once a run: features of a frozen backbone, measuring
    epoch_seconds: float  # training and validation
    # of the fixed ones: features of a frozen backbone, which all runs share that read
    # the same ones
    features_seconds: float = 0.0


@dataclass
class Timed:
    """What a few steps told."""

    steps: int
    step_seconds: float
    kept: dict  # the checkpoint after them


def measure(run: runs.Run, device: str | None = None) -> Estimate:
    """Train a few steps of `run` in a temporary folder, and time them without the
    first, which warms up.

    Reads the data (and decodes them, where no run has done so before), and leaves no
    other file. Raises InputError where several processes ask together.
    """
    if not devices.alone():
        raise InputError(
            "an estimate is made by one process; start it without torchrun or"
            " accelerate launch."
        )
    data, recipe = run.data(), run.recipe
    torch.manual_seed(run.seed)
    network = methods.build(
        run.method, data.num_classes, recipe, run.options, data.class_attributes
    )
    _, flops = cost.size(network, recipe.image_size)
    place = torch.device(device or devices.default_device())

    part = models.trained_part(network)
    seen = replace(data, train=data.split(recipe.train_on))
    steps = schedule.steps_per_epoch(len(seen.train), recipe.batch_size)
    features_seconds = 0.0
    if network.frozen_backbone:
        seen, each = _features(network, seen, recipe, device)
        features_seconds = each * sum(len(data.split(name)) for name in features.SPLITS)

    if part.solved:
        timed, steps = _solve(part, seen, recipe, place), 0
    else:
        timed = _train(part, seen, recipe, place)
    image_seconds = _predict(part, seen, recipe, device)
    validated = len(data.val) if recipe.train_on == "train" else 0
    tested = len(data.test) * (2 if recipe.low_side else 1)

    fixed_seconds = features_seconds + image_seconds * (validated + tested)
    epoch_seconds = steps * timed.step_seconds + image_seconds * validated
    if part.solved:
        fixed_seconds, epoch_seconds = fixed_seconds + timed.step_seconds, 0.0

    learning = [p for p in part.parameters() if p.requires_grad]
    trained = sum(p.numel() for p in learning)
    everything = sum(p.numel() for p in network.parameters())
    memory = {
        "weights": sum(value.nbytes for value in network.state_dict().values()),
        "gradients": sum(p.nbytes for p in learning),
        "optimiser": _bytes(timed.kept["parts"]["optimiser"]),
        "average": _bytes(timed.kept["parts"].get("average")),
        # 0 where they were not measured: compiled
        "activations": timed.kept["state"]["activations"],
    }
    if place.type == "cuda":
        memory["peak on the GPU"] = torch.cuda.max_memory_allocated(place)
    return Estimate(
        images={name: len(data.split(name)) for name in ("train", "val", "test")},
        steps=steps,
        trained=trained,
        fixed=everything - trained,
        flops=flops,
        memory={name: size for name, size in memory.items() if size},
        timed=timed.steps,
        step_seconds=timed.step_seconds,
        fixed_seconds=fixed_seconds,
        epoch_seconds=epoch_seconds,
        features_seconds=features_seconds,
    )


def _train(part: Method, seen: DataSet, recipe: Recipe, place: torch.device) -> Timed:
    """Some steps of the real loop, without the first."""
    # hardly any validation among the steps
    few = torch.arange(min(2, len(seen.train)))
    short = replace(seen, val=seen.train.subset(few))
    endless = recipe.but(train_on="train", patience=0, epochs=10**6)

    with tempfile.TemporaryDirectory() as folder:

        def train(minutes: float) -> loop.Outcome:
            return loop.fit(
                part,
                short,
                endless,
                Path(folder),
                device=str(place),
                budget_minutes=minutes,
                progress=False,
            )

        if place.type == "cuda":
            torch.cuda.reset_peak_memory_stats(place)
        warm = train(0)  # a budget that has ended already: one step
        done = train(TIMED_SECONDS / 60)
        kept = checkpoints.read(Path(folder) / "checkpoint.pt")
    if kept is None:
        raise InputError(
            f"a checkpoint in {folder} cannot be read back; is the disk failing?"
        )
    steps = done.steps - warm.steps
    return Timed(steps, (done.seconds - warm.seconds) / steps, kept)


def _solve(part: Method, seen: DataSet, recipe: Recipe, place: torch.device) -> Timed:
    """A model that is solved, of noise in place of features: these are as many."""

    def noise(split: Split) -> Split:
        return replace(split, images=torch.randn(split.images.shape))

    pure = replace(seen, train=noise(seen.train), val=noise(seen.val))
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        done = loop.fit(part, pure, recipe, where, device=str(place), progress=False)
    kept = {"parts": {"optimiser": {}}, "state": {"activations": 0}}
    return Timed(1, done.seconds, kept)


def _predict(part: Method, seen: DataSet, recipe: Recipe, device: str | None) -> float:
    """Seconds that predicting an image takes, in a batch."""
    sample = seen.test.subset(torch.arange(min(recipe.batch_size, len(seen.test))))
    loop.predict(part, sample, recipe, device=device)  # warms up
    begin = time.monotonic()
    loop.predict(part, sample, recipe, device=device)
    return (time.monotonic() - begin) / len(sample)


def _features(
    network: Method, data: DataSet, recipe: Recipe, device: str | None
) -> tuple[DataSet, float]:
    """`data` with one image's features in place of all (training takes as long with
    them), and the seconds that an image's features take.
    """
    views = 2 if recipe.flip else 1
    some = data.train.images[torch.arange(min(features.BATCH, len(data.train)))]

    def compute(images: Tensor) -> Tensor:
        return features.compute(
            network.backbone, images, recipe.image_size, views, device
        )

    compute(some[:1])  # warms up
    begin = time.monotonic()
    maps = compute(some)  # (B, views, n, h, w)
    seconds = (time.monotonic() - begin) / len(some)

    splits = {}
    for name in features.SPLITS:
        split = data.split(name)
        repeated = maps[:1].expand(len(split), *maps.shape[1:])
        splits[name] = replace(split, images=repeated)
    seen = replace(data, train=splits["train"], val=splits["val"], test=splits["test"])
    return seen, seconds


def _bytes(state: object) -> int:
    """Of all tensors in a state_dict."""
    if isinstance(state, Tensor):
        return state.nbytes
    if isinstance(state, dict):
        return sum(map(_bytes, state.values()))
    if isinstance(state, list | tuple):
        return sum(map(_bytes, state))
    return 0


# ---- in words


def report(planned: list[runs.Run], device: str | None = None) -> Iterator[str]:
    """Lines about planned runs: a block for each row (its seeds take the same), then a
    total; the stages that a row starts from are included.
    """
    everything: dict[str, runs.Run] = {}
    for run in planned:
        for stage in reversed(list(stages(run))):
            everything.setdefault(stage.key, stage)
    rows: dict[tuple, list[runs.Run]] = {}
    for run in everything.values():
        rows.setdefault((run.paper, run.row), []).append(run)

    where = machine(device)
    left, total = 0, 0.0
    for same in rows.values():
        about = measure(same[0], device)
        yield from _block(same[0], about, where)
        for run in same:
            said, epochs = standing(run)
            yield f"  seed {run.seed:<8}{said}"
            if epochs is not None:
                left += 1
                total += _whole(run, about) - epochs * about.epoch_seconds
    yield (
        f"total: {count(len(everything), 'run')}, {left} to do, about"
        f" {duration(total)} on {where}. Nothing was trained that is kept."
    )


def _block(run: runs.Run, about: Estimate, where: str) -> Iterator[str]:
    """The lines about a row."""
    recipe = run.recipe
    method = [run.method]
    method += [f"{name}={value}" for name, value in run.options.items()]
    images = [f"{name} {number:,}" for name, number in about.images.items()]
    memory = [f"{name} {size / MIB:.4g} MiB" for name, size in about.memory.items()]
    a_step = min(recipe.batch_size, len(run.data().split(recipe.train_on)))
    speed = a_step / about.step_seconds
    yield f"{run.paper} {run.row} ({run.profile}, {run.dataset})"
    yield f"  method       {', '.join(method)}"
    yield f"  recipe       {_recipe(run)}"
    yield f"  images       {', '.join(images)}; {run.data().num_classes} classes"
    yield f"  steps        {_steps(run, about)}"
    yield (
        f"  network      {about.trained:,} parameters learn, {about.fixed:,} are"
        f" fixed; {about.flops / 1e9:.3g} GFLOP to predict an image"
    )
    yield f"  memory       {', '.join(memory)}"
    if about.steps:
        yield (
            f"  speed        {about.step_seconds:.3g} s a step, {speed:.3g} images/s"
            f" ({count(about.timed, 'step')} timed, on {where})"
        )
    yield f"  time         about {duration(_whole(run, about))} a run"


def _steps(run: runs.Run, about: Estimate) -> str:
    if not about.steps:
        return f"none: it is solved at once, in about {about.step_seconds:.3g} s"
    epochs = run.recipe.epochs
    whole = f"{about.steps * epochs:,} in {count(epochs, 'epoch')}"
    return f"{about.steps:,} an epoch, {whole}"


def _whole(run: runs.Run, about: Estimate) -> float:
    """Seconds of a run from its beginning."""
    return about.fixed_seconds + run.recipe.epochs * about.epoch_seconds


def machine(device: str | None) -> str:
    """What computes, in words."""
    hardware = records.hardware(device or devices.default_device())
    if "gpu" in hardware:
        return hardware["gpu"]
    return f"{hardware['cpu']}, {count(hardware['threads'], 'thread')}"


def stages(run: runs.Run | None) -> Iterator[runs.Run]:
    """The run and those it starts from, the last first."""
    while run is not None:
        yield run
        run = run.after


def _recipe(run: runs.Run) -> str:
    """The fields that differ from the defaults of Recipe; those changed for this call
    with a star.
    """
    default = Recipe().as_dict()
    said = []
    for name, value in run.recipe.as_dict().items():
        if name in run.overrides:
            said.append(f"{name}={value}*")
        elif value != default[name]:
            said.append(f"{name}={value}")
    changed = " (* changed here)" if run.overrides else ""
    return f"{', '.join(said)}; all else as the defaults{changed}"


def standing(run: runs.Run) -> tuple[str, int | None]:
    """What is there of a run, and how many of its epochs are done (None: all, there is
    nothing to do).
    """
    if records.find(run.key) is not None:
        return f"has a record: {run.key}", None
    epochs = epochs_done(run)
    if epochs is None:
        return "to do", 0
    done = f"{epochs} of {run.recipe.epochs} epochs done"
    return f"has a checkpoint, {done}: {run.folder}", epochs


def epochs_done(run: runs.Run) -> int | None:
    """Whole epochs of a run that is not finished; None where it was never begun."""
    if not (run.folder / "checkpoint.pt").is_file():
        return None
    log = run.folder / "log.jsonl"  # a line an epoch
    return log.read_bytes().count(b"\n") if log.is_file() else 0


def duration(seconds: float) -> str:
    """Seconds in the unit that a person would use, two digits."""
    number, name = seconds, "seconds"
    for size, longer in ((60, "minutes"), (3600, "hours")):
        if seconds >= 2 * size:
            number, name = seconds / size, longer
    return f"{number:.2g} {name}" if number < 10 else f"{number:.0f} {name}"
