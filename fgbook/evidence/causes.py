"""The whole table of explanations that are judged by experiment: every method of the
package, trained on drawn birds with and without a planted shortcut, over seeds.

    for one in causes.planned():
        causes.make(one)  # trains it, judges its explanations, keeps the numbers
    table = causes.published()  # {("plain", 0): [Scores of seed 0, 1, ...], ...}

Networks come from :mod:`fgbook.evidence.runs`, as all do. What was found of one is a
line of ``results/causal/<network>.jsonl``: its settings, what it was made with, and for
each scene the numbers of :class:`fgbook.evaluation.causal.Scores`; no picture, no
weights. A line that is there is not made again.
"""

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import paths
from ..errors import InputError, unknown
from . import records, runs

if TYPE_CHECKING:
    from torch import Tensor

    from ..evaluation.causal import Scores
    from ..explain.offered import Offered
    from ..methods import Method

SCENES = 40  # two of each species
SEEDS = 5
SHARES = (0, 50, 90, 100)  # per cent of the training images with a planted background
DIGITS = 4  # that are kept of a number
PARTS = "parts"

# The comparison's rows are trained there for two epochs of half the images; a network
# that knows little has few causes to be asked about. As long as the papers' own rows:
LONGER = {"epochs": 6, "fraction": 1.0}
# All of a transformer is new there, and learns at a tenth of that rate: at the row's
# own it tells no siblings apart. Chosen on validation.
SLOWER = LONGER | {"lr": 0.002, "backbone_lr_factor": 1.0}

NETWORKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "plain": ("feng", "plain", {}),
    "attention": ("gautam", "attention", {}),
    "hybrid": ("feng", "hybrid", {}),
    "transfg": ("compare", "transfg", SLOWER),
    "flrdf": ("liang", "flrdf", {}),
    "levels": ("golodov", "levels", {}),
    "nts-net": ("feng", "nts-net", {}),
    "pmg": ("compare", "pmg", LONGER),
    "dcl": ("compare", "dcl", LONGER),
    "semantic": ("gautam", "semantic", {}),
    "probe": ("feng", "probe", {}),
    "cal": ("compare", "cal", LONGER),
    "ma-cnn": ("compare", "ma-cnn", LONGER),
    "partnet": ("compare", "partnet", LONGER),
    "mmal": ("compare", "mmal", LONGER),
    "ra-cnn": ("compare", "ra-cnn", LONGER),
    "wsdl": ("compare", "wsdl", LONGER),
    "cross-x": ("compare", "cross-x", LONGER),
    "dfl-cnn": ("compare", "dfl-cnn", LONGER),
    "mc-loss": ("compare", "mc-loss", LONGER),
    "api-net": ("compare", "api-net", LONGER),
    "boosted": ("compare", "boosted", LONGER),
    "bilinear": ("compare", "bilinear", LONGER),
    "compact": ("compare", "compact", LONGER),
}
"""Network -> paper, row, and what is changed of the row's quick recipe. Left out are
methods about low resolution, and other ways of training the plain backbone."""

BLAMED = ("plain", "attention", "hybrid", "transfg", "flrdf", "levels", "nts-net")
"""Networks that are trained with a planted shortcut too: the plain backbone, whose four
explanations work for any network, attention, and some that show something of their own
(regions, boxes, attention between patches)."""


class Wanted(NamedTuple):
    """A network of the table: trained with a planted background in `share` per cent of
    its images, from this seed.
    """

    network: str
    share: int
    seed: int


def planned(
    networks: Sequence[str] = (),
    shares: Sequence[int] = (),
    seeds: int = SEEDS,
) -> list[Wanted]:
    """The networks of the table, or of a part of it: without a shortcut first, and of
    the plain backbone all shares before any other. With a shortcut only those of BLAMED
    are, unless others are asked for by name.

    Raises InputError for a network or share that is not in the table.
    """
    for name in networks:
        if name not in NETWORKS:
            raise unknown("network", name, NETWORKS)
    for share in shares:
        if share not in SHARES:
            raise unknown("share", str(share), [str(each) for each in SHARES])
    everything = [
        Wanted(network, share, seed)
        for network in networks or NETWORKS
        for share in shares or SHARES
        for seed in range(seeds)
        if share == 0 or networks or network in BLAMED
    ]
    order = list(NETWORKS)

    def urgency(one: Wanted) -> tuple:
        later = one.share > 0 and one.network != order[0]
        return later, order.index(one.network)

    return sorted(everything, key=urgency)  # stable: shares and seeds in their order


