"""Names, help texts and refusals: what is said without anything being computed."""

import inspect
import shlex

import click
import pytest

from commandline import fgbook, python, refused
from fgbook import cli
from fgbook.cli.common import WIDTH

# ---- help


def commands() -> list[list[str]]:
    """The words of every command and group; none: the command itself."""
    found: list[list[str]] = [[]]
    for name, command in cli.cli.commands.items():
        found.append([name])
        found += [[name, inner] for inner in getattr(command, "commands", {})]
    return found


def command_of(words: list[str]) -> click.Command:
    """The command that the first words of a line name."""
    found: click.Command = cli.cli
    for word in words:
        if not isinstance(found, click.Group):
            break
        found = found.commands[word]
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_has_help_no_wider_than_a_page(words):
    result = fgbook(*words, "--help", env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert max(len(line) for line in result.output.splitlines()) <= WIDTH


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_example_in_a_help_text_is_understood(words):
    """Names, options and the number of arguments; what is named need not be here."""
    lines = inspect.cleandoc(command_of(words).epilog or "").splitlines()
    examples = [line.strip() for line in lines if "fgbook " in line]
    assert examples, "no example"
    for example in examples:
        if example.startswith("fgbook "):
            given = shlex.split(example.split(" && ")[0].split(" > ")[0])[1:]
            # a remark stands behind some spaces
            parsed = (
                shlex.split(example.split("   ")[0])[1:] if "   " in example else given
            )
            understood(parsed)


def understood(words: list[str]) -> None:
    """Raises click's UsageError for words that a command does not take."""
    command = command_of(words)
    depth = 1 if command.name in cli.cli.commands else 2
    command.make_context("fgbook", words[depth:])


def test_help_and_wrong_names_answer_without_heavy_imports():
    done = python(
        """
import sys
from click.testing import CliRunner
from fgbook.cli import cli
for line in (
    "--help",
    "run --help",
    "runn",
    "run fengg",
    "run feng --row hybird",
    "run feng --set epoch=1",
    "results",
    "results --verdicts",
    "data list",
    "doctor",
):
    CliRunner().invoke(cli, line.split())
    heavy = {"torch", "pandas", "papermill", "matplotlib"} & set(sys.modules)
    print(line, *sorted(heavy), sep=" | ")
"""
    )
    assert "doctor" in done.stdout, done.stderr
    assert "|" not in done.stdout


# ---- refusals


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("runn", ["unknown command 'runn'", "'run'"]),
        ("data lst", ["unknown command 'lst'", "'list'"]),
        ("run fengg", ["unknown paper 'fengg'", "'feng'"]),
        ("tune fengg", ["unknown paper 'fengg'", "'feng'"]),
        ("results fengg", ["unknown paper 'fengg'", "'feng'"]),
        ("run feng --row hybird", ["unknown row", "'hybrid'"]),
        ("run feng --profile quik", ["unknown profile 'quik'", "'quick'"]),
        (
            "run feng --set weights=none --dataset fieldgide",
            ["unknown data set 'fieldgide'", "'fieldguide'"],
        ),
        ("run feng --device cudaa", ["device 'cudaa'", "cpu"]),
        ("run feng --seeds 2 --seed 1", ["--seeds", "--seed", "exclude"]),
        ("run feng --set epoch=1", ["unknown recipe field 'epoch'", "'epochs'"]),
        ("run feng --set epochs", ["no '='", "--set epochs=12"]),
        ("run feng --set epochs=two", ["epochs must be of type int", "'two'"]),
        ("run feng --set flip=perhaps", ["flip must be of type bool"]),
        ("run feng --set epochs=0", ["epochs is 0"]),
        ("run feng --set clip_norm=-1", ["clip_norm is -1.0"]),
        ("run feng --set lr=nan", ["lr is nan", "finite"]),
        ("run feng --set lr=1 --set lr=2", ["lr two values", "'1'", "'2'"]),
        ("run feng --dataset cub --dataset cub50", ["cub and cub50"]),
        ("run feng --row hybrid --option m", ["no '='", "--option m=4"]),
        ("run feng --row hybrid --option n=4", ["option", "'n'", "m"]),
        ("run feng --row hybrid --option m=many", ["m", "'many'"]),
        ("run feng --row plain --option m=4", ["plain", "'m'"]),
        (
            "run feng --row plain --set backbone=resnet51",
            ["unknown backbone 'resnet51'", "'resnet50'"],
        ),
        ("tune feng --row plain --profile quik", ["'quik'"]),
        ("tune feng", ["no tuning for profile 'quick'", "photo"]),
        ("tune feng --row plain", ["no tuning for profile 'quick'", "photo"]),
        ("tune feng --row hybird --profile photo", ["did you mean 'hybrid'"]),
        ("reproduce -p seeds 1 -p seeds 2", ["seeds two values", "'1'", "'2'"]),
        ("data check cubb", ["unknown data set 'cubb'", "'cub'"]),
        ("data path cubb", ["unknown data set 'cubb'", "'cub'"]),
        ("data check cub", ["cub is not in", "https:"]),
        ("data get airkraft", ["did you mean 'aircraft'"]),
        ("run feng --profile photo", ["is not in", "https:"]),
        ("predict missing.jpg --run 3f", ["missing.jpg: there is no such file"]),
    ],
)
def test_wrong_input_gets_one_sentence(line, parts):
    refused(fgbook(*line.split()), *parts)


def test_without_jupyter_only_notebook_commands_are_refused():
    """As after `pip install fgbook`, without the extra."""
    done = python(
        """
import importlib.util, sys
find = importlib.util.find_spec
MISSING = ("papermill", "ipykernel", "jupyter_book")
UNDERNEATH = ("nbformat", "IPython", "ipywidgets")

def find_spec(name, *rest):
    return None if name in MISSING else find(name, *rest)

class Hidden:
    def find_spec(self, name, *rest):
        if name.split(".")[0] in MISSING + UNDERNEATH:
            raise ModuleNotFoundError(name)

importlib.util.find_spec = find_spec
sys.meta_path.insert(0, Hidden())
from click.testing import CliRunner
from fgbook.cli import cli
for words in (["reproduce"], ["book"], ["data", "list"], ["doctor"], ["results"]):
    result = CliRunner().invoke(cli, words)
    print(result.exit_code, result.stderr.strip())
"""
    )
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["2", "2", "0", "0", "0"]
    for line in lines[:2]:
        assert 'pip install "fgbook[book]"' in line
