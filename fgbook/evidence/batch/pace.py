"""How long the runs of a batch will take: from records of the same row, else from a few
timed steps, which are remembered.
"""

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ... import methods, paths
from ...errors import InputError, count
from ...recipe import Recipe
from ...training import devices, schedule
from .. import estimate, records
from ..plan import Run
from .grid import Entry, kinds

# Fields of a recipe that change what a step costs.
COSTLY = (
    "image_size",
    "batch_size",
    "accumulate",
    "views",
    "backbone",
    "batchnorm",
    "frozen_stages",
    "backbone_lr_factor",
    "recompute",
)


Kind = tuple[str, str, str]
"""Paper, row, data set."""


@dataclass(frozen=True)
class Pace:
    """What runs of a row take."""

    fixed_seconds: float  # once a run
    epoch_seconds: float  # training and validation
    source: str  # in words: measured on what
    # of the fixed ones: features that runs share, so that only the first one pays
    features_seconds: float = 0.0

    def seconds(self, epochs: int) -> float:
        """Of a run that has so many epochs to go."""
        return self.fixed_seconds + epochs * self.epoch_seconds


def expect(
    entries: Sequence[Entry],
    known: Sequence[dict],
    device: str | None,
    threads: int,
    say: Callable[[str], None],
) -> dict[Kind, Pace]:
    """The pace of each row and data set of which something is left, noted in its
    entries too.

    `known` are all records. Where none fits, some steps are timed with `threads`
    threads; `say` is told of it before. Timed paces are kept in the runs folder.
    """
    here = hardware(device, threads)
    paces: dict[Kind, Pace] = {}
    computed: set[tuple] = set()  # features
    for kind, same in kinds(entries).items():
        left = [entry for entry in same if entry.left]
        if not left:
            continue
        run = left[0].run
        pace = _from_records(run, known, here) or _kept(run, here)
        if pace is None:
            say(f"timing some steps of {run.paper} {run.row} on {run.dataset} ...")
            pace = _timed(run, device, here)
        paces[kind] = pace
        for entry in left:
            entry.expected = pace.seconds(run.recipe.epochs - entry.epochs)
            if _features(run) in computed:
                entry.expected -= pace.features_seconds
            if pace.features_seconds:
                computed.add(_features(run))
    return paces


def _features(run: Run) -> tuple:
    """What the features of a frozen backbone depend on."""
    recipe = run.recipe
    return run.fingerprint, run.weights, recipe.image_size, recipe.flip


def hardware(device: str | None, threads: int) -> dict:
    """What runs with so many threads will have."""
    here = records.hardware(device or devices.default_device())
    return here | {"threads": threads}


def _from_records(run: Run, known: Sequence[dict], here: dict) -> Pace | None:
    """Of records of runs like this one: on this very hardware where there are some,
    else on the same kind of device; of the row itself where there are some. Records do
    not tell what the features of a frozen backbone took.
    """
    if methods.METHODS[run.method].frozen_backbone:
        return None
    alike = []
    for record in known:
        same_kind = _kind(record["hardware"]) == _kind(here)
        if same_kind and record["train"]["steps"] and _costs(record) == _asked(run):
            alike.append(record)
    at_home = [one for one in alike if _machine(one["hardware"]) == _machine(here)]
    chosen = _of_row(run, at_home) or at_home or _of_row(run, alike) or alike
    if not chosen:
        return None

    seconds = sum(record["train"]["seconds"] for record in chosen)
    seconds /= sum(record["train"]["steps"] for record in chosen)
    images = len(run.data().split(run.recipe.train_on))
    an_epoch = schedule.steps_per_epoch(images, run.recipe.batch_size)
    source = f"{seconds:.3g} s a step, {count(len(chosen), 'record')}"
    if not at_home:
        source += f" of {in_words(chosen[0]['hardware'])}"
    return Pace(0.0, an_epoch * seconds, source)


def _of_row(run: Run, known: Sequence[dict]) -> list[dict]:
    return [one for one in known if (one["paper"], one["row"]) == (run.paper, run.row)]


def _asked(run: Run) -> str:
    settings = {"method": run.method, "options": run.options}
    return _costs({**settings, "recipe": run.recipe.as_dict()})


def _costs(record: dict) -> str:
    """What two runs must share for their steps to take as long; older records lack
    fields that are then off.
    """
    recipe = Recipe.of(record["recipe"]).as_dict()
    settings = [record["method"], record["options"], [recipe[name] for name in COSTLY]]
    return json.dumps(settings, sort_keys=True)


def _kind(hardware: dict) -> str:
    """Cpu or cuda."""
    return hardware["device"].split(":")[0]


def _machine(hardware: dict) -> list:
    """What of a record's hardware decides how long a step takes."""
    return [
        _kind(hardware),
        *(hardware.get(name) for name in ("cpu", "gpu", "threads")),
    ]


def in_words(hardware: dict) -> str:
    """A record's hardware."""
    threads = count(hardware["threads"], "thread")
    return hardware.get("gpu") or f"{hardware['cpu']}, {threads}"


# ---- timed steps


def _timed(run: Run, device: str | None, here: dict) -> Pace:
    """Time some steps of the real loop, and keep what they told."""
    before = torch.get_num_threads()
    torch.set_num_threads(here["threads"])
    try:
        about = estimate.measure(run, device)
    finally:
        torch.set_num_threads(before)
    timed = count(about.timed, "step")
    source = f"{about.step_seconds:.3g} s a step, {timed} timed"
    pace = Pace(
        about.fixed_seconds, about.epoch_seconds, source, about.features_seconds
    )
    # of two that time the same at once, either one may be kept
    with contextlib.suppress(InputError, OSError):
        records.write_json(_path(run, here), asdict(pace))
    return pace


def _kept(run: Run, here: dict) -> Pace | None:
    """What an earlier batch timed."""
    try:
        kept = records.read_json(_path(run, here))
        kept.pop(records.DIGEST, None)
        return Pace(**kept)
    except (OSError, ValueError, TypeError):
        return None


def _path(run: Run, here: dict) -> Path:
    settings = [_asked(run), run.fingerprint, _machine(here)]
    return paths.runs() / "batches" / "paces" / f"{records.key({'of': settings})}.json"
