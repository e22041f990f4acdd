"""Tuning: the changes that a paper's file lists for a row, tried on validation before
the row's recipe is fixed.

Each try is a run like any other, with a record, but it trains on the training split
alone and is measured on validation only.
"""

from .. import data, methods, papers
from ..errors import InputError
from ..papers.spec import Paper
from ..recipe import Recipe
from .plan import Look, Run
from .runs import execute

SEED = 1000  # tuning never uses a seed that is reported


def tune(
    paper: str,
    row: str,
    profile: str,
    dataset: str | None = None,
    *,
    options: dict | None = None,
    device: str | None = None,
    progress: bool = True,
    train: bool = False,
) -> list[dict]:
    """Try the changes that the paper's file lists for a row; records of the tries, best
    first. The test split is not touched.

    `options` changes options of the method in all tries, but for those that a try is
    about. `train`: also where a record is here without its weights. Raises InputError
    for unknown names, values that cannot be, and a row without such a list.
    """
    about = papers.get(paper)
    line, tuning = about.row(row), about.tuning.get(profile)
    if tuning is None or row not in tuning.tries:
        raise InputError(
            f"{paper} lists no tuning for row {row!r} at profile {profile!r}; add it to"
            f" fgbook/papers/{paper}.py."
        )
    chosen = data.absolute(dataset or about.datasets[profile][0])
    look = Look()  # all tries see the same pictures
    before = _stages(about, line.after, profile, chosen, look)

    found = []
    for change, recipe, listed in tuning.of(line):
        changes = _option_changes(line.method, listed, change, options or {}, recipe)
        run = Run(
            paper=paper,
            row=row,
            profile=profile,
            dataset=chosen,
            seed=SEED,
            method=line.method,
            options=listed | changes,
            recipe=recipe,
            purpose="tuning",
            overrides=change,
            option_changes=changes,
            after=before,
            look=look,
        )
        record = execute(run, device=device, progress=progress, train=train)
        if record is not None:  # None only where a time budget ends
            found.append(record)
    return sorted(found, key=lambda record: -record["metrics"]["val"]["top1"])


def last_quarter(record: dict) -> float | None:
    """How much validation accuracy the last quarter of the epochs brought, in points:
    half a point or more says that training was too short. None where the record does
    not tell, or there are fewer than four epochs.
    """
    curve = record["train"].get("val_top1") or []
    quarter = len(curve) // 4
    if quarter == 0 or None in curve:
        return None
    return 100 * (curve[-1] - curve[-1 - quarter])


def _option_changes(
    method: str, listed: dict, change: dict, options: dict, recipe: Recipe
) -> dict:
    """The options that a person changes in a try, checked."""
    tried = change.get("options", {})
    given = {name: value for name, value in options.items() if name not in tried}
    if not given:
        return {}
    fitting = methods.check_options(method, listed | given, recipe)
    before = methods.options_of(method) | listed
    return {name: fitting[name] for name in given if fitting[name] != before[name]}


def _stages(
    about: Paper, name: str | None, profile: str, dataset: str, look: Look
) -> Run | None:
    """The stages before a row, with their own settings but without the validation
    images.
    """
    if name is None:
        return None
    stage = about.row(name)
    return Run(
        paper=about.key,
        row=name,
        profile=profile,
        dataset=dataset,
        seed=SEED,
        method=stage.method,
        options=stage.options,
        recipe=stage.recipes[profile].but(train_on="train"),
        purpose="tuning",
        after=_stages(about, stage.after, profile, dataset, look),
        look=look,
    )
