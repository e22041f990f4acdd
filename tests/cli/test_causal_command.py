"""`fgbook causal`: one trained model, judged by experiment."""

import pytest

import samples
from commandline import fgbook, refused
from fgbook.errors import InputError
from fgbook.evidence import causes, runs

SMALL = {"image_size": 40, "store_size": 44, "epochs": 1, "fraction": 0.2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a network that has seen a few drawn birds."""
    top = tmp_path_factory.mktemp("causal")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FGBOOK_RUNS", str(top))
        run = runs.resolve("feng", "plain", "quick", overrides=SMALL)
        runs.execute(run, device="cpu", progress=False)
        yield str(run.folder)


def test_both_tables_are_printed(folder):
    result = fgbook("causal", "--run", folder, "--scenes", "6")
    assert result.exit_code == 0, result.output
    assert "6 scenes, 1 training a network" in result.output
    for word in ("follows the telling attribute", "more than the bird"):
        assert word in result.output
    lines = [line.split() for line in result.output.splitlines()]
    assert sum(line[:1] == ["plain"] for line in lines) == 1 + 4
    for name in ("CAM", "Grad-CAM", "occlusion", "integrated"):
        assert any(line[:2] == ["plain", name] for line in lines), name


def test_a_model_that_has_seen_no_drawn_birds_is_refused(with_run):
    said = "needs drawn birds"
    refused(fgbook("causal", "--run", with_run["key"]), said)


def test_birds_of_other_species_are_no_drawn_birds_here(tmp_path, monkeypatch):
    monkeypatch.setenv("FGBOOK_RUNS", str(tmp_path))
    words = dict(profile="quick", dataset="fieldguide-source", overrides=SMALL)
    run = runs.resolve("feng", "plain", **words)
    runs.execute(run, device="cpu", progress=False)
    refused(fgbook("causal", "--run", str(run.folder)), "on fieldguide-source")


def test_a_run_that_is_not_there_is_refused(folder):
    refused(fgbook("causal", "--run", "zz"), "unknown run 'zz'")
    result = fgbook("causal", "--run", folder, "--scenes", "0")
    assert result.exit_code == 2
    assert "0 is not in the range" in result.output


def test_edited_parts_that_were_damaged_are_made_again_as_is_said(
    tmp_path, monkeypatch
):
    for name in ("DATA", "RUNS", "RESULTS"):
        monkeypatch.setenv(f"FGBOOK_{name}", str(tmp_path / name.lower()))
    samples.cub(tmp_path / "data" / "cub50", 6, 4)
    run = runs.resolve("feng", "plain", "quick", "cub50", overrides=SMALL)
    runs.execute(run, device="cpu", progress=False)
    words = ("causal", "--run", str(run.folder), "--scenes", "2", "--publish")
    assert fgbook(*words).exit_code == 0
    made, found = causes.parts()
    assert "CAM" in found["deleted"]

    path = causes.folder() / "parts.jsonl"
    path.write_text(path.read_text()[:-9])
    with pytest.raises(InputError, match="`fgbook causal --run KEY --publish`, of"):
        causes.parts()
    path.unlink()  # as it says
    assert fgbook(*words).exit_code == 0
    assert causes.parts()[0]["key"] == made["key"]
