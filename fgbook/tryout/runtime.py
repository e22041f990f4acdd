"""onnxruntime-web, which runs a network in a browser: got from npm while the book is
built, never committed.

This file alone says which version, and what its package must be to the byte. For
another one, `npm view onnxruntime-web@VERSION dist.integrity` prints the second line.
"""

import base64
import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from ..errors import InputError

VERSION = "1.30.0"
INTEGRITY = (
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZC"
    "lzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
NAME = f"onnxruntime-web {VERSION}"
FILE = f"onnxruntime-web-{VERSION}.tgz"
SECONDS = 600  # for npm; the package has 33 MB

# The build for one thread of a processor: a classic script, the module that starts the
# machine, and the machine.
FILES = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


def package(folder: Path) -> Path:
    """The package as npm packs it, checked; got from npm where `folder` does not hold
    it. Raises InputError with the reason where it cannot be had.
    """
    path = folder / FILE
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:
            made = _pack(Path(unfinished))
            _check(made)
            os.replace(made, path)
    _check(path)
    return path


def _pack(folder: Path) -> Path:
    """Have npm put the package into a folder."""
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(f"{NAME} comes from npm, which is not installed here.")
    command = [npm, "pack", f"onnxruntime-web@{VERSION}", "--ignore-scripts"]
    # its cache first; and no waiting where there is no network
    command += ["--prefer-offline", "--fetch-retries=0"]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise InputError(
            f"npm did not give {NAME} within {SECONDS // 60} minutes."
        ) from None
    path = folder / FILE
    if done.returncode or not path.is_file():
        code = re.search(r"\bcode (E\w+)", done.stderr)
        said = code[1] if code else f"exit status {done.returncode}"
        raise InputError(f"npm could not get {NAME} ({said}).")
    return path


def _check(path: Path) -> None:
    """Refuse a package that is not the one named above."""
    kind, expected = INTEGRITY.split("-", 1)
    found = hashlib.new(kind, path.read_bytes()).digest()
    if base64.b64encode(found).decode() != expected:
        raise InputError(
            f"{FILE} is not the package that was expected (its {kind} differs); delete"
            " it where it lies in _build/vendor."
        )


def extracted(package: Path) -> dict[str, bytes]:
    """What the page needs of the package: name -> content."""
    found = {}
    with tarfile.open(package) as archive:
        for name in FILES:
            member = archive.extractfile(f"package/dist/{name}")
            if member is None:
                raise InputError(f"{NAME} has no file {name}.")
            found[name] = member.read()
    return found
