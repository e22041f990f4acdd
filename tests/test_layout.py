"""The plan of the house: which folders there are, who imports whom, and what fits on a
page. Read from the sources; nothing of the package is imported."""

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "fgbook"
COLUMNS = 88

# From the ground up: a file imports only from floors below its own, or its own.
FLOORS = [
    "errors",
    "paths",
    "files",
    "recipe",
    "data",
    "images",
    "backbones",
    "methods",
    "training",
    "explain",
    "evaluation",
    "papers",
    "evidence",
    "export",
    "figures",
    "widgets",
    "tryout",
    "reproduce",
    "cli",
]

# A paper is data: it may use nothing but these, wherever its floor is.
OF_PAPERS = {"errors", "recipe", "papers"}

# What answers at once imports no torch at all.
QUICK = ["cli", "papers", "recipe", "evidence.records", "evidence.verdicts"]

# What a notebook waits for: imported by the functions that need it, torch excepted.
WAITED_FOR = "evidence.runs"
HEAVY = {
    "accelerate",
    "captum",
    "matplotlib",
    "pandas",
    "papermill",
    "scipy",
    "seaborn",
    "timm",
    "torchmetrics",
    "torchvision",
    "tqdm",
}


# ---- reading imports


def files() -> dict[str, Path]:
    """Every module of the package by its name below the package; "" is the package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        words = path.relative_to(PACKAGE).with_suffix("").parts
        if words[-1] == "__init__":
            words = words[:-1]
        found[".".join(words)] = path
    return found


FILES = files()


def statements(tree: ast.AST, late: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """The import statements of a module; with `late` also those inside functions and
    those that only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif late or not (is_function(node) or is_for_types(node)):
            yield from statements(node, late)


