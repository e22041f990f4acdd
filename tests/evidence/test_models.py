"""Trained models without their training folder: what lies beside the weights is enough,
and what is damaged is said and made again."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import samples
from fgbook import methods, papers, paths
from fgbook.errors import InputError
from fgbook.evidence import models, records, runs
from fgbook.methods import Method
from fgbook.papers.spec import Row
from fgbook.recipe import Recipe

SMALL = {
    "image_size": 32,
    "store_size": 36,
    "epochs": 2,
    "batch_size": 8,
    "backbone": "small",
    "weights": "none",
}
IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a data set with a run on it, and the run's record."""
    top = tmp_path_factory.mktemp("trained")
    dataset = samples.folder(top / "set")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FGBOOK_RUNS", str(top / "runs"))
        patch.setenv("FGBOOK_RESULTS", str(top / "results"))
        run = runs.resolve("feng", "plain", dataset=dataset, overrides=SMALL)
        yield top, runs.execute(run, device="cpu", progress=False)


@pytest.fixture
def copied(trained, tmp_path, monkeypatch) -> tuple[Path, dict]:
    """The same runs in a folder of their own, and the record."""
    top, record = trained
    shutil.copytree(top / "runs", tmp_path / "runs")
    monkeypatch.setenv("FGBOOK_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("FGBOOK_RESULTS", str(tmp_path / "results"))
    return tmp_path / "runs" / record["key"], record


@pytest.fixture
def moved(trained):
    """The data set is somewhere else meanwhile."""
    place = trained[0] / "set"
    away = place.rename(place.with_name("away"))
    yield
    away.rename(place)


def again(record: dict, **keywords) -> dict:
    """The same run, asked for once more."""
    return runs.execute(runs.of(record), device="cpu", progress=False, **keywords)


def same_answers(model: Method, record: dict) -> bool:
    expected, _ = runs.model(runs.of(record), device="cpu")
    with torch.inference_mode():
        return torch.equal(model.predict(IMAGES), expected.predict(IMAGES))


# ---- away from the data


def test_a_model_is_what_was_trained(copied):
    model, about = runs.load_model(copied[1]["key"], "cpu")
    assert not model.training
    assert about["classes"] == ["blue", "red"]
    assert Recipe.of(about["recipe"]) == Recipe.of(copied[1]["recipe"])
    assert same_answers(model, copied[1])


def test_a_model_does_not_need_its_data(copied, moved, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    model, about = runs.load_model(copied[1]["key"], "cpu")
    assert model.predict(IMAGES).shape == (4, 2)
    assert about["data_fingerprint"] == copied[1]["data_fingerprint"]


def test_an_added_picture_does_not_end_a_model(copied, trained):
    new = trained[0] / "set" / "red" / "new.png"
    Image.new("RGB", (40, 48), (1, 2, 3)).save(new)
    try:
        model, _ = runs.load_model(copied[1]["key"], "cpu")
        assert runs.of(copied[1]).key != copied[1]["key"]
    finally:
        new.unlink()
    assert same_answers(model, copied[1])


def test_a_copy_of_the_folder_is_enough(copied, moved, tmp_path, monkeypatch):
    elsewhere = tmp_path / "my model"
    elsewhere.mkdir()
    for name in ("model.safetensors", "model.json"):
        shutil.copy(copied[0] / name, elsewhere)
    monkeypatch.setenv("FGBOOK_RUNS", str(tmp_path / "nothing"))
    model, about = runs.load_model(elsewhere, "cpu")
    assert about["key"] == copied[1]["key"]
    assert model.predict(IMAGES).shape == (4, 2)


def test_what_is_no_model_is_refused(copied, tmp_path):
    for wrong in (tmp_path, "3f2a", tmp_path / "nowhere", "../x"):
        with pytest.raises(InputError, match="neither the key of a run nor a folder"):
            runs.load_model(wrong)


def test_a_model_of_before_is_described_by_its_record(copied):
    (copied[0] / "model.json").unlink()
    model, about = runs.load_model(copied[1]["key"], "cpu")
    assert about["classes"] == ["blue", "red"]
    assert same_answers(model, copied[1])
    assert models.read(copied[0])["classes"] == ["blue", "red"]


def test_a_model_of_before_whose_data_are_gone_is_refused(copied, moved):
    (copied[0] / "model.json").unlink()
    with pytest.raises(InputError) as caught:
        runs.load_model(copied[1]["key"])
    said = str(caught.value)
    assert said.startswith(f"{copied[0] / 'model.json'} does not describe a model")
    assert f"`{copied[1]['command']} --train`" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("method", "options"),
    [("semantic", {}), ("transfer", {"hidden": 4}), ("focus", {"l": 1, "m": 1})],
)
def test_every_kind_of_model_is_built_from_its_description(method, options, tmp_path):
    """One that knows its classes by attributes, a head on a frozen random backbone,
    and one of several heads."""
    recipe = Recipe(**SMALL)
    attributes = torch.rand(3, 7, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(5)
    made = methods.build(method, 3, recipe, options, attributes).eval()
    part = models.trained_part(made)
    for value in part.state_dict().values():
        if value.is_floating_point():
            value += 0.01
    save_file(part.state_dict(), tmp_path / "model.safetensors")
    about = {
        "key": "0" * 16,
        "method": method,
        "options": options,
        "recipe": recipe.as_dict(),
        "seed": 5,
        "weights": "none",
        "classes": ["a", "b", "c"],
        "class_attributes": 7,
        "command": "fgbook run",
    }
    models.write(tmp_path, about)
    model, _ = runs.load_model(tmp_path, "cpu")
    with torch.inference_mode():
        assert torch.equal(model.predict(IMAGES), made.predict(IMAGES))


def test_a_frozen_backbone_with_other_weights_is_refused(tmp_path):
    recipe = Recipe(**SMALL)
    head = models.trained_part(methods.build("transfer", 2, recipe, {}))
    save_file(head.state_dict(), tmp_path / "model.safetensors")
    about = {"key": "0" * 16, "method": "transfer", "options": {}, "seed": 0}
    about |= {"recipe": recipe.as_dict(), "classes": ["a", "b"], "command": "c"}
    models.write(tmp_path, about | {"weights": "small.safetensors sha256:01234567"})
    with pytest.raises(InputError, match="sha256:01234567, but here they are none"):
        runs.load_model(tmp_path)


# ---- weights that are not here


def test_a_published_record_is_trained_where_its_weights_are_needed(copied, tmp_path):
    record = copied[1]
    records.publish(record)
    shutil.rmtree(paths.runs())
    with pytest.raises(InputError, match=f"`{record['command']} --train`"):
        runs.load_model(record["key"])
    run = runs.of(record)
    assert runs.execute(run, progress=False)["created"] == record["created"]
    assert not (copied[0] / "model.safetensors").exists()
    made = runs.execute(run, progress=False, train=True)
    assert made["metrics"] == record["metrics"]
    assert (copied[0] / "model.safetensors").is_file()
    assert Path(records.find(record["key"])[records.FOLDER]) == copied[0]


def test_a_model_that_is_here_is_not_trained_again(copied, monkeypatch):
    monkeypatch.setattr(runs.loop, "fit", lambda *a, **k: pytest.fail("trained again"))
    assert again(copied[1], train=True)["created"] == copied[1]["created"]


# ---- damage


def flip(path: Path) -> None:
    """Another bit, in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


DAMAGE = {"flip": flip, "cut": cut, "empty": lambda path: os.truncate(path, 0)}


@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_weights_are_refused_and_trained_again(copied, how):
    folder, record = copied
    path = folder / "model.safetensors"
    DAMAGE[how](path)
    with pytest.raises(InputError) as caught:
        runs.load_model(record["key"])
    assert str(caught.value) == (
        f"{path} is damaged; train it again with `{record['command']} --train`."
    )
    with pytest.warns(RuntimeWarning, match=f"{path} is damaged; it is trained again"):
        made = again(record, train=True)
    assert made["metrics"] == record["metrics"]
    assert same_answers(runs.load_model(record["key"], "cpu")[0], record)


def test_weights_that_cannot_be_read_are_not_trained_over(copied, monkeypatch):
    """A disk of the network that is away for a moment must not cost a training."""
    run, record = copied
    read = Path.read_bytes

    def away(path):
        if path.name == models.WEIGHTS:
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", away)
    for call in (models.has_weights, lambda at: models.check_weights(at, record)):
        with pytest.raises(InputError, match="Permission denied; put them back, or"):
            call(run)


def test_a_description_that_is_damaged_is_written_again(copied):
    folder, record = copied
    before = models.read(folder)
    flip(folder / "model.json")
    with pytest.raises(InputError, match="does not describe a model"):
        models.read(folder)
    again(record, train=True)
    assert models.read(folder) == before


def test_damaged_weights_of_an_earlier_stage_are_trained_again(
    copied, trained, monkeypatch
):
    """And the later stage starts from them."""
    folder, record = copied
    paper = papers.get("feng")
    low = paper.row("plain").recipes["quick"].but(lr=0.001)
    second = Row("second", "", "plain", {}, {"quick": low}, after="plain")
    rows = (*paper.rows, second)
    changed = replace(paper, rows=rows)
    monkeypatch.setattr(papers, "get", lambda key: changed)
    run = runs.resolve("feng", "second", dataset=record["dataset"], overrides=SMALL)
    assert run.after.key == record["key"]
    expected = runs.execute(run, device="cpu", progress=False)
    shutil.rmtree(run.folder)
    cut(folder / "model.safetensors")
    with pytest.warns(RuntimeWarning, match="model.safetensors is damaged; it is"):
        made = runs.execute(run, device="cpu", progress=False)
    assert made["metrics"] == expected["metrics"]
    assert made["train"]["losses"] == expected["train"]["losses"]


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_log_is_noticed_where_it_is_read(copied, how):
    """A record says what the log said, so that a record without a log is made again."""
    folder, record = copied
    (folder / "record.json").unlink()
    log = folder / "log.jsonl"
    if how == "flip":
        log.write_text(log.read_text().replace('"epoch": 2', '"epoch": 3'))
    else:
        DAMAGE[how](log)
    with pytest.warns(RuntimeWarning, match=f"{log} is damaged .* It is trained again"):
        made = again(record)
    assert made["train"]["losses"] == record["train"]["losses"]


def test_a_record_tells_when_a_number_in_it_was_changed(copied):
    path = copied[0] / "record.json"
    content = json.loads(path.read_text())
    content["metrics"]["test"]["top1"] = 0.999
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="its digest is not that of its content"):
        records.load(path)
    with pytest.warns(RuntimeWarning, match="is not a record"):
        found = again(copied[1])
    assert found["metrics"] == copied[1]["metrics"]


def test_features_that_are_damaged_are_computed_again(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("FGBOOK_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("FGBOOK_RESULTS", str(tmp_path / "results"))
    dataset = f"folder:{trained[0] / 'set'}"
    run = runs.resolve("golodov", "adam", dataset=dataset, overrides=SMALL)
    expected = runs.execute(run, device="cpu", progress=False)
    [maps] = paths.store().glob("*/maps.npy")
    for how in DAMAGE.values():
        shutil.rmtree(run.folder)
        how(maps)
        made = runs.execute(run, device="cpu", progress=False)
        assert made["train"]["losses"] == expected["train"]["losses"]
