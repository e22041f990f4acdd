"""The reference: every public name of the package with its docstring, read from the
sources while the book is built. Nothing is imported. In a page

    ```{reference} methods
    ```

stands for all modules below ``fgbook/methods``. Docstrings of this package are prose
and not reStructuredText: paragraphs, lists, options by name, indented code, names in
backticks, and references such as ``:func:`load```. Below each piece of code that a page
quotes stands a link to its entry.
"""

import ast
import copy
import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.directives.code import LiteralInclude
from sphinx.util.docutils import SphinxDirective

Definition = ast.FunctionDef | ast.ClassDef

# A reference, or code; what stands between is text.
INLINE = re.compile(r":\w+:`([^`]+)`|``([^`]+)``|`([^`]+)`")
BULLET = re.compile(r"([*-]|\d+\.) ")
OPTION = re.compile(r"(\w+(?:, \w+)*): ")
CODE = " " * 4
RULE = "==="  # above and below a table, which stays as it is


# ---- modules, and what their names mean


@dataclass(frozen=True)
class Module:
    """A file of the package. Its name has dots; `names` holds what is imported in it,
    each with its full name.
    """

    name: str
    path: Path
    tree: ast.Module
    names: dict[str, str]

    def defined(self) -> dict[str, Definition]:
        """Its public functions and classes by name."""
        return public(self.tree.body)


def public(body: Iterable[ast.stmt]) -> dict[str, Definition]:
    """The functions and classes among statements that are for others to use."""
    found = {}
    for node in body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            found[node.name] = node
    return found


