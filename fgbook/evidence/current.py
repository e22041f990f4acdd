"""Which records speak for a row of a paper: those of the row as the paper's file has it
now, of the seeds that were fixed beforehand, and of the pictures that most of them saw.

Fields are compared; no key is computed, because that would read data sets and load
PyTorch.
"""

import ast
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
    elsewhere: int = 0  # of other pictures under the same name

    def left_out(self) -> str:
        """What was left out, as a sentence; empty where nothing was."""
        numbers = {
            "of earlier recipes": self.outdated,
            "of seeds beyond those fixed before": self.further,
            "of other pictures": self.elsewhere,
        }
        said = [f"{_records(n)} {kind}" for kind, n in numbers.items() if n]
        if not said:
            return ""
        *others, last = said
        listed = f"{', '.join(others)} and {last}" if others else last
        verb = "is" if sum(numbers.values()) == 1 else "are"
        return f"{listed} {verb} left out."


def _records(number: int) -> str:
    return "1 record" if number == 1 else f"{number} records"


def counted(found: Iterable[dict]) -> Counted:
    """Leaves out records of rows as they were before, further seeds, and what was made
    on other pictures than most of the rest. Records with settings that a person changed
    stay: they never stood for the row.
    """
    everything = list(found)
    newest = _newest_weights(everything)
    by_key = {str(record.get("key")): record for record in everything}
    current, outdated, further = [], 0, 0
    for record in everything:
        if not own(record):
            current.append(record)
        elif not is_current(record, by_key) or _has_older_weights(record, newest):
            outdated += 1
        elif not _is_fixed(record):
            further += 1
        else:
            current.append(record)
    usual = _usual_pictures(current)
    kept = [r for r in current if not own(r) or _pictures(r) == usual[_place(r)]]
    return Counted(kept, outdated, further, len(current) - len(kept))


# ---- the row as it is now


def is_current(record: dict, others: dict[str, dict] | None = None) -> bool:
    """Whether a record is of its row as the paper's file has it now: method, options,
    recipe, and the versions of method, loop and measures; and of the stage before,
    where that is among `others` (by key). What an older record does not tell is
    believed.
    """
    row = _row(record)
    if row is None:
        return False
    if record["method"] != row.method or not same_options(
        record["options"], row.options
    ):
        return False
    if _versions_of(record) != _versions_now(row.method):
        return False
    now = row.recipes[record["profile"]].determinants()
    if _determinants(json.dumps(record["recipe"])) != now:
        return False
    before = (others or {}).get(record.get("after") or "")
    return before is None or is_current(before, others)


def made_by(record: dict, others: Mapping[str, dict] | None = None) -> str:
    """All that makes a run but its seed and its data, as text: equal for the seeds of
    one row in one version. The stage before, whose key differs with the seed, is told
    in the same way, where it is among `others` (by key).
    """
    before = (others or {}).get(record.get("after") or "")
    about = [
        *(record.get(name) for name in ("row", "method", "options", "weights")),
        _versions_of(record),
        _determinants(json.dumps(record["recipe"])),
        made_by(before, others) if before else None,
    ]
    return json.dumps(about, sort_keys=True)


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


# ---- the pictures that runs saw


def _place(record: dict) -> tuple:
    """What shares its pictures."""
    names = ("paper", "profile", "dataset", "purpose")
    return tuple(record.get(name) for name in names)


def _pictures(record: dict) -> str:
    return record.get("data_fingerprint", "")


def _usual_pictures(found: Iterable[dict]) -> dict[tuple, str]:
    """Place -> fingerprint of the data that most records of unchanged rows saw there;
    of several with as many, that of the record made last. A person's own copy of a data
    set can hold other pictures under the same name.
    """
    numbers: dict[tuple, Counter[str]] = {}
    last: dict[tuple, str] = {}
    for record in found:
        if own(record):
            place, pictures = _place(record), _pictures(record)
            numbers.setdefault(place, Counter())[pictures] += 1
            made = last.get((place, pictures), "")
            last[place, pictures] = max(made, record.get("created", ""))
    usual = {}
    for place, seen in numbers.items():
        usual[place] = max(seen, key=lambda each: (seen[each], last[place, each]))
    return usual


# ---- versions of code, read from its files: importing it would load PyTorch


def _versions_of(record: dict) -> tuple:
    """Of method, loop and measures, as a record tells them. Those of before the two
    latter were told are of the first; what no record tells is believed.
    """
    believed = _versions().get(record["method"])
    return (
        record.get("method_version", believed),
        record.get("loop_version", 1),
        record.get("measures_version", 1),
    )


def _versions_now(method: str) -> tuple:
    return method_version(method), loop_version(), measures_version()


def loop_version() -> int:
    """The version of the code that trains."""
    return _constant("training/loop.py", "VERSION")


def measures_version() -> int:
    """The version of the code that measures."""
    return _constant("evidence/measures.py", "VERSION")


@lru_cache
def _constant(file: str, name: str) -> int:
    """A number that a file of the package gives a name to at its top level."""
    path = Path(paths.__file__).parent / file
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if _assigned(node) == name:
            return ast.literal_eval(node.value)  # type: ignore[attr-defined]
    raise ValueError(f"{path} has no {name}")


def method_version(method: str) -> int:
    """The version of a method's code."""
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
