"""Records: what is kept of a finished run. One JSON file, and beside it the prediction
and confidence for each test image.

A record is a plain dictionary (the fields are listed in the book, "How to reproduce").
Its key is a hash of everything that determines the result, so equal keys mean equal
runs, and a finished run is never repeated. Fresh records lie in
``runs/<key>/record.json``; those that the book prints lie in ``results/`` under
readable names.

A record and its predictions carry digests of their content, which are checked whenever
they are read. A damaged fresh record counts as missing, with a warning: running its row
again makes it anew. A damaged published one is refused, because what the book prints
should not change in silence.
"""

import contextlib
import fnmatch
import hashlib
import io
import json
import os
import platform
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import numpy as np
from filelock import FileLock

from .. import files, paths
from ..errors import InputError
from ..recipe import Recipe

FOLDER = "_folder"  # where a loaded record was found; never written to disk
DIGEST = "sha256"  # of all other fields; records of before have none

# What all readers use.
FIELDS = {
    "key": str,
    "purpose": str,
    "paper": str,
    "row": str,
    "profile": str,
    "dataset": str,
    "seed": int,
    "metrics": dict,
    "method": str,
    "options": dict,
    "recipe": dict,
    "overrides": dict,
}

# Whose versions a result can depend on.
PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "accelerate",
    "torchmetrics",
    "safetensors",
    "pillow",
    "fgbook",
)


# ---- files that say when they are damaged


def key(determinants: dict) -> str:
    """16 hex digits of SHA-256 over the canonical JSON of `determinants`."""
    return _digest(determinants)[:16]


def _digest(content: dict) -> str:
    """SHA-256 of a dictionary, whatever the order of its entries."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file in a folder of results or runs, whole or not at all.

    The temporary name is always the same, so that what a killed process left is used up
    by the next one; of two that may write the same file at once the caller holds a
    lock. Raises InputError as :func:`fgbook.files.write`.
    """
    files.write(path, content, _instead(path), path.with_name(f"{path.name}.tmp"))


def _instead(path: Path) -> str:
    """What a person can do where a file cannot be written: which variable names the
    folder that it is in, where one does.
    """
    places = {"FGBOOK_RESULTS": paths.results(), "FGBOOK_RUNS": paths.runs()}
    for name, place in places.items():
        if path.is_relative_to(place):
            return f"choose another folder ({name})"
    return "choose another folder"


def write_json(path: Path, content: dict) -> dict:
    """Write a dictionary with its own digest; returns it with that."""
    content = {name: value for name, value in content.items() if name != DIGEST}
    # as it will be read: tuples become lists
    content = json.loads(json.dumps(content, allow_nan=False))
    content[DIGEST] = _digest(content)
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_atomically(path, text.encode())
    return content