@lru_cache
def package(top: Path) -> dict[str, Module]:
    """All modules below the folder of the package, by name."""
    found = {}
    for path in sorted(top.rglob("*.py")):
        words = path.relative_to(top.parent).with_suffix("").parts
        if words[-1] == "__init__":
            words = words[:-1]
        elif words[-1].startswith("_"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        name = ".".join(words)
        found[name] = Module(name, path, tree, imported(name, path, tree))
    return found


def imported(name: str, path: Path, tree: ast.Module) -> dict[str, str]:
    """The names that a module gets from the package by relative imports."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            inside = path.name == "__init__.py"
            words = name.split(".")
            above = words[: len(words) - node.level + inside]
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                found[alias.asname or alias.name] = f"{base}.{alias.name}"
    return found


def meant(said: str, module: Module, inside: str, known: dict[str, Module]) -> str:
    """The full name of what a docstring in `module` (of the class `inside`, or "")
    refers to; "" where the reference has no entry for it.
    """
    name = re.sub(r"\s+", "", said).removeprefix("~")
    if name.startswith("."):
        is_package = module.path.name == "__init__.py"
        around = module.name if is_package else module.name.rpartition(".")[0]
        return entry(around + name, known)
    first, _, rest = name.partition(".")
    candidates = [name, f"{module.name}.{name}"]
    if inside:
        candidates.append(f"{module.name}.{inside}.{name}")
    if first in module.names:
        candidates.append(".".join(filter(None, [module.names[first], rest])))
    for candidate in candidates:
        found = entry(candidate, known)
        if found:
            return found
    return ""


def entry(name: str, known: dict[str, Module]) -> str:
    """The full name of the entry in which something stands, wherever it is imported
    from; "" where the reference has none.
    """
    if name in known:
        return name
    before, _, last = name.rpartition(".")
    if before in known:
        module = known[before]
        if last in module.defined() or last in constants(module):
            return name
        if last in module.names:
            return entry(module.names[last], known)
        # a value without words of its own stands with its module
        return before if last in map(assigned, module.tree.body) else ""
    around, _, cls = before.rpartition(".")
    if around in known and cls in known[around].defined():
        body = known[around].defined()[cls].body
        if last in public(body):
            return name
        # a field stands with its class
        return before if last in map(assigned, body) else ""
    return ""


def constants(module: Module) -> dict[str, str]:
    """Public names of a module that are given a value and a docstring -> that."""
    found = {}
    body = module.tree.body
    for node, below in pairwise(body):
        name = assigned(node)
        value = below.value if isinstance(below, ast.Expr) else None
        is_text = isinstance(value, ast.Constant) and isinstance(value.value, str)
        if name and not name.startswith("_") and is_text:
            found[name] = textwrap.dedent("    " + value.value).strip()
    return found


def assigned(node: ast.stmt) -> str:
    """The one name that a statement gives a value, or ""."""
    target = None
    if isinstance(node, ast.AnnAssign):
        target = node.target
    elif isinstance(node, ast.Assign) and len(node.targets) == 1:
        target = node.targets[0]
    return target.id if isinstance(target, ast.Name) else ""


# ---- docstrings


class Writer:
    """Turns docstrings of one module into what Sphinx writes; `inside`: the class whose
    they are, `names`: options that may be explained in them.
    """

    def __init__(
        self,
        module: Module,
        known: dict[str, Module],
        inside: str = "",
        names: Iterable[str] = (),
    ) -> None:
        self.module, self.known = module, known
        self.inside, self.names = inside, set(names)

    def all(self, text: str) -> list[nodes.Element]:
        """A whole docstring."""
        found: list[nodes.Element] = []
        for block in filter(None, re.split(r"\n[ ]*\n", text.strip("\n"))):
            lines = block.splitlines()
            if lines[0].startswith(RULE) or all(x.startswith(CODE) for x in lines):
                code = textwrap.dedent(block)
                if found and isinstance(found[-1], nodes.literal_block):
                    code = f"{found.pop().astext()}\n\n{code}"
                found.append(nodes.literal_block(code, code, language=language(code)))
            else:
                found += self.prose(lines)
        return found

    def prose(self, lines: list[str]) -> Iterator[nodes.Element]:
        """Paragraphs and lists that follow each other without a blank line."""
        items: nodes.bullet_list | None = None
        for is_item, text in self.parts(lines):
            if not is_item:
                if items is not None:
                    yield items
                items = None
                yield paragraph(self.inline(text))
                continue
            items = nodes.bullet_list() if items is None else items
            items += nodes.list_item("", paragraph(self.item(text)))
        if items is not None:
            yield items

    def parts(self, lines: list[str]) -> Iterator[tuple[bool, str]]:
        """Whether it is an item of a list, and text, of each part of a block."""
        part: list[str] = []
        of_list = False
        for line in lines:
            begins = bool(BULLET.match(line)) or self.explains(line)
            # an item goes on in an indented line, or in the middle of a sentence
            ends = of_list and not line.startswith(" ") and part[-1].endswith(".")
            if part and (begins or ends):
                yield of_list, " ".join(part)
                part = []
            if not part:
                of_list = begins
            part.append(line.strip())
        if part:
            yield of_list, " ".join(part)

    def explains(self, line: str) -> bool:
        """Whether a line begins to explain options: "m, l: regions proposed"."""
        found = OPTION.match(line)
        return bool(found) and set(found[1].split(", ")) <= self.names

    def item(self, text: str) -> Iterator[nodes.Node]:
        """The content of an item: the names of options as code."""
        if not BULLET.match(text):
            names, _, text = text.partition(": ")
            for place, name in enumerate(names.split(", ")):
                yield nodes.Text(", " if place else "")
                yield nodes.literal(name, name)
            text = f": {text}"
        yield from self.inline(BULLET.sub("", text, count=1))

    def inline(self, text: str) -> Iterator[nodes.Node]:
        """A text with its references and its code."""
        place = 0
        for found in INLINE.finditer(text):
            yield nodes.Text(text[place : found.start()])
            place = found.end()
            if found[1]:
                target = meant(found[1], self.module, self.inside, self.known)
                yield link(found[1].strip(".~"), target)
            else:
                code = found[2] or found[3]
                yield nodes.literal(code, code)
        yield nodes.Text(text[place:])


def paragraph(content: Iterable[nodes.Node]) -> nodes.paragraph:
    """Whose quotes stay as they are: what they hold is often an option's value."""
    return nodes.paragraph("", "", *content, support_smartquotes=False)


def language(code: str) -> str:
    """Whose colours a block gets: Python's where it is Python, else none."""
    try:
        ast.parse(code)
    except SyntaxError:
        return "none"
    return "python"


def link(text: str, target: str) -> nodes.Element:
    """Code that leads to the entry of `target`, where there is one."""
    code = nodes.literal(text, text)
    if not target:
        return code
    return addnodes.pending_xref(
        "", code, refdomain="py", reftype="obj", reftarget=target, refexplicit=True
    )


# ---- entries


class Reference(SphinxDirective):
    """The modules of rooms of the package, or single files, by name."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """A section for each module; what a package says of itself comes first."""
        self.known = package(Path(self.env.srcdir) / "fgbook")
        found: list[nodes.Node] = []
        for room in self.arguments[0].split():
            name = f"fgbook.{room}"
            if name not in self.known:
                raise self.error(f"there is no {name} to write a reference of")
            for module in self.known.values():
                if f"{module.name}.".startswith(f"{name}."):
                    self.env.note_dependency(str(module.path))
                    found.append(self.of_module(module))
        return found

    def of_module(self, module: Module) -> nodes.section:
        """Its docstring, and an entry for each of its names."""
        title = module.name.removeprefix("fgbook.")
        made = nodes.section("", nodes.title(title, title), ids=[module.name])
        python = self.env.get_domain("py")
        python.note_object(module.name, "module", module.name, location=made)
        python.note_module(module.name, module.name, "", "", False)
        writer = Writer(module, self.known)
        made += writer.all(ast.get_docstring(module.tree) or "")
        made += self.source(module)
        for name, text in constants(module).items():
            content = writer.all(text)
            made += self.described(f"{module.name}.{name}", "data", name, content)
        for name, node in module.defined().items():
            made += self.of_definition(module, f"{module.name}.{name}", node)
        return made

    def source(self, module: Module) -> nodes.paragraph:
        """A link to the file."""
        options = self.config.html_theme_options
        top = f"{options['repository_url']}/blob/{options['repository_branch']}"
        path = module.path.relative_to(self.env.srcdir).as_posix()
        there = nodes.reference(path, path, refuri=f"{top}/{path}")
        return nodes.paragraph("", "", there, classes=["fgbook-source-of"])

    def of_definition(
        self, module: Module, name: str, node: Definition, inside: str = ""
    ) -> addnodes.desc:
        """A function; or a class with its fields and its methods."""
        is_class = isinstance(node, ast.ClassDef)
        names = options(node)
        writer = Writer(module, self.known, node.name if is_class else inside, names)
        content = writer.all(ast.get_docstring(node) or "")
        if is_class:
            content += fields(node, module.path)
            for each, method in public(node.body).items():
                entry_of_it = f"{name}.{each}"
                content.append(
                    self.of_definition(module, entry_of_it, method, node.name)
                )
        kind = "class" if is_class else "method" if inside else "function"
        return self.described(name, kind, signature(node), content)

    def described(
        self, name: str, kind: str, said: str, content: list[nodes.Element]
    ) -> addnodes.desc:
        """One entry: what is written to use it, and what is said of it."""
        head = addnodes.desc_signature(said, "", ids=[name])
        before, rest = said, ""
        if "(" in said:
            before, opened, rest = said.partition("(")
            rest = opened + rest
        kept = f"{kind} " if kind == "class" else ""
        head += addnodes.desc_annotation(kept, kept)
        head += addnodes.desc_name(before, before)
        head += nodes.inline(rest, rest)
        python = self.env.get_domain("py")
        python.note_object(name, kind, name, location=head)
        made = addnodes.desc("", head, domain="py", objtype=kind, desctype=kind)
        made["classes"] += ["py", kind]
        made += addnodes.desc_content("", *content)
        return made


def options(node: Definition) -> list[str]:
    """The names that a definition's docstring may explain: parameters and fields."""
    if isinstance(node, ast.FunctionDef):
        given = node.args
        every = [*given.posonlyargs, *given.args, *given.kwonlyargs]
        return [each.arg for each in every]
    found = [assigned(each) for each in node.body if assigned(each)]
    for each in node.body:
        if isinstance(each, ast.FunctionDef):
            found.append(each.name)
            found += options(each) if each.name == "__init__" else []
    return found


def signature(node: Definition) -> str:
    """As it stands in the source, in a line, without ``self``."""
    if isinstance(node, ast.ClassDef):
        made = [each for each in node.body if getattr(each, "name", "") == "__init__"]
        return f"{node.name}({parameters(made[0])})" if made else node.name
    decorators = [ast.unparse(each) for each in node.decorator_list]
    gives = f" -> {unquoted(node.returns)}" if node.returns else ""
    if "property" in decorators:
        return f"{node.name}{gives}"
    return f"{node.name}({parameters(node)}){gives}"


def parameters(node: ast.FunctionDef) -> str:
    """Of a function, in a line."""
    given = copy.deepcopy(node.args)
    if given.args and given.args[0].arg in ("self", "cls"):
        given.args = given.args[1:]
    for each in [*given.posonlyargs, *given.args, *given.kwonlyargs]:
        if each.annotation is not None:
            each.annotation = ast.Name(unquoted(each.annotation))
    return ast.unparse(given)


def unquoted(annotation: ast.expr) -> str:
    """A type without the quotes that keep its module from being imported early."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return annotation.value
    return ast.unparse(annotation)


def fields(node: ast.ClassDef, path: Path) -> list[nodes.Element]:
    """The fields of a class as its source has them, with their comments."""
    typed = []
    for each in node.body:
        if isinstance(each, ast.FunctionDef):
            break
        if isinstance(each, ast.AnnAssign):
            typed.append(each)
    if not typed:
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    first, last = typed[0].lineno, typed[-1].end_lineno
    while lines[first - 2].strip().startswith("#"):  # what is said above the first
        first -= 1
    code = textwrap.dedent("\n".join(lines[first - 1 : last]))
    return [nodes.literal_block(code, code, language="python")]


# ---- code that pages quote


class Quoted(LiteralInclude):
    """``literalinclude``, with a link to the entry of what is quoted."""

    def run(self) -> list[nodes.Node]:
        """The code, and the link below it."""
        found = super().run()
        path, name = self.arguments[0], self.options.get("pyobject", "")
        if "fgbook/" not in path:
            return found
        words = path.partition("fgbook/")[2].removesuffix(".py").split("/")
        module = ".".join(["fgbook", *[word for word in words if word != "__init__"]])
        known = package(Path(self.env.srcdir) / "fgbook")
        target = entry(f"{module}.{name}" if name else module, known)
        while name and not target:  # of a private method its class, or its module
            name = name.rpartition(".")[0]
            target = entry(f"{module}.{name}" if name else module, known)
        text = target.removeprefix("fgbook.")
        said = [nodes.Text("In the reference: "), link(text, target)]
        return [*found, nodes.paragraph("", "", *said, classes=["fgbook-quoted"])]


def setup(app: Sphinx) -> dict[str, bool]:
    """Both directives."""
    app.add_directive("reference", Reference)
    app.add_directive("literalinclude", Quoted, override=True)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
