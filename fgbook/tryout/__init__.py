"""The page of the book in which networks run in the reader's browser (``book/try.md``).

It needs three files beside its script ``book/_static/try.js``, all of them classic
scripts, because a page that is opened from disk can load nothing else:

============== ======================================================================
``page.js``    what is there at once: drawn birds, names, ranges of the sliders
``networks.js`` the trained networks (:mod:`.graphs`); loaded after a click
``runtime.js`` what runs them (:mod:`.runtime`), with ``ort.js``; loaded after a click
============== ======================================================================

Where the networks or the runtime are not to be had, the page is built all the same: it
keeps its still figures, and a sentence says why.
"""

import base64
import gzip
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..evidence import records
from . import runtime

if TYPE_CHECKING:
    from .graphs import Network

# In book/try.md: the line that becomes the scripts, or the sentence.
MARK = "% here the networks run"
SCRIPTS = (
    '<script src="../_static/try/page.js" defer></script>\n'
    '<script src="../_static/try.js" defer></script>\n'
    "<noscript><p>Scripts are switched off in this browser; the figures below are still"
    " ones.</p></noscript>"
)


def gather(source: Path, build: Path, package: str) -> str:
    """Complete the page in the book's gathered sources: its files go into
    ``book/_static/try``, and the page gets its scripts, or a sentence.

    `build` keeps what takes long for the next time; `package`, a digest of this
    package: made anew when it changes. Returns why the networks cannot run in this copy
    of the book; empty where they can.
    """
    page = source / "book" / "try.md"
    if not page.is_file():  # a book without it
        return ""
    why, text = "", SCRIPTS
    try:
        shutil.copytree(_files(build, package), source / "book" / "_static" / "try")
    except InputError as error:
        why = str(error)
        text = f"In this copy of the book the networks do not run: {why}"
    whole = page.read_text(encoding="utf-8")
    page.write_text(whole.replace(MARK, text), encoding="utf-8")
    return why


def _files(build: Path, package: str) -> Path:
    """The folder with the page's files, made where they are not there yet."""
    from . import graphs

    planned = graphs.planned()
    key = records.key(
        {
            "runs": {name: run.key for name, run in planned.items()},
            "package": package,
            "runtime": runtime.INTEGRITY,
        }
    )
    folder = build / "try"
    if not (folder / key).is_dir():
        networks = graphs.trained(planned)
        ort = runtime.package(build / "vendor")
        shutil.rmtree(folder, ignore_errors=True)  # of other runs
        folder.mkdir(parents=True)
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:
            made = Path(unfinished) / key
            made.mkdir()
            write(made, networks, ort)
            os.replace(made, folder / key)
    return folder / key


def write(folder: Path, networks: "list[Network]", package: Path) -> None:
    """Write the page's files. `package`: onnxruntime-web, as npm packs it."""
    from . import graphs, pictures

    ort = runtime.extracted(package)
    (folder / "ort.js").write_bytes(ort["ort.wasm.min.js"])
    glue = ort["ort-wasm-simd-threaded.mjs"].decode()
    machine = packed(ort["ort-wasm-simd-threaded.wasm"])
    _script(folder / "runtime.js", {"glue": glue, "machine": machine})

    graph = {network.name: packed(network.onnx()) for network in networks}
    _script(folder / "networks.js", {"graphs": graph})

    # Base64 writes three bytes as four characters, which a server packs again.
    characters = len(machine) + sum(map(len, graph.values()))
    recipe = networks[0].recipe
    about = {
        "megabytes": round(characters * 3 / 4 / 1e6),
        "store_size": recipe.store_size,
        "image_size": recipe.image_size,
        "classes": networks[0].classes,
        "sides": graphs.SIDES,
        "birds": pictures.birds(),
    }
    _script(folder / "page.js", about)


def packed(content: bytes) -> str:
    """Compressed with gzip, as base64: equal content, equal text."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def _script(path: Path, values: dict[str, Any]) -> None:
    """Write a script that hands values to the page's own."""
    text = json.dumps(values, ensure_ascii=False)
    path.write_text(
        f"window.fgbookTry = Object.assign(window.fgbookTry || {{}}, {text});\n",
        encoding="utf-8",
    )
