"""What a paper's file is made of: printed tables, recipes, rows, claims, tuning."""

from dataclasses import dataclass, field

from ..errors import unknown
from ..recipe import Recipe

PROFILES = ("quick", "photo", "paper")
POINTS = ("top1", "low_top1")
"""Metrics that are right or wrong for each image: their effects are in points."""


@dataclass(frozen=True)
class Table:
    """A table as printed.

    `cells[label][i]` is what is printed in the row `label` and in the column
    `columns[i]`, in `unit`; None for a dash.
    """

    name: str  # "Table 1"
    caption: str  # in our words
    # data sets, as this package names them ("cub", "aircraft", "cars"), or a label
    columns: tuple[str, ...]
    # printed row label -> one value a column
    cells: dict[str, tuple[float | None, ...]]
    # printed row label -> name of our Row that reproduces it
    rows: dict[str, str] = field(default_factory=dict)
    unit: str = "% top-1"
    missing: str = "–"  # how a cell without a number is shown


class Recipes(dict[str, Recipe]):
    """A recipe for each profile, from which other named ones are made:

    PLAIN = Recipes(quick=Recipe(..), photo=Recipe(..), paper=Recipe(..))
    MIXUP = PLAIN.but(mixup=0.2).at("photo", mixup=0.1)
    """

    def but(self, **changes) -> "Recipes":
        """A copy with the same fields changed at every profile. Raises InputError for
        unknown fields and values out of range.
        """
        changed = {profile: recipe.but(**changes) for profile, recipe in self.items()}
        return Recipes(changed)

    def at(self, profile: str, **changes) -> "Recipes":
        """A copy with fields changed at one profile, which must be there."""
        return Recipes(self | {profile: self[profile].but(**changes)})

    def only(self, *profiles: str) -> "Recipes":
        """The recipes of some profiles: a row does not exist at the others."""
        return Recipes({profile: self[profile] for profile in profiles})


@dataclass(frozen=True)
class Row:
    """One line of a table as a configuration: a method, its options, and a recipe for
    each profile.
    """

    name: str  # "hybrid"
    title: str  # "hybrid head, maximum over classes"
    method: str  # key of methods.METHODS
    options: dict
    # profile -> Recipe; the row does not exist at a profile that is missing
    recipes: dict[str, Recipe]
    # the row whose trained weights (same profile, data and seed) this one starts from:
    # an earlier stage
    after: str | None = None
    # "heat", "robust", "margin", "focus": also measured, and kept beside the
    # predictions (see evidence/measures.py)
    measures: tuple[str, ...] = ()
    # Its trainings are known to differ far more than those of other rows, or not at
    # all: then these say nothing about its spread, nor it about theirs.
    unstable: bool = False


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper that runs can support or refute: `better` beats `worse`
    in `metric` by more than -`margin`.

    A metric is known for every test image; larger is better. "top1": right or wrong;
    "low_top1": the same on low-resolution images; "nll": the log-probability of the
    true class (less loss is better); any other: the array of that name beside the
    record's predictions.
    """

    key: str  # "B1"
    text: str  # in our words
    better: str  # row name
    # row name; may name a printed row that we do not run ("nts-net"): then the verdict
    # is "not run"
    worse: str
    printed_effect: float | None = None  # percentage points, or the metric's unit
    metric: str = "top1"
    # of the worse row, where it differs: one network at two resolutions
    worse_metric: str | None = None
    # of "no worse than": a difference that would not matter, fixed before any run
    margin: float = 0.0

    @property
    def is_ours(self) -> bool:
        """Whether it is a control of ours beside the paper's claims; its text says
        so.
        """
        return self.text.startswith("our control:")

    @property
    def negligible(self) -> float | None:
        """What counts as "no difference", in the metric's unit: half the printed
        effect, but at least 1 point where the metric is in points. None where nothing
        is printed in another unit: then no difference is ever small enough.
        """
        half = abs(self.printed_effect or 0.0) / 2
        if self.metric in POINTS:
            return max(1.0, half)
        return half or None


@dataclass(frozen=True)
class Tuning:
    """What was tried on validation before the rows' recipes were fixed: changes to one
    base recipe, equally many for each row.
    """

    base: Recipe
    # row -> changes: Recipe fields, and method options under "options"
    tries: dict[str, tuple[dict, ...]]
    # row -> options of the method before the changes, where the row has others now
    options: dict[str, dict] = field(default_factory=dict)

    def of(self, row: Row) -> list[tuple[dict, Recipe, dict]]:
        """For each try of a row: the change, the recipe (without the validation images)
        and the options of the method.
        """
        start = self.options.get(row.name, row.options)
        found = []
        for change in self.tries[row.name]:
            fields = dict(change)
            options = fields.pop("options", {})
            recipe = self.base.but(train_on="train", **fields)
            found.append((change, recipe, start | options))
        return found


@dataclass(frozen=True)
class Seeds:
    """How many trainings a row gets, fixed before any published run: exactly the seeds
    0, 1, ... below that number count.
    """

    claimed: int = 3  # of a row that a claim of the paper names
    others: int = 3


def _usual_seeds() -> dict[str, Seeds]:
    return {"photo": Seeds()}


@dataclass(frozen=True)
class Paper:
    """A paper: what it prints, our rows, what it claims, and which data sets are for
    which profile.
    """

    key: str  # "feng"
    title: str
    authors: str
    tables: tuple[Table, ...]
    rows: tuple[Row, ...]
    claims: tuple[Claim, ...]
    datasets: dict[str, tuple[str, ...]]  # profile -> data sets, the default first
    tuning: dict[str, Tuning] = field(default_factory=dict)  # by profile
    # by profile; where one is missing, all seeds that were run count
    seeds: dict[str, Seeds] = field(default_factory=_usual_seeds)

    def seeds_of(self, row: str, profile: str) -> int | None:
        """How many seeds of a row were fixed beforehand; None where none were."""
        fixed = self.seeds.get(profile)
        if fixed is None:
            return None
        named = any(row in (claim.better, claim.worse) for claim in self.claims)
        return fixed.claimed if named else fixed.others

    def rows_at(self, profile: str) -> list[Row]:
        """The rows that exist at a profile."""
        return [row for row in self.rows if profile in row.recipes]

    def row(self, name: str) -> Row:
        """The row of that name; raises InputError with the nearest valid names."""
        for row in self.rows:
            if row.name == name:
                return row
        raise unknown(f"row of {self.key}", name, [row.name for row in self.rows])

    def printed(self, row: str, dataset: str) -> float | None:
        """What the paper prints for one of our rows on a data set (in the table's
        unit), or None where it prints nothing.

        Where several tables have the row, the first one counts.
        """
        for table in self.tables:
            for label, ours in table.rows.items():
                if ours == row and dataset in table.columns:
                    return table.cells[label][table.columns.index(dataset)]
        return None

    def printed_text(self, row: str, dataset: str) -> str:
        """The same to one decimal; where there is no number, what the table that has
        the row shows in its place, or a dash.
        """
        value = self.printed(row, dataset)
        if value is not None:
            return f"{value:.1f}"
        for table in self.tables:
            if row in table.rows.values() and dataset in table.columns:
                return table.missing
        return "–"


def same_options(options: dict, others: dict) -> bool:
    """Whether options are equal; where one of them comes from a record, its lists are
    the tuples that they were.
    """
    return _as_recorded(options) == _as_recorded(others)


def _as_recorded(options: dict) -> dict:
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in options.items()
    }
