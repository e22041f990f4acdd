"""What `fgbook results` shows: tables, verdicts, JSON."""

import json
from pathlib import Path

import numpy as np
import pytest

from commandline import fgbook
from fgbook import figures, papers
from fgbook.evidence import records

# fixed beforehand
SEEDS = papers.get("feng").seeds_of("image", "photo") or 3


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
    line = papers.get("feng").row(row)
    record = {
        "key": key,
        "purpose": "result",
        "paper": "feng",
        "method": line.method,
        "options": line.options,
        "recipe": line.recipes[profile].as_dict(),
        "overrides": {},
        "weights": "none",
        "data_fingerprint": "f",
        "num_classes": 2,
        "metrics": {"val": None, "test": {"top1": top1}},
        "printed": printed,
        "images": {"train": 9, "val": 3, "test": 1000},
        "train": {"epochs": 6, "seconds": 3.0},
        "hardware": {"cpu": "chip", "cores": 2, "threads": 1},
        "flops": 10**9,
        "command": f"fgbook run feng --row {row}",
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


def test_seeds_share_a_line_with_their_interval(lines):
    words = lines["paper"].split()
    assert "3" in words
    assert "72.0" in words
    # seeds: 4.303^2 * 2^2 / 3; images: 1.962^2 * (2013 + 20 - rest) / 1000
    assert "66.3 to 77.7" in lines["paper"]


def test_one_seed_has_the_interval_of_its_images(lines):
    assert "46.9 to 53.1" in lines["quick"]


def test_printed_numbers_stand_beside_the_papers_own_profile_only(lines):
    assert "84.5" in lines["paper"]
    assert "50.0" in lines["quick"]
    assert "84.5" not in lines["quick"]


def test_changed_options_have_a_line_of_their_own(tmp_path):
    published = tmp_path / "results"
    save(published, "hybrid", 0, 0.7)
    changed = {"options": {"m": 4}, "option_changes": {"m": 4}}
    save(published, "hybrid", 0, 0.8, **changed)
    _, first, second = fgbook("results").stdout.splitlines()
    said = {line.split()[6]: line for line in (first, second)}
    assert said["80.0"].endswith("m=4")
    assert "m=4" not in said["70.0"]


def test_versions_of_a_changed_row_have_lines_of_their_own(tmp_path):
    published = tmp_path / "results"
    changed = {"options": {"m": 4}, "option_changes": {"m": 4}}
    for version, top1 in ((1, 0.5), (2, 0.8)):
        for seed in (0, 1):
            made = changed | {"method_version": version}
            save(published, "hybrid", seed, top1, **made)
    result = fgbook("results")
    assert result.exit_code == 0, result.output
    _, *found = result.stdout.splitlines()
    said = sorted(line.split()[5:7] for line in found)
    assert said == [["2", "50.0"], ["2", "80.0"]]


def test_stages_after_versions_of_another_have_lines_of_their_own(tmp_path):
    published = tmp_path / "results"
    changed = {"overrides": {"lr": 1.0}}
    for version, top1 in ((1, 0.5), (2, 0.8)):
        for seed in (0, 1):
            made = changed | {"method_version": version}
            first = save(published, "plain", seed, 0.6, **made)
            stage = changed | {"after": first["key"]}
            save(published, "image", seed, top1, **stage)
    result = fgbook("results")
    assert result.exit_code == 0, result.output
    found = [line.split() for line in result.stdout.splitlines() if " image " in line]
    assert sorted(line[5:7] for line in found) == [["2", "50.0"], ["2", "80.0"]]


@pytest.fixture
def both(tmp_path) -> Path:
    """Published records of two rows of a claim, quick ones and photographs."""
    published = tmp_path / "results"
    for seed in range(SEEDS):
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
    save(both, "image", 8, 0.1, "photo", "cub50", option_changes={"m": 4})
    save(both, "image", 9, 0.1, "photo", "cub50", overrides={"lr": 1.0})
    assert judged()["B1", "photo"]["effect"]["effect"] == pytest.approx(10)


def test_a_verdict_in_words_says_claim_and_place(both):
    text = fgbook("results", "--verdicts").stdout
    assert "feng B1 on cub50 (photo): holds\n    claim: " in text


def test_the_book_and_the_command_line_print_the_same_interval(both):
    """Of a row: its mean. Of a claim: its effect. Other rows tell the spread."""
    for seed in range(SEEDS):
        save(both, "hybrid", seed, 0.75 + 0.03 * seed, "photo", "cub50")
    paper, photo = papers.get("feng"), records.published("feng", "photo")

    (line,) = [x for x in fgbook("results").stdout.splitlines() if " hybrid " in x]
    mean, *ends = line.split()[6:10]
    accuracies = figures.accuracy_table(paper, photo).text
    assert f"{mean} {' '.join(ends)}" in " ".join(accuracies.split())

    said = fgbook("results", "feng", "--verdicts").stdout
    effect, interval = said.split(" points, 95 % interval ")[0:2]
    numbers = f"{effect.split()[-1]} {interval.split(' (')[0]}"
    assert numbers.startswith("+10.0 ")
    assert numbers in " ".join(figures.verdict_table(paper, photo).text.split())


def test_records_that_do_not_count_are_counted(both):
    earlier = papers.get("feng").row("image").recipes["photo"].but(epochs=77)
    for seed in range(3):
        save(both, "image", seed, 0.1, "photo", "cub50", recipe=earlier.as_dict())
    save(both, "image", 77, 0.1, "photo", "cub50")
    says = (
        "3 records of earlier recipes and 1 record of seeds beyond those fixed before"
        " are left out."
    )
    assert judged()["B1", "photo"]["effect"]["effect"] == pytest.approx(10)
    for words in (("results",), ("results", "--verdicts")):
        assert fgbook(*words).stdout.rstrip().endswith(says)


def test_a_run_on_other_pictures_is_left_out(both):
    save(both, "image", 0, 0.1, "photo", "cub50", data_fingerprint="mine")
    assert judged()["B1", "photo"]["effect"]["effect"] == pytest.approx(10)
    says = "1 record of other pictures is left out."
    for words in (("results",), ("results", "--verdicts")):
        assert fgbook(*words).stdout.rstrip().endswith(says)


def test_several_data_sets_have_one_verdict_more(both):
    for seed in range(SEEDS):
        save(both, "image", seed, 0.76, "photo", "cars98")
        save(both, "plain", seed, 0.70, "photo", "cars98")
    text = fgbook("results", "feng", "--verdicts").stdout
    about = text.partition("feng B1 on cars98 and cub50 (photo): ")[2].splitlines()
    assert about[0] == "holds"
    assert "weighted mean of 2 data sets" in about[2]
    assert "cars98: holds, cub50: holds" in about[2]


def test_a_verdict_tells_itself_alone_and_in_its_family(both):
    for seed in range(SEEDS):
        save(both, "hybrid", seed, 0.8, "photo", "cub50")
    found = judged()["B1", "photo"]
    assert found["alone"] == found["outcome"] == "holds"
    assert found["family"] == 3
    assert found["p"] <= found["p_family"] < 0.05
    assert found["printed_size"] == "excluded"
    assert found["effect"]["seeds"] == SEEDS
    assert found["effect"]["spread"] == "pooled"
