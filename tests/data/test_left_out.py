"""What a folder holds besides pictures: refused where it cannot be read, else listed,
counted and said. And how one notices that a folder has changed.
"""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from fgbook import data
from fgbook.data import cub, photos
from fgbook.errors import InputError
from samples import folder as write_folder


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("FGBOOK_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("FGBOOK_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(photos, "_mentioned", set())


@pytest.fixture
def birds(tmp_path):
    """A folder with two classes of five pictures each."""
    write_folder(tmp_path / "birds", ("red", "blue"), 5)
    return tmp_path / "birds"


def left_out(root) -> list[str]:
    return data.check(f"folder:{root}")["left_out"]


def pictures(root) -> int:
    return sum(data.check(f"folder:{root}")["images"].values())


# Tools' folders


@pytest.mark.parametrize(
    "tool",
    [
        ".ipynb_checkpoints",
        ".git",
        ".thumbnails",
        "__MACOSX",
        "@eaDir",
        "Thumbs",
        "$RECYCLE.BIN",
        "lost+found",
    ],
)
@pytest.mark.parametrize("below", ["red", "red/deeper"])
def test_tools_folders_below_a_class_are_no_data(birds, tool, below):
    place = birds / below / tool
    place.mkdir(parents=True)
    shutil.copy(birds / "red" / "0.png", place / "0-copy.png")
    assert pictures(birds) == 10
    assert f"{below}/{tool}/ (hidden, or a tool's own)" in left_out(birds)


@pytest.mark.parametrize("tool", [".git", "__MACOSX", "@eaDir", "#recycle"])
def test_tools_folders_beside_the_classes_are_no_classes(birds, tool):
    shutil.copytree(birds / "red", birds / tool)
    assert data.check(f"folder:{birds}")["classes"] == 2


def test_a_class_may_be_called_thumbs(birds):
    shutil.copytree(birds / "red", birds / "thumbs")
    assert data.load(f"folder:{birds}", 8).classes == ["blue", "red", "thumbs"]


def test_tools_folders_in_the_parts_are_no_data(tmp_path):
    root = tmp_path / "set"
    name = write_folder(root, ("red", "blue"), {"train": 5, "test": 2})
    shutil.copytree(
        root / "train" / "red", root / "test" / "red" / ".ipynb_checkpoints"
    )
    assert len(data.load(name, 8).test) == 4


# What cannot be read


@pytest.mark.parametrize("place", [".", "red", "red/deeper"])
def test_a_folder_that_cannot_be_read_is_refused(birds, monkeypatch, place):
    """Everybody may read everything for the system's administrator, who runs tests in
    containers; so the system's call fails here in his place.
    """
    locked = (birds / place).resolve()
    locked.mkdir(exist_ok=True)
    scan = os.scandir

    def refuse(path="."):
        if os.path.realpath(path) == str(locked):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for ask in (data.check, data.stamp, lambda name: data.load(name, 8)):
        with pytest.raises(InputError, match=f"{locked} cannot be read.*denied"):
            ask(f"folder:{birds}")


@pytest.mark.skipif(os.geteuid() == 0, reason="an administrator may read everything")
@pytest.mark.parametrize("place", [".", "red", "red/deeper"])
def test_a_locked_folder_is_refused(birds, place):
    (birds / place).mkdir(exist_ok=True)
    (birds / place).chmod(0)
    try:
        with pytest.raises(InputError, match="cannot be read"):
            data.check(f"folder:{birds}")
    finally:
        (birds / place).chmod(0o700)


# What is left out


def spoil(birds) -> list[str]:
    """One of everything that is left out; how `check` lists it."""
    for name in ("a.HEIC", "b.heic", "c.avif", "notes.txt", "README"):
        (birds / "red" / name).write_bytes(b"x")
    (birds / "blue" / ".DS_Store").write_bytes(b"x")
    (birds / "labels.csv").write_bytes(b"x")
    shutil.copy(birds / "red" / "0.png", birds / "loose.png")
    (birds / "empty").mkdir()
    (birds / "apple").mkdir()
    (birds / "apple" / "1.heic").write_bytes(b"x")
    (birds / "red" / "gone.png").symlink_to(birds / "nowhere.png")
    (birds / "red" / "circle.png").symlink_to(birds / "red" / "circle.png")
    (birds / "red" / "other").symlink_to(birds / "blue")
    return [
        "red/a.HEIC (suffix .heic is not read)",
        "red/b.heic (suffix .heic is not read)",
        "apple/1.heic (suffix .heic is not read)",
        "red/c.avif (suffix .avif is not read)",
        "red/notes.txt (suffix .txt is not read)",
        "red/README (no suffix)",
        "blue/.DS_Store (hidden, or a tool's own)",
        "labels.csv (not in a class folder)",
        "loose.png (not in a class folder)",
        "empty/ (a class folder without a picture)",
        "apple/ (a class folder without a picture)",
        "red/gone.png (a link to nothing, or no file)",
        "red/circle.png (a link to nothing, or no file)",
        "red/other/ (a link to a folder, below a class)",
    ]


def test_check_lists_everything_that_is_left_out(birds):
    expected = spoil(birds)
    listed = [line for line in left_out(birds) if line.endswith(")")]
    assert sorted(listed) == sorted(expected)


def test_check_counts_what_is_left_out_by_reason_before_it_lists(birds):
    expected = spoil(birds)
    reasons = [line[:-1].split(" (", 1)[1] for line in expected]
    counts = {f"{reasons.count(reason)}: {reason}" for reason in reasons}
    lines = left_out(birds)
    assert set(lines[: len(counts)]) == counts


def test_what_is_left_out_changes_nothing_else(birds):
    before = data.load(f"folder:{birds}", 8)
    spoil(birds)
    after = data.load(f"folder:{birds}", 8)
    assert after.fingerprint == before.fingerprint


def test_of_a_clean_folder_nothing_is_listed(birds):
    assert left_out(birds) == []


def test_files_outside_the_classes_of_the_parts_are_listed(tmp_path):
    root = tmp_path / "set"
    write_folder(root, ("red", "blue"), {"train": 5, "test": 2})
    for place in (".", "train", "test"):
        Image.new("RGB", (9, 9)).save(root / place / "loose.png")
    shutil.copytree(root / "test", root / "more")
    listed = [line for line in left_out(root) if line.endswith(")")]
    assert listed == [
        "loose.png (not in a class folder)",
        "test/loose.png (not in a class folder)",
        "train/loose.png (not in a class folder)",
        "more/ (a folder beside train and test)",
    ]


def test_loading_says_once_in_a_line_what_is_left_out(birds, capsys):
    (birds / "red" / "a.HEIC").write_bytes(b"x")
    (birds / "empty").mkdir()
    data.load(f"folder:{birds}", 8)
    data.load(f"folder:{birds}", 8)
    assert capsys.readouterr().err == (
        f"data set folder:{birds}: 2 left out (1: a class folder without a picture;"
        f" 1: suffix .heic is not read); `fgbook data check folder:{birds}` lists"
        " them.\n"
    )


def test_loading_says_it_again_when_there_is_more(birds, capsys):
    (birds / "red" / "a.HEIC").write_bytes(b"x")
    data.load(f"folder:{birds}", 8)
    (birds / "red" / "b.HEIC").write_bytes(b"x")
    data.load(f"folder:{birds}", 8)
    assert "2: suffix .heic" in capsys.readouterr().err


def test_nobody_is_bothered_with_hidden_files(birds, capsys):
    (birds / ".DS_Store").write_bytes(b"x")
    (birds / "red" / "Thumbs.db").write_bytes(b"x")
    data.load(f"folder:{birds}", 8)
    assert capsys.readouterr().err == ""


def test_a_folder_of_only_unread_pictures_says_why_it_is_refused(tmp_path):
    for name in ("red", "blue"):
        (tmp_path / "phone" / name).mkdir(parents=True)
        (tmp_path / "phone" / name / "1.HEIC").write_bytes(b"x")
    with pytest.raises(InputError, match=r"no pictures.*2: suffix \.heic is not read"):
        data.load(f"folder:{tmp_path / 'phone'}", 8)


def test_a_listed_folder_does_not_list_its_list(tmp_path):
    root = tmp_path / "data" / "imagewoof10"
    write_folder(root, ("red", "blue"), {"train": 2, "val": 1, "test": 1})
    rows = ["class,file,split"]
    for file in sorted(root.rglob("*.png")):
        part, label, name = file.relative_to(root).parts
        rows.append(f"{label},{name},{part}")
    (root / "split.csv").write_text("\n".join(rows))
    assert data.check("imagewoof10")["left_out"] == []


# Names that mean the same everywhere


def test_a_folder_is_made_absolute(birds, monkeypatch):
    monkeypatch.chdir(birds.parent)
    assert data.absolute("folder:birds") == f"folder:{birds}"


def test_the_home_folder_is_meant_by_a_tilde(birds, monkeypatch):
    monkeypatch.setenv("HOME", str(birds.parent))
    assert data.absolute("folder:~/birds") == f"folder:{birds}"


@pytest.mark.parametrize("name", ["cub", "fieldguide", "nonsense", "folder:/a/b"])
def test_other_names_stay(name):
    assert data.absolute(name) == name


@pytest.mark.parametrize("name", ["folder:", "folder:PATH"])
def test_a_folder_needs_a_path(name):
    with pytest.raises(InputError, match="needs a path"):
        data.absolute(name)


@pytest.mark.parametrize("name", ["folder:~nobody-here/x", "folder:a\0b"])
def test_names_that_no_folder_has_are_refused(name):
    with pytest.raises(InputError):
        data.absolute(name)


def test_an_absolute_name_loads_the_same_from_anywhere(birds, tmp_path, monkeypatch):
    monkeypatch.chdir(birds.parent)
    name = data.absolute("folder:birds")
    here = data.load("folder:birds", 8).fingerprint
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert data.load(name, 8).fingerprint == here


def test_an_added_picture_leaves_name_and_path(birds):
    name = f"folder:{birds}"
    before = data.load(name, 8).name, data.path(name)
    shutil.copy(birds / "red" / "0.png", birds / "red" / "new.png")
    assert (data.load(name, 8).name, data.path(name)) == before


# Stamps


def changes():
    """Ways in which a folder changes."""

    def grow(root):
        with open(root / "red" / "0.png", "ab") as file:
            file.write(b"x")

    def touch(root):
        about = (root / "red" / "0.png").stat()
        os.utime(root / "red" / "0.png", ns=(about.st_atime_ns, about.st_mtime_ns + 1))

    def add(root):
        shutil.copy2(root / "red" / "0.png", root / "red" / "new.png")

    def remove(root):
        (root / "red" / "0.png").unlink()

    def rename(root):
        (root / "red" / "0.png").rename(root / "red" / "zero.png")

    def move(root):
        (root / "red" / "0.png").rename(root / "blue" / "new.png")

    def add_deep(root):
        (root / "red" / "a" / "b").mkdir(parents=True)
        shutil.copy2(root / "red" / "0.png", root / "red" / "a" / "b" / "0.png")

    def link_class(root):
        (root / "also red").symlink_to(root / "red")

    return [grow, touch, add, remove, rename, move, add_deep, link_class]


@pytest.mark.parametrize("change", changes())
def test_a_stamp_sees_every_change(birds, change):
    before = data.stamp(f"folder:{birds}")
    change(birds)
    assert data.stamp(f"folder:{birds}") != before


def test_a_stamp_sees_what_a_link_leads_to(birds, tmp_path):
    outside = tmp_path / "outside"
    shutil.copytree(birds / "red", outside)
    (birds / "linked").symlink_to(outside)
    before = data.stamp(f"folder:{birds}")
    (outside / "0.png").unlink()
    assert data.stamp(f"folder:{birds}") != before


def test_a_stamp_stays_when_nothing_changes(birds):
    before = data.stamp(f"folder:{birds}")
    data.load(f"folder:{birds}", 8)
    (birds / ".DS_Store").write_bytes(b"x")
    assert data.stamp(f"folder:{birds}") == before


def test_a_stamp_ends_where_links_lead_in_circles(birds):
    (birds / "red" / "up").symlink_to(birds)
    (birds / "self").symlink_to(birds / "self")
    assert data.stamp(f"folder:{birds}") == data.stamp(f"folder:{birds}")


def test_a_stamp_opens_no_file(birds, monkeypatch):
    def never(*_, **__):
        raise AssertionError("opened")

    monkeypatch.setattr("builtins.open", never)
    monkeypatch.setattr(os, "open", never)
    assert data.stamp(f"folder:{birds}")


def write_small_cub(root):
    """Lists of a CUB with two classes, without pictures."""
    root.mkdir(parents=True)
    for name in cub.LISTS:
        (root / name).write_text("")
    (root / "images").mkdir()


@pytest.mark.parametrize("name", ["cub", "cub50", "cub-cropped"])
@pytest.mark.parametrize("file", ["bounding_boxes.txt", "images/new.jpg"])
def test_the_stamp_of_a_real_set_covers_lists_and_pictures(tmp_path, name, file):
    root = tmp_path / "data" / "cub"
    write_small_cub(root)
    before = data.stamp(name)
    (root / file).write_text("something")
    assert data.stamp(name) != before


def test_the_stamp_of_a_real_set_changes_with_the_folder_it_is_read_from(tmp_path):
    write_small_cub(tmp_path / "data" / "cub")
    before = data.stamp("cub50")
    write_small_cub(tmp_path / "data" / "cub50")
    assert data.stamp("cub50") != before


@pytest.mark.parametrize("name", ["aircraft", "cars98", "dogs21", "imagewoof10"])
def test_missing_data_have_no_stamp(name):
    with pytest.raises(InputError, match=f"data set {name} is not in"):
        data.stamp(name)


def test_a_wrong_name_has_no_stamp():
    with pytest.raises(InputError, match="unknown data set 'brids'"):
        data.stamp("brids")


def test_drawn_sets_have_stamps_of_their_own():
    assert data.stamp("fieldguide") != data.stamp("fieldguide-source")


def test_a_drawn_set_keeps_its_stamp():
    assert data.stamp("fieldguide") == data.stamp("fieldguide")


def test_a_picture_added_to_a_folder_is_seen_by_stamp_and_fingerprint(birds):
    """In one process: what keeps a loaded set by its stamp reads it again."""
    name = f"folder:{birds}"
    before = data.stamp(name), data.load(name, 8).fingerprint
    noise = np.random.default_rng(9).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(noise).save(birds / "blue" / "new.png")
    after = data.stamp(name), data.load(name, 8).fingerprint
    assert after[0] != before[0]
    assert after[1] != before[1]
