"""The notebooks as they are stored: what readers in Colab, papermill and reviewers rely
on. They are executed in test_book.py.
"""

import ast
import io
import json
import tokenize

import nbformat
import pytest
from papermill import inspect_notebook

from fgbook import paths

NOTEBOOKS = sorted((paths.REPOSITORY / "notebooks").glob("*.ipynb"))
pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
TYPES = {"str": str, "int": int, "float": float, "bool": bool}


def cells(path, kind):
    return [c for c in nbformat.read(path, 4).cells if c.cell_type == kind]


def code(path):
    return cells(path, "code")


def parameters(path):
    tagged = [c for c in code(path) if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1, "exactly one cell is tagged `parameters`"
    return tagged[0].source


def test_it_is_stored_without_outputs(path):
    nbformat.validate(nbformat.read(path, 4))
    for cell in code(path):
        assert not cell.outputs
        assert cell.execution_count is None


def test_cells_have_names_that_last(path):
    """Ids that the editor did not draw: a diff shows what was changed, not what was
    opened.
    """
    stem = path.stem.replace("_", "-")
    ids = [cell["id"] for cell in json.loads(path.read_text())["cells"]]
    assert len(set(ids)) == len(ids)
    for each in ids:
        assert each.startswith(stem)


def test_code_fits_on_a_page(path):
    for cell in code(path):
        for line in cell.source.splitlines():
            assert len(line) <= 88, line


def test_every_parameter_is_one_line_with_its_type_and_a_comment(path):
    source = parameters(path)
    comments = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and len(token.string) > 10:
            comments.add(token.start[0])
    for line in ast.parse(source).body:
        assert isinstance(line, ast.AnnAssign), (
            f"line {line.lineno}: name: type = value"
        )
        assert isinstance(line.annotation, ast.Name), f"line {line.lineno}: no type"
        name = line.target.id
        # papermill takes the comment of the line for the parameter's help
        assert line.lineno == line.end_lineno, f"{name} is spread over lines"
        assert line.lineno in comments, f"{name} has no comment"
        value = ast.literal_eval(line.value)
        assert isinstance(value, TYPES[line.annotation.id]), name


def test_papermill_sees_every_parameter_with_its_type_and_help(path):
    declared = [line.target.id for line in ast.parse(parameters(path)).body]
    seen = inspect_notebook(path)
    assert sorted(seen) == sorted(declared)
    for name, about in seen.items():
        assert about["inferred_type_name"] in TYPES, name
        assert about["help"], name


def test_nothing_happens_outside_colab_in_the_first_cell(path):
    lines = code(path)[0].source.splitlines()
    guard = lines.index('if "google.colab" in sys.modules:')
    for line in lines[:guard]:
        assert not line or line.startswith(("#", "import sys")), line
    for line in lines[guard + 1 :]:
        assert line.startswith("    "), line


def test_the_first_cell_fetches_the_package_and_leaves_torch_alone(path):
    first = code(path)[0].source
    assert f"pip install --quiet git+{paths.address()}" in first
    for line in first.splitlines():
        assert "install" not in line or "torch" not in line, line


def test_no_other_cell_fetches_anything(path):
    for cell in code(path)[1:]:
        assert "pip install" not in cell.source
        assert "git clone" not in cell.source


def test_markdown_is_plain(path):
    """MyST's directives and roles do not render in Colab."""
    for cell in cells(path, "markdown"):
        for sign in ("```{", "{cite}", ":::", "{glue"):
            assert sign not in cell.source


def test_nothing_but_runs_trains(path):
    """A number of the book comes from a run: notebooks never build or fit a model of
    their own.
    """
    for cell in code(path)[1:]:
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("fit", "backward", "build"), cell.source
