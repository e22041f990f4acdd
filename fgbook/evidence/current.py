"""Which records speak for a row of a paper: those of the row as the paper's file has it
now, and of the seeds that were fixed beforehand.

Fields are compared; no key is computed, because that would read data sets and load
PyTorch.
"""

import ast
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from .. import papers, paths
from ..errors import InputError
from ..papers.spec import Row, same_options
from ..recipe import Recipe
from .records import own


@dataclass(frozen=True)
class Counted:
    """The records that count, and how many do not."""

    records: list[dict]
    outdated: int = 0  # of the row as it was before
    further: int = 0  # of seeds beyond those fixed beforehand

    def left_out(self) -> str:
        """What was left out, as a sentence; empty where nothing was."""
        said = []
        if self.outdated:
            said.append(f"{_records(self.outdated)} of earlier recipes")
        if self.further:
            said.append(f"{_records(self.further)} of seeds beyond those fixed before")
        if not said:
            return ""
        verb = "is" if self.outdated + self.further == 1 else "are"
        return f"{' and '.join(said)} {verb} left out."


def _records(number: int) -> str:
    return "1 record" if number == 1 else f"{number} records"


def counted(found: Iterable[dict]) -> Counted:
    """Leaves out records of rows as they were before, and further seeds. Records with
    settings that a person changed stay: they never stood for the row.
    """
    everything = list(found)
    newest = _newest_weights(everything)
    by_key = {str(record.get("key")): record for record in everything}
    kept, outdated, further = [], 0, 0
    for record in everything:
        if not own(record):
            kept.append(record)
        elif not is_current(record, by_key) or _has_older_weights(record, newest):
            outdated += 1
        elif not _is_fixed(record):
            further += 1
        else:
            kept.append(record)
    return Counted(kept, outdated, further)


# ---- the row as it is now


def is_current(record: dict, others: dict[str, dict] | None = None) -> bool:
    """Whether a record is of its row as the paper's file has it now: method and its
    version, options, recipe; and of the stage before, where that is among `others` (by
    key). What an older record does not tell is believed.
    """
    row = _row(record)
    if row is None:
        return False
    if record["method"] != row.method or not same_options(
        record["options"], row.options
    ):
        return False
    version = record.get("method_version")
    if version is not None and version != method_version(row.method):
        return False
    now = row.recipes[record["profile"]].determinants()
    if _determinants(json.dumps(record["recipe"])) != now:
        return False
    before = (others or {}).get(record.get("after") or "")
    return before is None or is_current(before, others)


# a row's seeds have one recipe
@lru_cache(maxsize=256)
def _determinants(recipe: str) -> dict:
    """What of a record's recipe makes a run; older records lack fields that came
    later.
    """
    return Recipe.of(json.loads(recipe)).determinants()


def _row(record: dict) -> Row | None:
    """The row of a record; None where the paper's file has no such row any more, or not
    at this profile.
    """
    try:
        row = papers.get(record["paper"]).row(record["row"])
    except InputError:
        return None
    return row if record["profile"] in row.recipes else None


def _is_fixed(record: dict) -> bool:
    """Whether a record's seed is one of those fixed beforehand, where any were."""
    number = papers.get(record["paper"]).seeds_of(record["row"], record["profile"])
    return number is None or record["seed"] < number


# ---- the weights that runs started from


def _start(record: dict) -> tuple:
    """Where it stands, and what its recipe calls the weights."""
    place = tuple(record.get(name) for name in ("paper", "profile", "dataset"))
    recipe = record["recipe"]
    return *place, recipe.get("backbone"), recipe.get("weights")


def _newest_weights(found: Sequence[dict]) -> dict[tuple, str]:
    """What the weights of that name were in the record that was made last. A name can
    come to mean other weights; which are meant now, the machine that reads records need
    not know.
    """
    newest: dict[tuple, str] = {}
    for record in sorted(found, key=lambda record: record.get("created", "")):
        newest[_start(record)] = record.get("weights", "")
    return newest


def _has_older_weights(record: dict, newest: dict[tuple, str]) -> bool:
    return record.get("weights", "") != newest[_start(record)]


# ---- versions of methods


def method_version(method: str) -> int:
    """The version of a method's code, read from its file: importing it would load
    PyTorch.
    """
    return _versions()[method]


@lru_cache
def _versions() -> dict[str, int]:
    """Method -> version."""
    classes: dict[str, ast.ClassDef] = {}
    names: dict[str, str] = {}
    for path in sorted((Path(paths.__file__).parent / "methods").glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                classes[node.name] = node
            elif _assigned(node) == "METHODS":
                names |= _entries(node)

    def version(name: str) -> int | None:
        """Of a class, or of the first of its bases that has one."""
        if name not in classes:
            return None
        for node in classes[name].body:
            if _assigned(node) == "VERSION":
                return ast.literal_eval(node.value)  # type: ignore[attr-defined]
        bases = [version(ast.unparse(base)) for base in classes[name].bases]
        return next((found for found in bases if found is not None), None)

    return {method: version(name) or 1 for method, name in names.items()}


def _assigned(node: ast.stmt) -> str:
    """The name that a statement gives a value to."""
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0])
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        return ast.unparse(node.target)
    return ""


def _entries(node: ast.stmt) -> dict[str, str]:
    """Key -> name of the class, of a dictionary that is written out."""
    table = node.value  # type: ignore[attr-defined]
    pairs = zip(table.keys, table.values, strict=True)
    return {ast.literal_eval(key): ast.unparse(value) for key, value in pairs}
