"""What a run would take, before it is made: images, steps, network, memory, and time
from a few steps of the real loop. Nothing of it is kept."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from .. import methods
from ..data.dataset import DataSet
from ..errors import InputError
from ..evaluation import cost
from ..recipe import Recipe
from ..training import checkpoints, devices, features, loop
from . import records, runs

TIMED_SECONDS = 5.0  # spent on timed steps, at least one


@dataclass
class Estimate:
    """Of one run, on one device."""

    images: dict[str, int]  # by split
    steps: int  # an epoch
    trained: int  # parameters that learn
    fixed: int
    flops: int  # of predicting one image
    memory: dict[str, int]  # bytes by what they hold
    timed: int  # steps that were timed
    step_seconds: float
    fixed_seconds: float  # once a run: features of a frozen backbone, measuring
    epoch_seconds: float  # training and validation


def measure(run: runs.Run, device: str | None = None) -> Estimate:
    """Train a few steps of `run` in a temporary folder, and time them without the
    first, which warms up.

    Reads the data (and decodes them, where no run has done so before), and leaves no
    other file.
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
    part, seen, once = (
        runs.trained(network),
        replace(data, train=data.split(recipe.train_on)),
        0.0,
    )
    steps = loop.steps_per_epoch(len(seen.train), recipe.batch_size)
    if part is not network:
        seen, image_seconds = _features(network, seen, recipe, device)
        once = image_seconds * sum(len(data.split(name)) for name in features.SPLITS)

    # hardly any validation among the steps
    short = replace(seen, val=seen.train.subset(torch.arange(min(2, len(seen.train)))))
    endless = recipe.but(train_on="train", patience=0, epochs=10**6)
    with tempfile.TemporaryDirectory() as folder:
        if place.type == "cuda":
            torch.cuda.reset_peak_memory_stats(place)
        warm = loop.fit(
            part,
            short,
            endless,
            Path(folder),
            device=device,
            budget_minutes=0,
            progress=False,
        )
        done = loop.fit(
            part,
            short,
            endless,
            Path(folder),
            device=device,
            budget_minutes=TIMED_SECONDS / 60,
            progress=False,
        )
        kept = checkpoints.read(Path(folder) / "checkpoint.pt")
    timed = done.steps - warm.steps
    step_seconds = (done.seconds - warm.seconds) / timed

    sample = seen.test.subset(torch.arange(min(recipe.batch_size, len(seen.test))))
    loop.predict(part, sample, recipe, device=device)
    begin = time.monotonic()
    loop.predict(part, sample, recipe, device=device)
    image_seconds = (time.monotonic() - begin) / len(sample)
    validated, tested = (
        len(data.val) * (recipe.train_on == "train"),
        len(data.test) * (2 if recipe.low_side else 1),
    )

    learns = [parameter for parameter in part.parameters() if parameter.requires_grad]
    trained, everything = (
        sum(p.numel() for p in some) for some in (learns, network.parameters())
    )
    memory = {
        "weights": sum(v.nbytes for v in network.state_dict().values()),
        "gradients": sum(p.nbytes for p in learns),
    }
    memory |= {
        "optimiser": _bytes(kept["parts"]["optimiser"]),
        "average": _bytes(kept["parts"].get("average")),
    }
    # 0 where they were not measured: compiled
    memory["activations"] = kept["state"]["activations"]
    if place.type == "cuda":
        memory["peak on the GPU"] = torch.cuda.max_memory_allocated(place)
    return Estimate(
        images={name: len(data.split(name)) for name in ("train", "val", "test")},
        steps=steps,
        trained=trained,
        fixed=everything - trained,
        flops=flops,
        memory={name: size for name, size in memory.items() if size},
        timed=timed,
        step_seconds=step_seconds,
        fixed_seconds=once + image_seconds * (validated + tested),
        epoch_seconds=steps * step_seconds + validated * image_seconds,
    )


def _features(
    network: torch.nn.Module, data: DataSet, recipe: Recipe, device: str | None
) -> tuple[DataSet, float]:
    """`data` with one image's features in place of all (training takes as long with
    them), and the seconds that an image's features take."""
    views = 2 if recipe.flip else 1
    some = data.train.images[torch.arange(min(features.BATCH, len(data.train)))]
    # warms up
    features.compute(network.backbone, some[:1], recipe.image_size, views, device)
    begin = time.monotonic()
    maps = features.compute(network.backbone, some, recipe.image_size, views, device)
    seconds = (time.monotonic() - begin) / len(some)
    splits = {name: data.split(name) for name in features.SPLITS}
    return (
        replace(
            data,
            **{
                name: replace(
                    split, images=maps[:1].expand(len(split), *maps.shape[1:])
                )
                for name, split in splits.items()
            },
        ),
        seconds,
    )


