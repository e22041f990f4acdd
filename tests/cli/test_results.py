"""What `fgbook results` shows: tables, verdicts, JSON."""

import json
from pathlib import Path

import numpy as np
import pytest

from commandline import fgbook
from fgbook.evidence import records
from fgbook.recipe import Recipe


def save(
    folder: Path,
    row: str,
    seed: int,
    top1: float,
    profile: str = "paper",
    dataset: str = "cub",
    printed: float | None = None,
    **more,
) -> dict:
    """A published record with the fields that tables and verdicts read; the share
    `top1` of 1000 test images is right."""
    correct = np.arange(1000) < round(1000 * top1)
    named = {"row": row, "seed": seed, "profile": profile, "dataset": dataset}
    key = records.key({**named, **more})
    record = {
        "key": key,
        "purpose": "result",
        "paper": "feng",
        "method": "plain",
        "options": {},
        "recipe": Recipe().as_dict(),
        "overrides": {},
        "weights": "none",
        "data_fingerprint": "f",
        "num_classes": 2,
        "metrics": {"val": None, "test": {"top1": top1}},
        "printed": printed,
        **named,
        **more,
    }
    predictions = {
        "prediction": correct.astype(np.uint16),
        "confidence": np.ones(1000, np.float16),
        "label": np.ones(1000, np.uint16),
    }
    return records.save(record, predictions, folder / f"{row}-{key}.json")


def test_what_was_run_is_shown(with_run):
    table = fgbook("results", "feng").stdout
    assert f"{100 * with_run['metrics']['test']['top1']:.1f}" in table
    assert "epochs=4" in table
    assert "illustrations" in table


def test_records_as_json_are_the_files(with_run):
    assert json.loads(fgbook("results", "--json").stdout) == [with_run]


def test_nothing_is_shown_where_nothing_was_run():
    result = fgbook("results")
    assert result.exit_code == 0
    assert "no results yet" in result.stdout


@pytest.fixture
def lines(tmp_path) -> dict[str, str]:
    """The lines of a table by profile, of three paper runs and a quick one."""
    published = tmp_path / "results"
    for seed, top1 in enumerate((0.70, 0.72, 0.74)):
        save(published, "plain", seed, top1, printed=84.5)
    save(published, "plain", 0, 0.5, "quick", "fieldguide", printed=84.5)
    found = fgbook("results").stdout.splitlines()
    return {
        profile: next(line for line in found if f" {profile} " in line)
        for profile in ("paper", "quick")
    }


def test_seeds_share_a_line_with_students_interval(lines):
    words = lines["paper"].split()
    assert "3" in words
    assert "72.0" in words
    # 72 +- 4.303 * 2 / sqrt(3)
    assert "67.0 to 77.0" in lines["paper"]


def test_printed_numbers_stand_beside_the_papers_own_profile_only(lines):
    assert "84.5" in lines["paper"]
    assert "50.0" in lines["quick"]
    assert "84.5" not in lines["quick"]


def test_changed_options_have_a_line_of_their_own(tmp_path):
    published = tmp_path / "results"
    save(published, "hybrid", 0, 0.7, options={"m": 6})
    changed = {"options": {"m": 4}, "option_changes": {"m": 4}}
    save(published, "hybrid", 0, 0.8, **changed)
    _, first, second = fgbook("results").stdout.splitlines()
    said = {line.split()[6]: line for line in (first, second)}
    assert said["80.0"].endswith("m=4")
    assert "m=4" not in said["70.0"]


@pytest.fixture
def both(tmp_path) -> Path:
    """Published records of two rows of a claim, quick ones and photographs."""
    published = tmp_path / "results"
    for seed in range(3):
        for profile, dataset in (("quick", "fieldguide"), ("photo", "cub50")):
            save(published, "image", seed, 0.80, profile, dataset)
            save(published, "plain", seed, 0.70, profile, dataset)
    return published


def judged() -> dict[tuple[str, str], dict]:
    """The verdicts as JSON says them, by claim and profile."""
    found = json.loads(fgbook("results", "feng", "--verdicts", "--json").stdout)
    return {(verdict["claim"], verdict["profile"]): verdict for verdict in found}


def test_verdicts_come_from_photographs(both):
    found = judged()
    assert found["B1", "photo"]["outcome"] == "holds"
    assert found["B1", "photo"]["effect"]["effect"] == pytest.approx(10)
    assert found["B2", "photo"]["outcome"] == "not run"


def test_verdicts_never_come_from_quick_numbers(both):
    assert {profile for _, profile in judged()} == {"photo"}


def test_verdicts_never_come_from_changed_rows(both):
    save(both, "image", 3, 0.1, "photo", "cub50", option_changes={"m": 4})
    save(both, "image", 4, 0.1, "photo", "cub50", overrides={"lr": 1.0})
    assert judged()["B1", "photo"]["effect"]["effect"] == pytest.approx(10)


def test_a_verdict_in_words_says_claim_and_place(both):
    text = fgbook("results", "--verdicts").stdout
    assert "feng B1 on cub50 (photo): holds\n    claim: " in text
