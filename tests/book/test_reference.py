"""The reference that is made from docstrings: every module is on one page, every
reference within a docstring leads somewhere, and each form that docstrings of this
package have comes out as what it is.
"""

import html
import importlib.util
import re
import subprocess
import sys

import pytest

from fgbook import paths

ROOT = paths.REPOSITORY
EXTENSION = ROOT / "book" / "_ext" / "reference.py"
pytest.importorskip("sphinx")


@pytest.fixture(scope="module")
def reference():
    """The extension, as a module."""
    spec = importlib.util.spec_from_file_location("reference", EXTENSION)
    module = importlib.util.module_from_spec(spec)
    sys.modules["reference"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["reference"]


# ---- this package


def test_every_module_is_on_exactly_one_page(reference):
    shown = []
    known = reference.package(ROOT / "fgbook")
    for page in sorted((ROOT / "book" / "api").glob("*.md")):
        for words in re.findall(r"```\{reference\} (.*)", page.read_text("utf-8")):
            for room in words.split():
                whole = f"fgbook.{room}."
                shown += [name for name in known if f"{name}.".startswith(whole)]
    assert sorted(shown) == sorted(set(known) - {"fgbook"})


def referred(reference):
    """Module, class ("": none) and text of every reference in a docstring."""
    ast = reference.ast
    for module in reference.package(ROOT / "fgbook").values():
        texts = [("", ast.get_docstring(module.tree) or "")]
        texts += [("", text) for text in reference.constants(module).values()]
        for node in module.tree.body:
            if isinstance(node, reference.Definition):
                inside = node.name if isinstance(node, ast.ClassDef) else ""
                for each in ast.walk(node):
                    if isinstance(each, reference.Definition):
                        texts.append((inside, ast.get_docstring(each) or ""))
        for inside, text in texts:
            for target in re.findall(r":\w+:`([^`]+)`", text):
                yield module, inside, target


def test_every_reference_in_a_docstring_leads_to_an_entry(reference):
    known = reference.package(ROOT / "fgbook")
    seen, lost = 0, []
    for module, inside, target in referred(reference):
        seen += 1
        is_private = target.split(".")[-1].startswith("_")
        if not is_private and not reference.meant(target, module, inside, known):
            lost.append(f"{module.name} {inside}: {target}")
    assert seen > 80
    assert not lost


# ---- a package of a few lines, built

SMALL = {
    "fgbook/__init__.py": "",
    "fgbook/room/__init__.py": '"""A room. See :mod:`.tools`."""\n',
    "fgbook/room/tools.py": '''"""What is here.

    tools.cut(images, 3)
    # {"a": (B, 3)}

    second = 2

* one thing
  that goes on, and ``code``
* another, a "word", a<b and *stars*, under_scores_
1. see :func:`cut`
"""

from dataclasses import dataclass

from ..ground import Error

HEADS = ("a", "b")
"""Their names; raised is :class:`Error`."""

UNSAID = 1


@dataclass
class Box:
    """A box.

    left, top: in pixels, of the
        image.
    name: a word that goes on
    without an indent.
    """

    # what is above the first
    left: float  # pixels
    top: float = 0.0

    def wide(self, by: "Error | None" = None) -> "Box":
        """Made wider; see :meth:`wide` and :func:`cut`."""

    @property
    def area(self) -> float:
        """In pixels."""

    def _own(self):
        """Not for others."""


def cut(images: list[int], side: int = 3, *, way: str = "a") -> int:
    """Cut.

    way: "a" or "b". not_an_option: stays text.
    other: is no parameter.
    """


def _hidden():
    """Not for others."""
''',
    "fgbook/ground.py": 'class Error(Exception):\n    """Wrong."""\n',
    "index.md": "# Small\n\n```{reference} room ground\n```\n\n"
    "```{literalinclude} fgbook/room/tools.py\n:pyobject: Box._own\n```\n",
    "conf.py": 'import sys\nsys.path.insert(0, "EXT")\n'
    'extensions = ["myst_parser", "reference"]\n'
    'html_theme = "sphinx_book_theme"\nproject = "small"\n',
}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of it, built as strictly as the book."""
    where = tmp_path_factory.mktemp("small")
    for name, text in SMALL.items():
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        text = text.replace("EXT", str(EXTENSION.parent))
        (where / name).write_text(text, encoding="utf-8")
    words = [sys.executable, "-m", "sphinx", "-W", "-n", "-q", "--keep-going"]
    words += ["-D", "html_theme_options.repository_url=https://github.com/a/b"]
    words += ["-D", "html_theme_options.repository_branch=main"]
    done = subprocess.run(
        [*words, where, where / "out"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return (where / "out" / "index.html").read_text(encoding="utf-8")


def plain(text: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", text)).split())


def test_public_names_have_entries_and_others_none(page):
    ids = set(re.findall(r' id="(fgbook\.[\w.]+)"', page))
    assert ids == {
        "fgbook.room",
        "fgbook.room.tools",
        "fgbook.room.tools.HEADS",
        "fgbook.room.tools.Box",
        "fgbook.room.tools.Box.wide",
        "fgbook.room.tools.Box.area",
        "fgbook.room.tools.cut",
        "fgbook.ground",
        "fgbook.ground.Error",
    }


def test_references_lead_to_their_entries(page):
    targets = re.findall(r'href="#(fgbook[\w.]+)" title', page)
    expected = ["room.tools", "room.tools.cut", "ground.Error", "room.tools.Box.wide"]
    assert {f"fgbook.{name}" for name in expected} <= set(targets)


def test_indented_code_stays_as_it_is_in_one_block(page):
    (code,) = re.findall(r"<pre>.*?second.*?</pre>", page, flags=re.S)
    assert plain(code) == 'tools.cut(images, 3) # {"a": (B, 3)} second = 2'


def test_lists_are_lists_and_signs_stay_signs(page):
    items = [plain(item) for item in re.findall(r"<li>(.*?)</li>", page, flags=re.S)]
    assert "one thing that goes on, and code" in items
    assert 'another, a "word", a<b and *stars*, under_scores_' in items


def test_options_are_a_list_with_their_names_as_code(page):
    items = [plain(item) for item in re.findall(r"<li>(.*?)</li>", page, flags=re.S)]
    assert "left, top: in pixels, of the image." in items
    assert "name: a word that goes on" not in items
    assert re.search(r"<code[^>]*>.*?left.*?</code>, <code", page, flags=re.S)
    assert "other: is no parameter." in plain(page)
    assert "other: is no parameter." not in items


def test_fields_come_with_their_comments(page):
    assert "# what is above the first left: float # pixels top: float = 0.0" in plain(
        page
    )


def test_signatures_are_those_of_the_source(page):
    heads = [plain(head) for head in re.findall(r"<dt.*?</dt>", page, flags=re.S)]
    heads = [head.rstrip("#¶") for head in heads]  # the link to the entry itself
    assert "wide(by: Error | None=None) -> Box" in heads
    assert "area -> float" in heads
    assert "class Error" in heads
    assert "cut(images: list[int], side: int=3, *, way: str='a') -> int" in heads


def test_a_quoted_private_method_leads_to_its_class(page):
    (quoted,) = re.findall(r'<p class="fgbook-quoted">.*?</p>', page, flags=re.S)
    assert 'href="#fgbook.room.tools.Box"' in quoted


def test_each_module_names_its_file(page):
    assert "https://github.com/a/b/blob/main/fgbook/room/tools.py" in page