def _bytes(state) -> int:
    """Of all tensors in a state_dict."""
    if isinstance(state, Tensor):
        return state.nbytes
    inner = (
        state.values()
        if isinstance(state, dict)
        else state
        if isinstance(state, (list, tuple))
        else ()
    )
    return sum(map(_bytes, inner))


# In words


def report(planned: list[runs.Run], device: str | None = None) -> Iterator[str]:
    """Lines about planned runs: a block for each row (its seeds take the same), then a
    total; the stages that a row starts from are included."""
    everything: dict[str, runs.Run] = {}
    for run in planned:
        for stage in reversed(list(_stages(run))):
            everything.setdefault(stage.key, stage)
    rows: dict[tuple, list[runs.Run]] = {}
    for run in everything.values():
        rows.setdefault((run.paper, run.row), []).append(run)
    hardware = records.hardware(device or devices.default_device())
    where = (
        hardware.get("gpu")
        or f"{hardware['cpu']}, {_count(hardware['threads'], 'thread')}"
    )
    left, total = 0, 0.0
    for (paper, row), same in rows.items():
        run, about = same[0], measure(same[0], device)
        recipe = run.recipe
        yield f"{paper} {row} ({run.profile}, {run.dataset})"
        yield f"  method       {run.method}" + "".join(
            f", {name}={value}" for name, value in run.options.items()
        )
        yield f"  recipe       {_recipe(run)}"
        yield (
            "  images      "
            f" {', '.join(f'{name} {count:,}' for name, count in about.images.items())};"
            f" {run.data().num_classes} classes"
        )
        yield (
            f"  steps        {about.steps:,} an epoch, {about.steps * recipe.epochs:,}"
            f" in {_count(recipe.epochs, 'epoch')}"
        )
        yield (
            f"  network      {about.trained:,} parameters learn, {about.fixed:,} are"
            f" fixed; {about.flops / 1e9:.3g} GFLOP to predict an image"
        )
        yield (
            "  memory      "
            f" {', '.join(f'{name} {size / 2**20:.4g} MiB' for name, size in about.memory.items())}"
        )
        yield (
            f"  speed        {about.step_seconds:.3g} s a step,"
            f" {recipe.batch_size / about.step_seconds:.3g} images/s"
            f" ({_count(about.timed, 'step')} timed, on {where})"
        )
        whole = about.fixed_seconds + recipe.epochs * about.epoch_seconds
        yield f"  time         about {_duration(whole)} a run"
        for one in same:
            state, epochs = _state(one)
            seconds = 0.0 if epochs is None else whole - epochs * about.epoch_seconds
            left, total = left + (epochs is not None), total + seconds
            yield f"  seed {one.seed:<8}{state}"
    yield (
        f"total: {_count(len(everything), 'run')}, {left} to do, about"
        f" {_duration(total)} on {where}. Nothing was trained that is kept."
    )


def _stages(run: runs.Run | None) -> Iterator[runs.Run]:
    """The run and those it starts from, the last first."""
    while run is not None:
        yield run
        run = run.after


def _recipe(run: runs.Run) -> str:
    """The fields that differ from the defaults of Recipe; those changed for this call
    with a star."""
    default = Recipe().as_dict()
    found = {
        name: value
        for name, value in run.recipe.as_dict().items()
        if value != default[name] or name in run.overrides
    }
    return (
        ", ".join(
            f"{name}={value}{'*' if name in run.overrides else ''}"
            for name, value in found.items()
        )
        + "; all else as the defaults"
        + (" (* changed here)" if run.overrides else "")
    )


def _state(run: runs.Run) -> tuple[str, int | None]:
    """What is there of a run, and how many of its epochs are done (None: all, there is
    nothing to do)."""
    if records.find(run.key) is not None:
        return f"has a record: {run.key}", None
    if not (run.folder / "checkpoint.pt").is_file():
        return "to do", 0
    epochs = (
        sum(1 for _ in open(run.folder / "log.jsonl"))
        if (run.folder / "log.jsonl").is_file()
        else 0
    )
    return (
        f"has a checkpoint, {epochs} of {run.recipe.epochs} epochs done: {run.folder}",
        epochs,
    )


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}" + ("s" if number != 1 else "")


def _duration(seconds: float) -> str:
    for size, name in ((3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {name}"
    return f"{seconds:.2g} seconds" if seconds < 10 else f"{seconds:.0f} seconds"