def is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def absolute(name: str, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """The dotted names that a statement in module `name` may import: of ``from a import
    b`` both a and a.b, because b can be a module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = node.module or ""
    if node.level:
        above = ["fgbook", *name.split(".")] if name else ["fgbook"]
        own_folder = FILES[name].name == "__init__.py"
        up = node.level - 1 if own_folder else node.level
        above = above[: len(above) - up]
        base = ".".join([*above, base]).rstrip(".")
    yield base
    yield from (f"{base}.{alias.name}" for alias in node.names)


@cache
def imports(name: str, late: bool) -> dict[str, int]:
    """Dotted names that a module imports, with the line of the statement."""
    tree = ast.parse(FILES[name].read_text(encoding="utf-8"))
    found: dict[str, int] = {}
    for node in statements(tree, late):
        for target in absolute(name, node):
            found.setdefault(target, node.lineno)
    return found


def floor(name: str) -> str:
    return name.split(".")[0]


def reached(name: str) -> set[str]:
    """All modules of the package that are loaded when `name` is imported."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        module = waiting.pop()
        if module in found or module not in FILES:
            continue
        found.add(module)
        # importing a.b runs a as well
        waiting += [module.rpartition(".")[0]]
        waiting += [
            target.removeprefix("fgbook").removeprefix(".")
            for target in imports(module, late=False)
            if floor(target) == "fgbook"
        ]
    return found


# ---- who imports whom


def test_every_file_stands_on_a_floor():
    outside = {"", "__main__"}
    assert {floor(name) for name in FILES} - outside == set(FLOORS)


@pytest.mark.parametrize("name", [name for name in FILES if floor(name) in FLOORS])
def test_imports_run_one_way(name):
    own = FLOORS.index(floor(name))
    upwards = [
        f"line {line}: {target}"
        for target, line in imports(name, late=True).items()
        if target.startswith("fgbook.")
        and target.split(".")[1] in FLOORS
        and FLOORS.index(target.split(".")[1]) > own
    ]
    assert not upwards, f"{FILES[name]} imports from a floor above its own"


@pytest.mark.parametrize("name", [name for name in FILES if floor(name) == "papers"])
def test_papers_are_data(name):
    used = {
        target.split(".")[1]
        for target in imports(name, late=True)
        if target.startswith("fgbook.")
    }
    assert used <= OF_PAPERS


@pytest.mark.parametrize("name", QUICK)
def test_what_answers_at_once_does_not_load_torch(name):
    start = [module for module in FILES if f"{module}.".startswith(f"{name}.")]
    loaded = {module for first in start for module in reached(first)}
    assert not loads(loaded, HEAVY | {"torch", "safetensors"})


def test_what_a_notebook_waits_for_loads_nothing_heavy_but_torch():
    assert not loads(reached(WAITED_FOR), HEAVY)


def loads(modules: set[str], heavy: set[str]) -> list[str]:
    """Where these modules import something heavy while they are loaded."""
    return [
        f"{FILES[module].relative_to(ROOT)}:{line} {target}"
        for module in sorted(modules)
        for target, line in imports(module, late=False).items()
        if floor(target) in heavy
    ]


def test_the_reader_of_imports_sees_them_all(tmp_path, monkeypatch):
    """Relative and absolute ones, of modules and of names, early and late."""
    (tmp_path / "module.py").write_text(
        "import torch.nn\n"
        "from . import beside\n"
        "from ..data import fetch\n"
        "if TYPE_CHECKING:\n    from .. import papers\n"
        "try:\n    import timm\nexcept ImportError:\n    pass\n"
        "def function():\n    from fgbook.cli import main\n"
    )
    monkeypatch.setitem(FILES, "methods.module", tmp_path / "module.py")
    early = {
        "torch.nn": 1,
        "fgbook.methods": 2,
        "fgbook.methods.beside": 2,
        "fgbook.data": 3,
        "fgbook.data.fetch": 3,
        "timm": 7,
    }
    late = {
        "fgbook": 5,
        "fgbook.papers": 5,
        "fgbook.cli": 11,
        "fgbook.cli.main": 11,
    }
    assert imports.__wrapped__("methods.module", late=False) == early
    assert imports.__wrapped__("methods.module", late=True) == early | late


# ---- the listing


def test_the_listing_is_the_one_that_the_book_shows():
    page = (ROOT / "book" / "developing.md").read_text(encoding="utf-8")
    table = page.split("## Plan")[1].split("\n## ")[0]
    shown = re.findall(r"^\| `([\w/.]+)` \|", table, flags=re.M)
    there = {path.name: path for path in PACKAGE.iterdir()}
    listed = [f"{name}/" if name in there else f"{name}.py" for name in FLOORS]
    assert shown == listed


def test_tests_stand_in_the_folders_of_the_package():
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    folders -= {"__pycache__"}
    # what is no package of ours: pages, rules for engines, and how all is handed out
    assert folders <= {*FLOORS, "book", "browser", "workflow", "publishing"}


# ---- what fits on a page


def pages() -> Iterator[tuple[str, str]]:
    """Name and text of everything that is read as code."""
    for folder in ("fgbook", "tests", "benchmarks", "book"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for number, cell in enumerate(cells, 1):
            if cell["cell_type"] == "code":
                where = f"{path.relative_to(ROOT)} cell {number}"
                yield where, "".join(cell["source"])


def test_no_line_is_wider_than_a_page():
    wide = [
        f"{name}:{number} ({len(line)})"
        for name, text in pages()
        for number, line in enumerate(text.splitlines(), 1)
        if len(line) > COLUMNS
    ]
    assert not wide


MARK = re.compile(r"^# fmt: (skip|off|on)\b")


def unformatted(text: str) -> list[tuple[int, int]]:
    """First and last line of each part that the formatter is told to leave alone."""
    parts = []
    opened = None
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        mark = MARK.match(token.string)
        if token.type != tokenize.COMMENT or mark is None:
            continue
        number = token.start[0]
        if mark[1] == "skip":
            parts.append((number, number))
        elif mark[1] == "off":
            opened = number
        elif opened is not None:
            parts.append((opened, number))
            opened = None
    if opened is not None:
        parts.append((opened, len(text.splitlines())))
    return parts


def is_table(node: ast.stmt) -> bool:
    """Whether a statement gives a name to a literal of several entries."""
    literals = ast.Tuple | ast.List | ast.Dict | ast.Set
    return (
        isinstance(node, ast.Assign | ast.AnnAssign)
        and node.value is not None
        and any(isinstance(part, literals) for part in ast.walk(node.value))
    )


def test_only_tables_of_data_keep_a_layout_of_their_own():
    odd = []
    for name, text in pages():
        for first, last in unformatted(text):
            tree = ast.parse(text)
            inside = [
                node
                for node in ast.walk(tree)
                if isinstance(node, ast.stmt)
                and node.lineno <= last
                and (node.end_lineno or node.lineno) >= first
                # a class or function around the table is not meant
                and not hasattr(node, "body")
            ]
            if not inside or not all(is_table(node) for node in inside):
                odd.append(f"{name}:{first}")
    assert not odd, "the formatter is switched off for something that is no table"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a = 1\n", []),
        ("a = 1  # fmt: skip\n", [(1, 1)]),
        ("# fmt: off\na = (1,\n     2)\n# fmt: on\nb = 1\n", [(1, 4)]),
        ("a = '# fmt: off'\n", []),
        ("a = 1\n# fmt: off\nb   = 2\n", [(2, 3)]),
    ],
    ids=["none", "skip", "off and on", "in a string", "never on again"],
)
def test_the_reader_of_marks_sees_them_all(text, parts):
    assert unformatted(text) == parts