def read_json(path: Path) -> dict:
    """What :func:`write_json` wrote. Raises ValueError or OSError where it is not as it
    was written.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:  # a file of nothing but brackets
        raise ValueError("nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}, not named values")
    others = {name: value for name, value in content.items() if name != DIGEST}
    if DIGEST in content and content[DIGEST] != _digest(others):
        raise ValueError("its digest is not that of its content")
    return content


# ---- one record


def save(record: dict, predictions: dict[str, np.ndarray] | None, path: Path) -> dict:
    """Write a record to `path` (.json) and its predictions beside it (.npz of the same
    stem). The JSON comes last: it makes the record exist.
    """
    record = {name: value for name, value in record.items() if name != FOLDER}
    record["predictions"] = record["predictions_sha256"] = None
    if predictions is not None:
        beside = path.with_suffix(".npz")
        buffer = io.BytesIO()
        # numpy's types take any name for its own allow_pickle
        np.savez_compressed(buffer, **predictions)  # type: ignore[arg-type]
        record["predictions"] = beside.name
        record["predictions_sha256"] = hashlib.sha256(buffer.getbuffer()).hexdigest()
        write_atomically(beside, buffer.getvalue())
    return {**write_json(path, record), FOLDER: str(path.parent)}


def load(path: Path) -> dict:
    """The record in a JSON file. Raises InputError when it is not one, or damaged."""
    try:
        record = read_json(path)
        for name, kind in FIELDS.items():
            if not isinstance(record.get(name), kind):
                raise ValueError(f"{name} is {record.get(name)!r}")
        # it becomes the name of a folder
        if not re.fullmatch("[0-9a-f]{16}", record["key"]):
            raise ValueError(f"key is {record['key']!r}")
        Recipe.of(record["recipe"])  # one of a newer version has fields of its own
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} is not a record ({_reason(error)}); {_again(path)}."
        ) from error
    return {**record, FOLDER: str(path.parent)}


def load_predictions(record: dict) -> dict[str, np.ndarray]:
    """``prediction`` (N,) uint16, ``confidence`` (N,) float16 and ``label`` (N,)
    uint16, one entry for each test image in the split's order.

    Newer records also hold ``nll`` (N,) float32, the cross-entropy in nats; those of
    rows measured at low resolution the same again, as ``low_prediction`` and so on; and
    the arrays of a method's or chapter's own measures, by name. Raises InputError where
    there are none, or where they are not as they were written.
    """
    if not record.get("predictions"):
        raise InputError(f"record {record['key']} has no predictions beside it.")
    path = Path(record[FOLDER]) / str(record["predictions"])
    # a name from a file: it must stay beside the record
    if path.parent != Path(record[FOLDER]):
        raise InputError(
            f"record {record['key']} names predictions outside its folder:"
            f" {record['predictions']!r}."
        )
    try:
        about = path.stat()
        state = about.st_mtime_ns, about.st_size
        return dict(_arrays(path, record.get("predictions_sha256"), state))
    # numpy and zipfile raise nearly anything on a damaged file
    except Exception as error:
        if not path.with_suffix(".json").is_file():
            raise InputError(
                f"record {record['key']} was in {record[FOLDER]} and is no longer there"
                " (a newer one may have taken its place); run the same command again."
            ) from error
        raise InputError(
            f"{path} does not hold the predictions of record {record['key']}"
            f" ({_reason(error)}); {_again(path.with_suffix('.json'))}."
        ) from error


# Every claim of a paper asks again for the same records: read each once, as long as its
# file is in the same state. The arrays are shared, and so cannot be written to.
@lru_cache(maxsize=1024)
def _arrays(
    path: Path, expected: str | None, state: tuple[int, int]
) -> dict[str, np.ndarray]:
    """The arrays of a .npz file with that digest; older records know none."""
    content = path.read_bytes()
    if expected is not None and hashlib.sha256(content).hexdigest() != expected:
        raise ValueError("its checksum is not the record's")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        kept = dict(arrays)
    if missing := {"prediction", "confidence", "label"} - kept.keys():
        raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    for array in kept.values():
        array.flags.writeable = False
    return kept


def _reason(error: Exception) -> str:
    """What went wrong with a file, on one line and without its name."""
    strerror = getattr(error, "strerror", None)
    return strerror or str(error).split("\n")[0] or type(error).__name__


def _again(path: Path) -> str:
    """How a damaged record is made again. What its row is, the model beside it may
    still know.
    """
    if path.is_relative_to(paths.results()):
        return "restore it, or delete it and run its row again"
    try:
        command = read_json(path.with_name("model.json"))["command"]
    except (OSError, ValueError, KeyError):
        return "delete it and run its row again"
    return f"make it again with `{command}`"


def own(record: dict) -> bool:
    """Whether a record is of its row as the paper's file has it, with no field of the
    recipe and no option of the method changed.
    """
    return not changes(record)


def changes(record: dict) -> dict:
    """What differs from the paper's file, by name: fields of the recipe, then options
    of the method. Records of before options could be changed lack the second.
    """
    return {**record.get("overrides", {}), **record.get("option_changes", {})}


# ---- all records


def find(run_key: str) -> dict | None:
    """The record with that key, fresh or published; None if there is none.

    Its predictions are checked too. A damaged fresh record is warned of and passed
    over; for a damaged published one InputError is raised.
    """
    if (record := find_fresh(run_key)) is not None:
        return record
    for path in _files(paths.results(), f"*-{run_key}.json"):
        return _whole(path, run_key)
    return None


def find_fresh(run_key: str) -> dict | None:
    """The record with that key in the runs folder; None where there is none, or, with a
    warning, where it or its predictions are damaged.
    """
    path = paths.runs() / run_key / "record.json"
    if not path.is_file():
        return None
    try:
        return _whole(path, run_key)
    except InputError as error:
        warn(error)
        return None


def _whole(path: Path, run_key: str) -> dict:
    """The record in a file that must be of that key; its predictions can be read."""
    record = load(path)
    if record["key"] != run_key:
        raise InputError(
            f"{path} is the record of run {record['key']}, not of {run_key}; delete it."
        )
    if record.get("predictions"):
        load_predictions(record)
    return record


def warn(problem: object) -> None:
    """Say that a file is damaged, where the work goes on without it."""
    # All from this line: Python then says each sentence once, whoever reads the file.
    warnings.warn(str(problem), RuntimeWarning, stacklevel=1)


def published(
    paper: str | None = None,
    profile: str | None = None,
    purpose: str | None = "result",
) -> list[dict]:
    """Records in ``results/``: of one paper and profile if named; `purpose` is "result"
    (with test numbers), "tuning" (validation only) or None (both). Raises InputError
    where one is damaged.
    """
    everything = _all_published()
    return select(everything, paper=paper, profile=profile, purpose=purpose)


def _all_published() -> list[dict]:
    tries = 3
    while True:
        tries -= 1
        there = _files(paths.results(), "*.json")
        try:
            return [load(path) for path in there]
        except InputError:
            # one may have gone since, because a newer one took its place: look again
            if not tries or all(path.exists() for path in there):
                raise


def _files(folder: Path, pattern: str) -> list[Path]:
    """All files below a folder with such names; none where there is no folder. Raises
    InputError where a folder cannot be read: it may hold some.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise InputError(
                f"{error.filename} cannot be read ({error.strerror}); make it a folder"
                " that can be read, or name another one (FGBOOK_RESULTS)."
            )

    found = []
    for parent, folders, names in os.walk(folder, onerror=refuse):
        # a folder of such a name is told of as a damaged file
        found += [
            Path(parent, name) for name in fnmatch.filter([*names, *folders], pattern)
        ]
    return sorted(found)


