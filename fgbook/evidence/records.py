"""Records: what is kept of a finished run. One JSON file, and beside it the prediction
    and confidence for each test image.

A record is a plain dictionary (the fields are listed in the book, "How to reproduce").
Its key is a hash of everything that determines the result, so equal keys mean equal
runs, and a finished run is never repeated. Fresh records lie in
``runs/<key>/record.json``; those that the book prints lie in ``results/`` under
readable names.
"""

import hashlib
import io
import json
import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
from filelock import FileLock

from .. import paths
from ..errors import InputError

FOLDER = "_folder"  # where a loaded record was found; never written to disk
# what all readers use
FIELDS = {
    "key": str,
    "purpose": str,
    "paper": str,
    "row": str,
    "profile": str,
    "dataset": str,
    "seed": int,
    "metrics": dict,
}
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


def key(determinants: dict) -> str:
    """16 hex digits of SHA-256 over the canonical JSON of `determinants`."""
    text = json.dumps(
        determinants, sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to a temporary file in the same folder, flush it to disk, and
    rename it to `path`.

    The temporary name is always the same, so that what a killed process left is used up
    by the next one; of two that may write the same file at once the caller holds a
    lock. Raises InputError naming the path when the disk is full or the folder cannot
    be written; whatever stood there before is intact.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose"
            " another folder (FGBOOK_RUNS)."
        ) from error


def save(record: dict, predictions: dict[str, np.ndarray] | None, path: Path) -> dict:
    """Write a record to `path` (.json) and its predictions beside it (.npz of the same
    stem). The JSON comes last: it makes the record exist."""
    record = {name: value for name, value in record.items() if name != FOLDER}
    record["predictions"] = record["predictions_sha256"] = None
    if predictions is not None:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **predictions)
        record["predictions"], record["predictions_sha256"] = (
            path.with_suffix(".npz").name,
            hashlib.sha256(buffer.getbuffer()).hexdigest(),
        )
        write_atomically(path.with_suffix(".npz"), buffer.getvalue())
    write_atomically(
        path,
        (
            json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
        ).encode(),
    )
    return {**record, FOLDER: str(path.parent)}


def load(path: Path) -> dict:
    """The record in a JSON file. Raises InputError when it is not one."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        for name, kind in FIELDS.items():
            if not isinstance(record[name], kind):
                raise ValueError(f"{name} is {record[name]!r}")
        # it becomes the name of a folder
        if not re.fullmatch("[0-9a-f]{16}", record["key"]):
            raise ValueError(f"key is {record['key']!r}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} is not a record ({type(error).__name__}: {error}); delete it and"
            " run its row again."
        ) from error
    return {**record, FOLDER: str(path.parent)}


def load_predictions(record: dict) -> dict[str, np.ndarray]:
    """``prediction`` (N,) uint16, ``confidence`` (N,) float16 and ``label`` (N,)
    uint16, one entry for each test image in the split's order.

    Newer records also hold ``nll`` (N,) float32, the cross-entropy in nats; those of
    rows measured at low resolution the same again, as ``low_prediction`` and so on; and
    the arrays of a method's or chapter's own measures, by name.
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
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        # older records have none
        if record.get("predictions_sha256", digest) != digest:
            raise ValueError("its checksum is not the record's")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            kept = dict(arrays)
        if missing := {"prediction", "confidence", "label"} - kept.keys():
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        return kept
    # numpy and zipfile raise nearly anything on a damaged file
    except Exception as error:
        said = (
            getattr(error, "strerror", None)
            or str(error).split("\n")[0]
            or type(error).__name__
        )
        raise InputError(
            f"{path} does not hold the predictions of record {record['key']} ({said}); "
            f"delete {path.with_suffix('.json')} and run its row again."
        ) from error


