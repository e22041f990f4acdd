"""Which runs a batch makes, in which order, what it expects them to take, and what it
says of them; the processes themselves are in tests/cli/test_batch_command.py."""

import json
import shutil
import time
from dataclasses import replace

import pytest

import samples
from fgbook import papers, paths
from fgbook.errors import InputError
from fgbook.evidence import records, runs
from fgbook.evidence.batch import grid, pace, pool, report, telling

HERE = {
    "cpu": "a processor",
    "cores": 2,
    "threads": 1,
    "system": "Linux x86_64",
    "device": "cpu",
}


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("FGBOOK_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("FGBOOK_RESULTS", str(tmp_path / "results"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> str:
    return samples.folder(tmp_path_factory.mktemp("pictures"), count=15)


def entries(*names: str, **options) -> list[grid.Entry]:
    return grid.grid([papers.get(name) for name in names], "quick", **options)


def finish(entry: grid.Entry, seconds: float = 10.0, **changes) -> dict:
    """A record of a run, as if it had been made."""
    run = entry.run
    record = {
        "key": run.key,
        "purpose": "result",
        "paper": run.paper,
        "row": run.row,
        "profile": run.profile,
        "dataset": run.dataset,
        "seed": run.seed,
        "method": run.method,
        "options": run.options,
        "recipe": run.recipe.as_dict(),
        "overrides": {},
        "metrics": {"test": {"top1": 0.5}},
        "train": {"steps": 20, "seconds": seconds, "losses": [{"a": 2.0}, {"a": 1.0}]},
        "hardware": HERE,
        **changes,
    }
    return records.save(record, None, run.folder / "record.json")


# ---- the grid


def test_seeds_come_one_after_the_other_and_stages_before_what_starts_from_them(
    pictures,
):
    found = entries("peng", "gautam", datasets=[pictures], seeds=[1, 0])
    keys = [entry.run.key for entry in found]
    assert len(set(keys)) == len(keys)
    asked = [entry.run for entry in found if entry.names]
    assert [run.seed for run in asked] == sorted(run.seed for run in asked)
    staged = [entry for entry in found if entry.run.after]
    assert staged
    for entry in staged:
        assert keys.index(entry.run.after.key) < keys.index(entry.run.key)

    wanted = set()
    for name in ("peng", "gautam"):
        for run in runs.planned(name, None, "quick", pictures, 2):
            while run:
                wanted.add(run.key)
                run = run.after
    assert set(keys) == wanted


def test_a_run_that_papers_share_is_made_once_and_found_under_each_name(pictures):
    found = entries("feng", "golodov", rows=["plain"], datasets=[pictures])
    shared = [entry for entry in found if len(entry.names) > 1]
    for entry in shared:
        assert {run.key for run in entry.names} == {entry.run.key}
    assert sum(len(entry.names) for entry in found) == 2
    assert len(shared) == len(found) == 1
    found[0].record = finish(found[0])
    assert [record["paper"] for record in found[0].found()] == ["feng", "golodov"]


def test_a_row_gets_the_seeds_that_its_paper_fixes(pictures):
    paper = papers.get("feng")
    for profile in ("quick", "photo"):
        numbers: dict[str, list[int]] = {}
        for entry in grid.grid([paper], profile, ["plain", "hybrid"], [pictures]):
            numbers.setdefault(entry.run.row, []).append(entry.run.seed)
        for row, seeds in numbers.items():
            assert seeds == list(range(paper.seeds_of(row, profile) or 1))


def test_names_that_are_not_there_are_refused(pictures):
    with pytest.raises(InputError, match="unknown row .*'hybrid'"):
        entries("feng", rows=["hybird"])
    with pytest.raises(InputError, match="unknown profile 'quik'"):
        grid.grid([papers.get("feng")], "quik")


def test_a_stage_is_made_again_only_for_a_run_that_needs_its_weights(pictures):
    def look() -> dict[str, grid.Entry]:
        found = entries("peng", rows=["low-high"], datasets=[pictures])
        return {entry.run.row: entry for entry in found}

    found = look()
    (stage,) = [one for one in found.values() if not one.names]
    last = found["low-high"]
    assert last.run.after.key == stage.run.key
    finish(stage)
    again = look()
    needed = again[stage.run.row]
    assert needed.state == "needed"  # its weights are not there
    # without this word the record is found, and nothing is made
    assert needed.command == f"{stage.run.command} --train"
    assert again["low-high"].state == "to do"
    finish(last)
    assert {entry.state for entry in look().values()} == {"done"}


def test_rows_are_complete_when_all_of_their_seeds_are(pictures):
    found = entries("feng", rows=["plain", "hybrid"], datasets=[pictures], seeds=[0, 1])
    for entry in found:
        if entry.run.row == "plain" or entry.run.seed == 0:
            entry.record = finish(entry)
    (complete,) = grid.complete_rows(found)
    assert [(record["row"], record["seed"]) for record in complete] == [
        ("plain", 0),
        ("plain", 1),
    ]


# ---- what it takes


def expected(known: list[dict], pictures: str) -> tuple[grid.Entry, pace.Pace]:
    (entry,) = entries("feng", rows=["hybrid"], datasets=[pictures])
    (found,) = pace.expect([entry], known, "cpu", 1, print).values()
    return entry, found


def test_times_come_from_records_of_this_machine_where_there_are_some(
    pictures, monkeypatch
):
    monkeypatch.setattr(pace, "hardware", lambda *_: HERE)
    (entry,) = entries("feng", rows=["hybrid"], datasets=[pictures])
    here = finish(entry)
    elsewhere = finish(entry, 1000.0, hardware={**HERE, "cpu": "a slow one"})
    entry.run.folder.joinpath("record.json").unlink()
    images = len(entry.run.data().split(entry.run.recipe.train_on))
    recipe = entry.run.recipe
    steps = -(-images // recipe.batch_size) * recipe.epochs  # 24 images, 32 a batch

    entry, found = expected([here, elsewhere], pictures)
    assert entry.expected == pytest.approx(steps * 10 / 20)
    assert "1 record" in found.source
    entry, found = expected([elsewhere], pictures)
    assert entry.expected == pytest.approx(steps * 1000 / 20)
    assert "a slow one" in found.source


def test_what_no_record_tells_is_timed_once(pictures, monkeypatch):
    """A record of another size of image, and one of a GPU, tell nothing."""
    timed = []

    def measure(run, device):
        timed.append(run.key)
        about = pace.estimate.Estimate({}, 1, 1, 1, 1, {}, 7, 0.5, 3.0, 2.0)
        return about

    monkeypatch.setattr(pace.estimate, "measure", measure)
    (entry,) = entries("feng", rows=["hybrid"], datasets=[pictures])
    larger = replace(entry.run.recipe, image_size=80).as_dict()
    other = finish(entry, recipe=larger)
    gpu = finish(entry, hardware={**HERE, "device": "cuda", "gpu": "a GPU"})
    entry.run.folder.joinpath("record.json").unlink()
    for _ in range(2):
        entry, found = expected([other, gpu], pictures)
        assert entry.expected == pytest.approx(3 + 2 * entry.run.recipe.epochs)
        assert "7 steps timed" in found.source
    assert len(timed) == 1


def test_features_of_a_frozen_backbone_are_paid_for_once(pictures, monkeypatch):
    """Their records, in which a solution is one step, do not tell what they take."""

    def measure(run, device):
        about = pace.estimate.Estimate({}, 0, 1, 1, 1, {}, 1, 0.5, 30.0, 0.0)
        about.features_seconds = 20.0
        return about

    monkeypatch.setattr(pace, "hardware", lambda *_: HERE)
    monkeypatch.setattr(pace.estimate, "measure", measure)
    probes = entries("compare", rows=["probe"], datasets=[pictures], seeds=[0, 1, 2])
    record = finish(probes[0], 500.0)
    probes[0].run.folder.joinpath("record.json").unlink()
    neighbours = entries("compare", rows=["neighbours"], datasets=[pictures])
    pace.expect([*probes, *neighbours], [record], "cpu", 1, print)
    assert [entry.expected for entry in probes] == [30, 10, 10]
    assert [entry.expected for entry in neighbours] == [10]


# ---- the pool


class Fake:
    """A process that ends after some looks, with a status."""

    def __init__(self, entry: grid.Entry, way: pool.Way, place: int):
        self.entry, self.place = entry, place
        self.looks = 3
        self.process = self
        entry.state = "running"
        ACTIVE.append(entry.run.key)
        BEGUN.append((entry.run.row, place, len(ACTIVE)))

    def poll(self) -> int | None:
        self.looks -= 1
        return None if self.looks else 0

    def end(self) -> None:
        ACTIVE.remove(self.entry.run.key)
        failed = self.entry.run.row in FAILING
        self.entry.state = "failed" if failed else "finished"


ACTIVE: list[str] = []
BEGUN: list[tuple[str, int, int]] = []
FAILING: set[str] = set()


@pytest.fixture
def fakes(monkeypatch):
    for each in (ACTIVE, BEGUN, FAILING):
        each.clear()
    monkeypatch.setattr(pool, "Child", Fake)
    monkeypatch.setattr(pool, "LOOKS_A_SECOND", 1000)


def test_as_many_runs_at_a_time_as_asked_for_each_in_its_place(
    fakes, pictures, tmp_path
):
    found = entries("peng", datasets=[pictures])
    ended: list[str] = []
    pool.make(
        found,
        pool.Way(tmp_path, jobs=3),
        lambda entry: ended.append(entry.run.key),
        lambda active: None,
    )
    assert {entry.state for entry in found} == {"finished"}
    assert sorted(ended) == sorted(entry.run.key for entry in found)
    assert max(at_once for _, _, at_once in BEGUN) == 3
    assert {place for _, place, _ in BEGUN} == {0, 1, 2}
    for entry in found:
        if entry.run.after:
            assert ended.index(entry.run.after.key) < ended.index(entry.run.key)


def test_what_starts_from_a_failed_stage_is_not_tried(fakes, pictures, tmp_path):
    found = entries("peng", rows=["low-high", "mixed"], datasets=[pictures])
    (stage,) = [entry.run.row for entry in found if not entry.names]
    FAILING.add(stage)
    pool.make(found, pool.Way(tmp_path), lambda entry: None, lambda active: None)
    states = {entry.run.row: entry.state for entry in found}
    assert states == {stage: "failed", "low-high": "failed", "mixed": "finished"}
    (last,) = [entry for entry in found if entry.run.row == "low-high"]
    assert stage in last.why
    assert "low-high" not in [row for row, _, _ in BEGUN]


def test_nothing_is_begun_after_the_time_budget(fakes, pictures, tmp_path):
    found = entries("peng", datasets=[pictures])
    way = pool.Way(tmp_path, end=time.monotonic() - 1)
    pool.make(found, way, lambda entry: None, lambda active: None)
    assert not BEGUN
    assert {entry.state for entry in found} == {"to do"}


def test_a_run_whose_package_changed_meanwhile_is_told_and_can_be_planned_again(
    pictures, tmp_path, monkeypatch
):
    """Here the child does nothing but succeed."""
    (entry,) = entries("feng", rows=["plain"], datasets=[pictures])
    monkeypatch.setattr(pool.sys, "executable", "true")
    pool.make([entry], pool.Way(tmp_path), lambda entry: None, lambda active: None)
    assert entry.state == "failed"
    assert entry.run.key in entry.why
    (again,) = entries("feng", rows=["plain"], datasets=[pictures])
    assert again.left


# ---- what it says


@pytest.fixture
def told(pictures, tmp_path) -> tuple[list[grid.Entry], report.Story]:
    found = entries("feng", rows=["plain", "hybrid"], datasets=[pictures], seeds=[0, 1])
    for entry in found[:2]:
        entry.record, entry.state = finish(entry), "finished"
    found[2].state, found[2].why, found[2].log = "failed", "no <room> & board", "a.log"
    return found, report.Story("fgbook batch feng", report.now(), HERE, 2)


def test_the_page_needs_nothing_but_itself_and_says_everything(told):
    found, story = told
    text = report.write(found, story).read_text()
    page = samples.Page(text)
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.tags}
    assert not [
        one for _, given in page.tags for one in given if one in ("src", "href")
    ]
    assert "url(" not in text
    assert "http" not in text
    assert "prefers-color-scheme: dark" in text
    for part in (
        "no <room> & board",
        "a.log",
        "fgbook batch feng",
        "a processor, 1 thread",
        "50.0",
        "4: 2 finished, 1 failed, 1 to do",
        *(entry.run.key for entry in found),
    ):
        assert part in page.said


def test_curves_are_the_losses_of_the_records(told):
    found, story = told
    page = samples.Page(report.page(found, story))
    lines = [given["points"] for tag, given in page.tags if tag == "polyline"]
    assert len(lines) == 2
    first, last = ([float(n) for n in point.split(",")] for point in lines[0].split())
    assert first[0] < last[0]
    # 2 and 1 over the same zero line, which is at the bottom
    bottom = report.HEIGHT - report.EDGE
    assert bottom - first[1] == pytest.approx(2 * (bottom - last[1]), abs=0.11)


def test_the_manifest_is_read_by_programs(told):
    found, story = told
    report.write(found, story)
    about = json.loads((report.folder(found) / report.MANIFEST).read_text())
    assert [run["state"] for run in about["runs"]] == [entry.state for entry in found]
    assert about["runs"][2]["why"] == "no <room> & board"
    assert about["hardware"] == HERE
    assert about["versions"]["torch"]


def test_rows_are_published_one_by_one(pictures):
    found = entries("feng", rows=["plain", "hybrid"], datasets=[pictures], seeds=[0, 1])
    story = report.Story("fgbook batch feng", report.now(), HERE, 1)
    teller = telling.Teller(found, story, publish=True)
    for entry in found:
        entry.record, entry.state = finish(entry), "finished"
        teller.ended(entry)
        kept = {(one["row"], one["seed"]) for one in records.published("feng")}
        complete = {"plain"} if entry.run.row == "plain" else {"plain", "hybrid"}
        if entry.run.seed == 0:
            complete = set()
        assert kept == {(row, seed) for row in complete for seed in (0, 1)}
    teller.over("finished")

    # what is published already is left as it is
    made = {path: path.stat().st_mtime_ns for path in paths.results().rglob("*.json")}
    shutil.rmtree(paths.runs())
    again = entries("feng", rows=["plain", "hybrid"], datasets=[pictures], seeds=[0, 1])
    assert {entry.state for entry in again} == {"done"}
    telling.Teller(again, story, publish=True).over("finished")
    after = {path: path.stat().st_mtime_ns for path in paths.results().rglob("*.json")}
    assert after == made