def fresh() -> list[dict]:
    """All records of finished runs in the runs folder, results and tuning; damaged ones
    are warned of and left out.
    """
    runs = paths.runs()
    if not runs.exists():
        return []
    try:
        folders = sorted(runs.iterdir())
    except OSError as error:
        raise InputError(
            f"{runs} cannot be read ({error.strerror}); make it a folder that can be"
            " read, or name another one (FGBOOK_RUNS)."
        ) from error
    found = []
    for folder in folders:
        path = folder / "record.json"
        try:
            if path.exists():
                found.append(_whole(path, folder.name))
        except InputError as error:
            warn(error)
        except OSError as error:
            warn(f"{path} is left out ({error.strerror}); make it readable.")
    return found


def select(records: list[dict], **wanted: object) -> list[dict]:
    """Those whose fields equal the wanted ones (None: any), by row, data set and
    seed.
    """
    asked = {name: value for name, value in wanted.items() if value is not None}
    chosen = []
    for record in records:
        if all(record.get(name) == value for name, value in asked.items()):
            chosen.append(record)
    return sorted(chosen, key=lambda r: (r["row"], r["dataset"], r["seed"]))


def publishing_folder() -> Path:
    """Where records are published. Raises InputError for those of an installed package,
    which the next installation replaces.
    """
    folder = paths.results()
    if folder == paths.SHIPPED_RESULTS:
        raise InputError(
            "cannot publish into the installed package; name a folder for your own"
            " published records (FGBOOK_RESULTS)."
        )
    files.refuse_unwritable(folder, "published records (FGBOOK_RESULTS)")
    return folder