def resolve(one: Wanted) -> runs.Run:
    """The run that trains a network."""
    paper, row, changes = NETWORKS[one.network]
    dataset = f"fieldguide-shortcut{one.share}" if one.share else "fieldguide"
    return runs.resolve(paper, row, "quick", dataset, one.seed, changes)


# ---- making them


def make(
    one: Wanted, device: str | None = None, budget_minutes: float | None = None
) -> bool:
    """Train a network of the table, judge its explanations and publish the numbers;
    False where the time budget ended in its training, which then goes on next time.
    """
    from ..evaluation import causal

    commit = records.commit()  # now: the clone may change meanwhile
    run = resolve(one)
    trained = runs.execute(
        run, device=device, budget_minutes=budget_minutes, progress=False, train=True
    )
    if trained is None:
        return False
    model, _ = runs.model(run, device=device, progress=False)
    began = time.perf_counter()
    scores = causal.judge(model, causal.of(run.recipe, SCENES))
    about = {
        "key": _key(run.key),
        "purpose": "causal",
        **one._asdict(),
        "run": run.key,
        "paper": run.paper,
        "row": run.row,
        "method": run.method,
        "profile": run.profile,
        "dataset": run.dataset,
        "overrides": run.overrides,
        "top1": trained["metrics"]["test"]["top1"],
        "scenes": SCENES,
        "version": causal.VERSION,
        "found": numbers(scores),
        "train_seconds": trained["train"]["seconds"],
        "command": command(one),
        **_made(began, model),
        **commit,
    }
    _publish(about, one.network)
    return True


def _made(began: float, model: "Method") -> dict:
    """With what, when, and in how many seconds since `began`."""
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "hardware": records.hardware(str(next(model.parameters()).device)),
        "versions": records.versions(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def edit_parts(
    model: "Method", about: dict, pictures: int, publish: bool = False
) -> dict[str, dict[str, "Tensor"]]:
    """Edit the marked parts of `pictures` photographs of the test split that a trained
    model was tested with, and ask its explanations which parts matter; `about`: what
    its model.json says. Raises InputError for a data set without marked parts, and
    for other pictures than those.
    """
    from .. import data
    from ..evaluation import causal, part_edits
    from ..recipe import Recipe

    commit, began = records.commit(), time.perf_counter()
    recipe = Recipe.of(about["recipe"])
    dataset = data.load(about["dataset"], recipe.store_size)
    if dataset.fingerprint != about["data_fingerprint"]:
        raise InputError(
            f"the pictures of {about['dataset']} are others than those that run"
            f" {about['key']} was made with; train its row on these."
        )
    test = dataset.test
    explanations, _ = offered_to(model, recipe.image_size)
    edited = part_edits.measure(model, test, recipe, explanations, pictures)
    if publish:
        fixed = ("paper", "row", "method", "profile", "dataset", "seed")
        line = {
            "key": records.key(
                {"run": about["key"], "parts": pictures, "version": causal.VERSION}
            ),
            "purpose": "causal parts",
            "run": about["key"],
            **{name: about[name] for name in fixed},
            "pictures": pictures,
            "version": causal.VERSION,
            "found": {
                edit: {name: _rounded(values) for name, values in each.items()}
                for edit, each in edited.items()
            },
            "command": f"fgbook causal --run {about['key']} --scenes {pictures}"
            " --publish",
            "train_command": about["command"],
            **_made(began, model),
            **commit,
        }
        _publish(line, PARTS)
    return edited


def offered_to(model: "Method", size: int) -> "Offered":
    """The explanations of a model for images of `size` pixels."""
    import torch

    from ..explain import offered

    device = next(model.parameters()).device
    return offered(model, torch.full((1, 3, size, size), 0.5, device=device))


def command(one: Wanted) -> str:
    """What makes this line of the table (where it is not there)."""
    return (
        f"fgbook causal --table --network {one.network} --share {one.share}"
        f" --seeds {one.seed + 1}"
    )


def _key(run: str) -> str:
    from ..evaluation import causal

    return records.key({"run": run, "scenes": SCENES, "version": causal.VERSION})


def missing(wanted: Iterable[Wanted]) -> list[Wanted]:
    """Those that have no line, or one of other settings than today's."""
    there = {line["key"] for line in lines()}
    return [one for one in wanted if _key(resolve(one).key) not in there]


# ---- lines


def folder() -> Path:
    """Where the table lies."""
    return paths.results() / "causal"


def lines() -> list[dict]:
    """All that is published, by network, share and seed. Raises InputError where a file
    is damaged.
    """
    found = []
    for network in NETWORKS:
        found += _read(_path(network))
    return found


def parts() -> tuple[dict | None, dict[str, dict[str, "Tensor"]] | None]:
    """The newest line of edited parts of photographs, and what was found; None twice
    where there is none.
    """
    found = _read(_path(PARTS))
    if not found:
        return None, None
    line = max(found, key=lambda one: one["created"])
    edited = {
        edit: {name: _tensor(values) for name, values in each.items()}
        for edit, each in line["found"].items()
    }
    return line, edited


def published() -> dict[tuple[str, int], list["Scores"]]:
    """What was found, by network and share, a training each."""
    table: dict[tuple[str, int], list[Scores]] = {}
    for line in lines():
        place = line["network"], line["share"]
        table.setdefault(place, []).append(scores_of(line["found"]))
    return table


def _path(name: str) -> Path:
    return folder() / f"{name}.jsonl"


def _publish(about: dict, name: str) -> None:
    """Put a line into the file of that name, in place of an older one of its place."""
    path = _path(name)
    with records.publishing():
        kept = [line for line in _read(path) if _place(line) != _place(about)]
        text = ""
        for line in sorted([*kept, about], key=_place):
            content = {name: line[name] for name in line if name != "digest"}
            content["digest"] = records.key(content)
            text += json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n"
        records.write_atomically(path, text.encode())


def _place(line: dict) -> tuple:
    return line["paper"], line["row"], line["dataset"], line.get("share"), line["seed"]


def _read(path: Path) -> list[dict]:
    """The lines of a file; none where there is no file."""
    if not path.is_file():
        return []
    found = []
    try:
        for text in path.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            content = {name: line[name] for name in line if name != "digest"}
            if line["digest"] != records.key(content):
                raise ValueError("a digest is not that of its line")
            found.append(line)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} does not hold what was published ({error}); restore it, or delete"
            f" it and make its lines again with {_remade(path.stem)}."
        ) from error
    return found


