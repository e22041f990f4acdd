"""The store of decoded pictures: what people see is what is kept, once, whole, whatever
happens to the process.
"""

import hashlib
import io
import multiprocessing
import os
import random
import resource
import signal
import time
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms.v2 import functional as F

from fgbook import paths
from fgbook.data import store
from fgbook.errors import InputError

RED, WHITE = (255, 0, 0), (255, 255, 255)


def scene(width: int, height: int, seed: int = 0) -> np.ndarray:
    """A smooth picture (height, width, 3) uint8 without symmetry."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def hwc(pixels: np.ndarray) -> np.ndarray:
    return pixels.transpose(1, 2, 0)


@pytest.fixture
def pictures(tmp_path):
    """Forty PNG files of different sizes, and what they hold."""
    files, arrays = [], []
    for i in range(40):
        arrays.append(scene(20 + i, 61 - i, i))
        files.append(tmp_path / "pictures" / f"{i} ü.png")
        files[-1].parent.mkdir(exist_ok=True)
        Image.fromarray(arrays[-1]).save(files[-1])
    return files, arrays


# Decoding


# how each format that can hold the tag is written
WRITTEN = {
    "jpg": {"quality": 100, "subsampling": 0},
    "png": {},
    "webp": {"lossless": True},
    "tif": {},
    "lzw.tif": {"compression": "tiff_lzw"},  # another decoder, of libtiff
}


def as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """How a camera stores an upright picture under each tag: the definition, as array
    operations.
    """
    turned = upright.transpose(1, 0, 2)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: turned,
        6: turned[::-1],
        7: turned[::-1, ::-1],
        8: turned[:, ::-1],
    }
    return np.ascontiguousarray(stored[orientation])


def write_turned(path, upright: np.ndarray, orientation: int, **options) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(as_stored(upright, orientation)).save(path, exif=exif, **options)


@pytest.fixture(params=range(1, 9))
def orientation(request) -> int:
    return request.param


@pytest.mark.parametrize("ending", WRITTEN)
def test_every_format_with_every_tag_is_seen_upright(tmp_path, ending, orientation):
    upright = scene(30, 20)
    path = tmp_path / f"a.{ending}"
    write_turned(path, upright, orientation, **WRITTEN[ending])
    pixels, seen = store.decode(path, None)
    assert seen == (30, 20)
    error = abs(hwc(pixels).astype(int) - upright).max()
    assert error <= (6 if ending == "jpg" else 0)


@pytest.mark.parametrize("ending", WRITTEN)
def test_a_picture_is_turned_as_pillow_turns_it(tmp_path, ending, orientation):
    path = tmp_path / f"a.{ending}"
    write_turned(path, scene(31, 20), orientation, **WRITTEN[ending])
    with Image.open(path) as image:
        reference = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(hwc(store.decode(path, None)[0]), reference)


@pytest.mark.parametrize("ending", WRITTEN)
def test_box_and_size_count_in_the_picture_as_seen(tmp_path, ending, orientation):
    """Also where a JPEG could come reduced, which is turned like the others."""
    path = tmp_path / f"a.{ending}"
    write_turned(path, scene(300, 200), orientation, **WRITTEN[ending])
    assert store.decode(path, 16)[1] == (300, 200)
    whole = store.decode(path, None)[0]
    cut, seen = store.decode(path, None, box=[40, 30, 180, 500])
    assert seen == (140, 170)
    np.testing.assert_array_equal(cut, whole[:, 30:, 40:180])


def test_only_a_turned_tiff_has_another_digest_than_its_content(tmp_path):
    """What was kept of such pictures when they came out turned twice is not found
    again; everything else is.
    """
    upright = scene(30, 20)
    for ending, options in WRITTEN.items():
        for tag in (1, 6):
            write_turned(tmp_path / f"{tag}.{ending}", upright, tag, **options)
    (tmp_path / "no picture.tif").write_bytes(b"II*\0\x08\0\0\0" + bytes(6))
    marked = set()
    for path in tmp_path.iterdir():
        if store.digest(path) != hashlib.sha256(path.read_bytes()).hexdigest():
            marked.add(path.name)
    assert marked == {"6.tif", "6.lzw.tif"}


def test_modes_are_converted_as_people_see_them(tmp_path):
    def seen(image: Image.Image, name: str, **options) -> np.ndarray:
        image.save(tmp_path / name, **options)
        return hwc(store.decode(tmp_path / name, None)[0])

    # every 8-bit level as 16 bits
    grey = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    np.testing.assert_array_equal(
        seen(Image.fromarray(grey), "deep.png"),
        np.repeat((grey // 257)[..., None], 3, 2),
    )
    np.testing.assert_array_equal(
        seen(Image.fromarray((grey // 257).astype(np.uint8)), "grey.png"),
        np.repeat((grey // 257)[..., None], 3, 2),
    )
    printed = seen(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "print.jpg")
    assert abs(printed.astype(int) - RED).max() < 8
    indexed = seen(Image.new("RGB", (8, 8), RED).convert("P"), "palette.png")
    assert (indexed == RED).all()
    half = Image.new("RGBA", (8, 8), (*RED, 255))
    half.paste((0, 0, 0, 0), (0, 0, 4, 8))
    see_through = seen(half, "half.png")
    assert (see_through[:, :4] == WHITE).all()
    assert (see_through[:, 4:] == RED).all()
    clear = Image.new("P", (8, 8), 1)
    clear.putpalette([0, 0, 0, 255, 0, 0])
    clear.paste(0, (0, 0, 4, 8))
    see_through = seen(clear, "clear.gif", transparency=0)
    assert (see_through[:, :4] == WHITE).all()
    assert (see_through[:, 4:] == RED).all()
    moving = {"save_all": True, "append_images": [Image.new("RGB", (8, 8), "blue")]}
    first = seen(Image.new("RGB", (8, 8), RED), "moving.gif", **moving)
    assert (first == RED).all()
    first = seen(Image.new("RGB", (8, 8), RED), "moving.webp", lossless=True, **moving)
    assert (first == RED).all()
    assert (seen(Image.new("1", (8, 8), 1), "bit.png") == WHITE).all()
    Image.new("RGB", (1, 1), RED).save(tmp_path / "dot.png")
    assert (hwc(store.decode(tmp_path / "dot.png", 9)[0]) == RED).all()
    Image.new("RGB", (8, 8), RED).save(tmp_path / "really a png.jpg", format="PNG")
    assert (hwc(store.decode(tmp_path / "really a png.jpg", None)[0]) == RED).all()
    Image.new("RGB", (8, 8), RED).save(
        tmp_path / "odd.jpg", exif=b"Exif\0\0rubbish that is no TIFF"
    )
    odd = hwc(store.decode(tmp_path / "odd.jpg", None)[0])
    assert abs(odd.astype(int) - RED).max() < 8


def test_resizing_is_antialiased_bilinear(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (90, 140, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "noise.png")
    reference = F.resize(
        torch.from_numpy(picture).permute(2, 0, 1), [40, 40], antialias=True
    )
    pixels, seen = store.decode(tmp_path / "noise.png", 40)
    assert seen == (140, 90)
    assert abs(pixels.astype(int) - reference.numpy()).max() <= 1


def test_a_large_jpeg_is_reduced_while_decoding_and_looks_the_same(tmp_path):
    picture = scene(1600, 1200)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(tmp_path / "large.jpg", quality=95, exif=exif)
    reference = F.resize(
        torch.from_numpy(np.rot90(picture, -1).copy()).permute(2, 0, 1),
        [64, 64],
        antialias=True,
    )
    pixels, seen = store.decode(tmp_path / "large.jpg", 64)
    assert seen == (1200, 1600)
    assert abs(pixels.astype(int) - reference.numpy()).max() <= 6


def test_trim_cuts_rows_at_the_bottom(tmp_path):
    picture = scene(60, 50)
    Image.fromarray(picture).save(tmp_path / "a.png")
    pixels, seen = store.decode(tmp_path / "a.png", None, trim=20)
    assert seen == (60, 30)
    np.testing.assert_array_equal(hwc(pixels), picture[:30])
    with pytest.raises(InputError, match="a.png"):
        store.decode(tmp_path / "a.png", 32, trim=50)


def bad_files(folder):
    whole = io.BytesIO()
    Image.fromarray(scene(200, 200)).save(whole, "JPEG")
    postscript = (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    )
    bomb = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(bomb, "PNG")
    huge = bytearray(bomb.getvalue())
    huge[16:24] = (2**31 - 1).to_bytes(4, "big") * 2  # the header claims 4.6e18 pixels
    depth = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.float32)).save(depth, "TIFF")
    contents = {
        "truncated.jpg": whole.getvalue()[: len(whole.getvalue()) // 2],
        "text.jpg": b"<html>404</html>",
        "empty.png": b"",
        "page.jpg": postscript,
        "bomb.png": bomb.getvalue(),
        "huge.png": bytes(huge),
        "depth.tif": depth.getvalue(),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return contents


def test_bad_files_are_named(tmp_path):
    for name in [*bad_files(tmp_path), "missing.jpg"]:
        with pytest.raises(InputError) as caught:
            store.decode(tmp_path / name, 16)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


# Entries


def squares(*arguments, folder: Path, **more):
    """store.squares, which keeps what it makes in this folder."""
    with mock.patch.object(paths, "store", lambda: folder):
        return store.squares(*arguments, **more)


def test_rows_are_the_files_in_order_and_nothing_warns(tmp_path, pictures):
    files, arrays = pictures
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images, sizes = squares(files, 24, "f1", folder=tmp_path / "s")
        again, _ = squares(files, 24, "f1", folder=tmp_path / "s")
    assert images.shape == (40, 3, 24, 24)
    assert images.dtype == torch.uint8
    assert sizes.tolist() == [[a.shape[1], a.shape[0]] for a in arrays]
    for row, array in zip(images, arrays, strict=True):
        reference = F.resize(
            torch.from_numpy(array.copy()).permute(2, 0, 1), [24, 24], antialias=True
        )
        assert (row.int() - reference.int()).abs().max() <= 1
    assert torch.equal(images, again)
    images[0] = 0  # stays with this tensor
    assert torch.equal(squares(files, 24, "f1", folder=tmp_path / "s")[0], again)
    assert not torch.equal(images, again)


def test_a_stale_entry_is_replaced_and_other_sizes_and_names_stay(tmp_path, pictures):
    files, _ = pictures
    old, new = "a" * 64, "b" * 64
    squares(files, 16, old, name="birds", folder=tmp_path / "s")
    squares(files, 8, old, name="birds", folder=tmp_path / "s")
    squares(files, 16, old, name="birds-16", folder=tmp_path / "s")
    first, _ = squares(files, 16, old, name="birds", folder=tmp_path / "s")
    second, _ = squares(files[::-1], 16, new, name="birds", folder=tmp_path / "s")
    # the old one's pages are still there for whoever holds them
    assert torch.equal(first, second.flip(0))
    kept = sorted(f.name for f in (tmp_path / "s").iterdir() if f.is_dir())
    assert kept == [
        f"birds-16-16-{old[:16]}",
        f"birds-16-{new[:16]}",
        f"birds-8-{old[:16]}",
    ]


DAMAGE = {
    "cut": lambda d: os.truncate(d / "images.npy", 5000),
    "grown": lambda d: os.truncate(d / "images.npy", 500_000),
    "header": lambda d: overwrite(d / "images.npy", 0, b"\0" * 64),
    "tail": lambda d: overwrite(d / "images.npy", -64, b"\1\2" * 32),
    "gone": lambda d: (d / "images.npy").unlink(),
    "other array": lambda d: overwrite(d / "sizes.npy", -8, b"\7" * 8),
    "no index": lambda d: (d / "index.json").unlink(),
    "half an index": lambda d: os.truncate(d / "index.json", 20),
    "empty index": lambda d: (d / "index.json").write_text("{}"),
    "list": lambda d: (d / "index.json").write_text("[]"),
}


def overwrite(path, where, content):
    with open(path, "r+b") as file:
        file.seek(where, os.SEEK_END if where < 0 else os.SEEK_SET)
        file.write(content)


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_entry_is_built_again(tmp_path, pictures, how):
    right = squares(pictures[0], 16, "f" * 64, folder=tmp_path)[0].clone()
    DAMAGE[how](tmp_path / ("pictures-16-" + "f" * 16))
    assert torch.equal(squares(pictures[0], 16, "f" * 64, folder=tmp_path)[0], right)


def test_a_bad_picture_among_good_ones_leaves_nothing_behind(tmp_path, pictures):
    files = list(pictures[0])
    files[23].write_bytes(b"rubbish")
    with pytest.raises(InputError, match="23 ü.png"):
        squares(files, 16, "f1", folder=tmp_path / "s")
    assert [f.name for f in (tmp_path / "s").iterdir()] == ["pictures-16.lock"]


def test_cached_arrays_are_built_once_under_any_name(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "store", lambda: tmp_path)
    made = []

    def build():
        made.append(1)
        return {
            "a": np.arange(12.0).reshape(3, 4),
            "none": np.zeros((0, 4), np.float32),
            "flag": np.array(True),
        }

    for name in ("fieldguide-1 40/10", "fieldguide-1 40:10", "x" * 300):
        made.clear()
        for _ in range(2):
            arrays = store.cached_arrays(name, build)
            assert len(made) == 1
            for key, array in build().items():
                assert arrays[key].dtype == array.dtype
                assert np.array_equal(arrays[key], array)
            made.pop()


# Processes: real ones, made by a server that has imported the slow things already

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["fgbook.data.store", "fgbook.data.fetch", "torchvision.transforms.v2", "pytest"]
)


def build(answer, log, place, slow, files, limit=0):
    """What a process does: note each picture that it decodes, and answer with the sum
    of all pixels or what it was told.
    """
    decode = store.decode

    def noted(path, *arguments):
        with open(log, "a") as file:
            file.write("x\n")
        time.sleep(slow)
        return decode(path, *arguments)

    store.decode = noted
    if limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        answer.send(int(squares(files, 32, "a" * 64, folder=place)[0].long().sum()))
    except InputError as error:
        answer.send(str(error))


def start(*args, target=build):
    here, there = SERVER.Pipe()
    process = SERVER.Process(target=target, args=(there, *args))
    process.start()
    there.close()
    return process, here


def test_of_four_processes_one_builds(tmp_path, pictures):
    running = [
        start(tmp_path / "log", tmp_path / "s", 0.01, pictures[0]) for _ in range(4)
    ]
    assert len({answer.recv() for _, answer in running}) == 1
    for process, _ in running:
        process.join(20)
    assert len((tmp_path / "log").read_text().split()) == len(pictures[0])


def test_a_killed_builder_leaves_no_store_that_looks_whole(tmp_path, pictures):
    right = squares(pictures[0], 32, "a" * 64, folder=tmp_path / "right")[0]
    place, moments = tmp_path / "s", random.Random(0)
    for i in range(6):
        log = tmp_path / f"log {i}"
        # forty pictures by two threads: 0.6 s at least
        process, _ = start(log, place, 0.03, pictures[0])
        while not log.exists():
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.4))
        process.kill()
        process.join(20)
        assert process.exitcode == -signal.SIGKILL
        assert (place / ("pictures-32-" + "a" * 16 + ".partial")).is_dir()
    images, _ = squares(pictures[0], 32, "a" * 64, folder=place)
    assert torch.equal(images, right)
    assert sorted(f.name for f in place.iterdir()) == [
        "pictures-32-" + "a" * 16,
        "pictures-32.lock",
    ]


def test_a_full_disk_is_said_and_other_entries_stay(tmp_path, pictures):
    """A process whose files may not grow past 50 kB stands for a full disk; the entry
    needs 120 kB.
    """
    right = squares(pictures[0], 8, "b" * 64, folder=tmp_path / "s")[0].clone()
    process, answer = start(tmp_path / "log", tmp_path / "s", 0, pictures[0], 50_000)
    said = answer.recv()
    process.join(20)
    assert f"cannot write decoded pictures in {tmp_path / 's'}" in said
    assert "FGBOOK_RUNS" in said
    assert not list((tmp_path / "s").glob("pictures-32-*"))
    assert torch.equal(
        squares(pictures[0], 8, "b" * 64, folder=tmp_path / "s")[0], right
    )


def grow(answer, place, files):
    """How many bytes of squares are written, and by how many bytes that makes the
    process grow at most.
    """
    squares(files[:40], 64, "warm", name="warm", folder=place)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    images, _ = squares(files, 512, "a", folder=place)
    answer.send(
        (
            images.numel(),
            1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before),
        )
    )


def test_memory_stays_bounded(tmp_path, pictures):
    process, answer = start(tmp_path, pictures[0] * 8, target=grow)
    written, grown = answer.recv()
    process.join(20)
    assert written > 250e6
    assert grown < written / 4