def publish(record: dict) -> Path:
    """Copy a fresh record, with its predictions, into ``results/`` under a readable
    name; returns the JSON file's path. Raises InputError where it cannot be written.
    """
    folder = publishing_folder()
    if record["purpose"] == "tuning":
        folder /= "tuning"
    folder /= paths.file_name(record["paper"])
    row, dataset, profile = (
        paths.file_name(record[name]) for name in ("row", "dataset", "profile")
    )
    name = f"{row}-{dataset}-{profile}-s{record['seed']}-{record['key']}.json"
    predictions = load_predictions(record) if record["predictions"] else None
    try:
        with publishing():
            # before anything is written: one of them may be damaged
            older = _predecessors(record, folder)
            save(record, predictions, folder / name)
            for path in older:
                path.unlink()
            _remove_leftovers(folder)
    except OSError as error:
        raise InputError(
            f"cannot publish in {folder}: {error.strerror or error}; free some space or"
            " choose another folder (FGBOOK_RESULTS)."
        ) from error
    for path in older:
        warn(f"{name} has taken the place of {path.name}: same row, seed and data.")
    return folder / name


@contextlib.contextmanager
def publishing() -> Iterator[None]:
    """Alone with what is published. The lock lies there and not among the runs: two
    processes may have a folder of runs each and publish in one place.
    """
    folder = paths.results()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".publish.lock"):
        yield


def _remove_leftovers(folder: Path) -> None:
    """Predictions without a record, of one that gave way, or of a process that was
    killed in between. What is not called as ours are is somebody's own.
    """
    for path in folder.glob("*.npz"):
        ours = re.search(r"-s\d+-[0-9a-f]{16}$", path.stem)
        if ours and not path.with_suffix(".json").is_file():
            path.unlink()


def _predecessors(record: dict, folder: Path) -> list[Path]:
    """One generation only: an older version's record of the same row, seed and changes
    gives way. One that saw other pictures of a data set with a name of ours stays, with
    a warning: a person's own copy of that set may differ from the one that all others
    used. A folder is whatever is in it now. Tries have no predecessors.
    """

    def place(of: dict) -> tuple:
        names = ("row", "dataset", "profile", "seed")
        return *(of.get(name) for name in names), changes(of)

    def pictures(of: dict) -> str | None:
        return of.get("data_fingerprint")

    if record["purpose"] != "result":
        return []
    a_folder = record["dataset"].startswith("folder:")
    found = []
    for path in sorted(folder.glob("*.json")):
        other = load(path)
        if other["key"] == record["key"] or place(other) != place(record):
            continue
        if a_folder or pictures(other) == pictures(record):
            found.append(path)
        else:
            warn(
                f"{path.name} is of the same row and seed, but of other pictures of"
                f" {record['dataset']}; it stays, and tables count the pictures that"
                " most records saw. Delete it if yours are to take its place."
            )
    return found


# ---- where and with what it was made


def write_manifest(path: Path, parameters: dict, records: list[dict]) -> None:
    """The resolved parameters of a notebook (papermill keeps the overrides only) and
    the keys of the records it drew from.
    """
    content = {
        "parameters": parameters,
        "records": [record["key"] for record in records],
        "versions": versions(),
        "hardware": hardware(),
        **commit(),
    }
    text = json.dumps(content, indent=1) + "\n"
    # no lock is held: two notebooks at once need a temporary name each
    files.write(path, text.encode(), _instead(path))


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result can depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        # not installed: imported from a folder
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def hardware(device: str = "cpu") -> dict:
    """What the run ran on: processor, cores that this process may use, memory in GiB,
    system, accelerator. No name of the machine.
    """
    import torch

    about = {
        "cpu": _cpu_name(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device,
    }
    if device.startswith("cuda"):
        about["gpu"] = torch.cuda.get_device_name(torch.device(device))
    return about


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_name() -> str:
    if sys.platform.startswith("linux"):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # not every system tells
        return None
    return round(size / 2**30, 1)


def commit() -> dict:
    """``commit`` and ``dirty`` of the clone that the package is imported from; both
    None outside a clone.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(
            ("git", *arguments),
            cwd=paths.REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        # a plain install: an enclosing repository is not ours
        if not (paths.REPOSITORY / ".git").exists():
            return {"commit": None, "dirty": None}
        # Records and prose do not change results: only code counts as dirt.
        return {
            "commit": git("rev-parse", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--", "fgbook")),
        }
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