def _remade(name: str) -> str:
    """What makes the lines of the file of that name."""
    if name == PARTS:
        return "`fgbook causal --run KEY --publish`, of a run on cub50"
    return "`fgbook causal --table`"


# ---- numbers of scenes as JSON


def numbers(scores: "Scores") -> dict:
    """All numbers of `scores`, rounded, as JSON has them: NaN is null."""

    def by_name(found: dict[str, "Tensor"]) -> dict[str, list]:
        return {name: _rounded(values) for name, values in found.items()}

    return {
        "network": by_name(scores.network),
        "maps": {name: by_name(each) for name, each in scores.maps.items()},
        "controls": {name: by_name(each) for name, each in scores.controls.items()},
        "effects": [_rounded(each) for each in scores.effects],
        "refused": scores.refused,
    }


def scores_of(found: dict) -> "Scores":
    """What :func:`numbers` was made of, up to rounding."""
    import torch

    from ..evaluation.causal import Scores

    def by_name(values: dict[str, list]) -> dict[str, "Tensor"]:
        return {name: _tensor(each) for name, each in values.items()}

    return Scores(
        network=by_name(found["network"]),
        maps={name: by_name(each) for name, each in found["maps"].items()},
        controls={name: by_name(each) for name, each in found["controls"].items()},
        effects=torch.stack([_tensor(each) for each in found["effects"]]),
        refused=found["refused"],
    )


def _tensor(values: list) -> "Tensor":
    import torch

    found = [torch.nan if v is None else v for v in values]
    return torch.tensor(found, dtype=torch.float32)


def _rounded(values: "Tensor") -> list:
    return [None if v != v else _short(v) for v in values.tolist()]


def _short(value: float) -> float | int:
    """A number with DIGITS digits behind the point; a whole one without any."""
    value = round(value, DIGITS)
    return int(value) if value == int(value) else value