def find(run_key: str) -> dict | None:
    """The record with that key, fresh or published; None if there is none."""
    fresh = paths.runs() / run_key / "record.json"
    for path in (
        [fresh]
        if fresh.is_file()
        else sorted(paths.results().rglob(f"*-{run_key}.json"))
    ):
        record = load(path)
        if record["key"] != run_key:
            raise InputError(
                f"{path} is the record of run {record['key']}, not of {run_key};"
                " delete it."
            )
        return record
    return None


def published(
    paper: str | None = None, profile: str | None = None, purpose: str = "result"
) -> list[dict]:
    """Records in ``results/``: of one paper and profile if named; `purpose` is "result"
    (with test numbers) or "tuning" (validation only)."""
    return select(
        [load(path) for path in sorted(paths.results().rglob("*.json"))],
        paper=paper,
        profile=profile,
        purpose=purpose,
    )


def fresh() -> list[dict]:
    """All records of finished runs in the runs folder, results and tuning."""
    return [load(path) for path in sorted(paths.runs().glob("*/record.json"))]


def select(records: list[dict], **wanted) -> list[dict]:
    """Those whose fields equal the wanted ones (None: any), by seed."""
    chosen = [
        r
        for r in records
        if all(value is None or r.get(name) == value for name, value in wanted.items())
    ]
    return sorted(chosen, key=lambda r: (r["row"], r["dataset"], r["seed"]))


def publish(record: dict) -> Path:
    """Copy a fresh record, with its predictions, into ``results/`` under a readable
    name; returns the JSON file's path."""
    folder = (
        paths.results()
        / ("tuning" if record["purpose"] == "tuning" else "")
        / paths.file_name(record["paper"])
    )
    row, dataset, profile = (
        paths.file_name(record[name]) for name in ("row", "dataset", "profile")
    )
    name = f"{row}-{dataset}-{profile}-s{record['seed']}-{record['key']}.json"
    predictions = load_predictions(record) if record["predictions"] else None
    try:
        (paths.runs() / "locks").mkdir(parents=True, exist_ok=True)
        with FileLock(paths.runs() / "locks" / "publish.lock"):
            save(record, predictions, folder / name)
            # one generation only: an older version's record of the same row and seed
            # gives way
            if record["purpose"] == "result":
                same = ("row", "dataset", "profile", "seed", "overrides")
                for path in folder.glob("*.json"):
                    other = load(path)
                    if other["key"] != record["key"] and all(
                        other.get(field) == record.get(field) for field in same
                    ):
                        path.unlink()
            # of those, and of a process that was killed in between
            for path in folder.glob("*.npz"):
                if not path.with_suffix(".json").is_file():
                    path.unlink()
    except OSError as error:
        raise InputError(
            f"cannot publish in {folder}: {error.strerror or error}; free some space or"
            " choose another folder (FGBOOK_RESULTS)."
        ) from error
    return folder / name


def write_manifest(path: Path, parameters: dict, records: list[dict]) -> None:
    """The resolved parameters of a notebook (papermill keeps the overrides only) and
    the keys of the records it drew from."""
    content = {
        "parameters": parameters,
        "records": [r["key"] for r in records],
        "versions": versions(),
        "hardware": hardware(),
        **commit(),
    }
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result can depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # imported from a folder, not installed
            pass
    return found


def hardware(device: str = "cpu") -> dict:
    """What the run ran on: processor, cores that this process may use, memory, system,
    accelerator. No name of the machine."""
    import torch

    about = {
        "cpu": _cpu_name(),
        "cores": (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count()
        ),
        "threads": torch.get_num_threads(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device,
    }
    if device.startswith("cuda"):
        about["gpu"] = torch.cuda.get_device_name(torch.device(device))
    return about


def _cpu_name() -> str:
    if sys.platform.startswith("linux"):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(
            os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1
        )
    except (ValueError, OSError, AttributeError):
        return None


def commit() -> dict:
    """``commit`` and ``dirty`` of the clone that the package is imported from; both
    None outside a clone."""

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
