"""Decoded pictures, kept: each is decoded once per size and read ever after from a
    memory-mapped array.

An entry is a folder ``NAME-FINGERPRINT`` of ``.npy`` files with an ``index.json``. It
is written under a temporary name and renamed when complete, under a lock, so that of
several processes one builds and the others wait; a folder with the right name is
therefore whole. Entries of the same name and another fingerprint are stale, and are
removed when the new one is ready.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from .. import paths
from ..errors import InputError

# raise when decoding or resizing changes; it is part of every fingerprint of picture
# files
VERSION = 1

# larger pictures are refused before they are decoded: a file of some kilobytes can
# claim gigabytes
MAX_PIXELS = 64_000_000
# not the ones that Pillow hands to other programs
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
# decode() refuses such pictures, in one sentence
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".gif",
    ".bmp",
    ".webp",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
)


def workers() -> int:
    """Threads for reading and decoding (Pillow decodes outside the interpreter's
    lock)."""
    cores = (
        len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1
    )
    return min(cores, 16)


def in_order(work: Callable, items: Iterable) -> Iterator:
    """`work` of each item, in order, by a few threads that run only a little ahead of
    the reader: memory stays bounded."""
    threads = workers()
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 4 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def squares(
    files: list[Path],
    size: int,
    fingerprint: str,
    *,
    name: str = "pictures",
    trim: int = 0,
    boxes: np.ndarray | None = None,
    digests: list[str] | None = None,
    folder: Path | None = None,
    progress: bool = True,
) -> tuple[Tensor, Tensor]:
    """All pictures squashed to `size` x `size` pixels, and the size that each had.

    Returns (images, sizes): images (N, 3, size, size) uint8 RGB, memory-mapped (pages
    are read when used; writing changes only this process's copy); sizes (N, 2) int64,
    width and height in pixels of the picture as seen, after `trim` rows at its bottom
    were cut, or what is outside its box (`boxes` (N, 4) int64 xyxy). See
    :func:`decode`.

    The result is kept in `folder` (default: :func:`fgbook.paths.store`) under `name`,
    `size` and `fingerprint`; the caller's fingerprint must change whenever the files
    do. Raises InputError for a file that cannot be decoded, for one whose content is no
    longer that of `digests` (see :func:`digest`), which the fingerprint was made of,
    and for a folder that cannot be written.
    """

    def read(row: tuple) -> tuple:
        file, box, expected = row
        square = decode(file, size, trim, box)
        if expected and digest(file) != expected:
            raise InputError(
                f"{file}: changed while its data set was being read; run the same"
                " command again."
            )
        return square

    def write(target: Path):
        header = {
            "descr": "|u1",
            "fortran_order": False,
            "shape": (len(files), 3, size, size),
        }
        sizes = []
        # Written as a stream, not through a memory map: a full disk is then an error
        # that can be reported, not a SIGBUS, and nothing piles up in memory.
        style = {
            "desc": f"decode {name} at {size} px",
            "leave": False,
            "mininterval": 1,
            "disable": not progress or len(files) < 500,
        }
        with (
            open(target / "images.npy", "wb") as file,
            tqdm(total=len(files), **style) as bar,
        ):
            np.lib.format.write_array_header_1_0(file, header)
            nothing = [None] * len(files)
            for pixels, seen in in_order(
                read,
                zip(
                    files,
                    nothing if boxes is None else boxes.tolist(),
                    digests or nothing,
                    strict=True,
                ),
            ):
                file.write(pixels)
                sizes.append(seen)
                bar.update()
        np.save(target / "sizes.npy", np.array(sizes, np.int64).reshape(-1, 2))

    arrays = entry(f"{name}-{size}", fingerprint, write, folder)
    return torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["sizes"])


def cached_arrays(
    name: str, build: Callable[[], dict[str, np.ndarray]], *, folder: Path | None = None
) -> dict[str, np.ndarray]:
    """The arrays that `build` makes, kept under `name`, which must say everything that
    determines them. Memory-mapped, copy on write."""

    def write(target: Path):
        for key, array in build().items():
            np.save(target / f"{key}.npy", array, allow_pickle=False)

    return entry(name, hashlib.sha256(name.encode()).hexdigest(), write, folder)


def digest(path: Path) -> str:
    """sha256 of a file's content. Raises InputError where it is missing or cannot be
    read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); it is listed in its data set."
        ) from error


def whole_pixels(boxes: np.ndarray) -> np.ndarray:
    """The smallest boxes of whole pixels round `boxes` (N, 4) xyxy that do not begin
    outside the picture: (N, 4) int64."""
    return np.concatenate(
        [np.floor(boxes[:, :2]).clip(min=0), np.ceil(boxes[:, 2:])], 1
    ).astype(np.int64)


def decode(
    path: Path, size: int | None, trim: int = 0, box: list[int] | None = None
) -> tuple[np.ndarray, tuple[int, int]]:
    """One picture as people see it: pixels (3, size, size) uint8 RGB (None: its own
        height and width), and (width, height) as seen.

    The EXIF rotation is applied, the first frame of an animation is taken, transparent
    pixels are laid on white, 16-bit grey is scaled to 8 bits; colour profiles are
    ignored, as everywhere in the field. Resized with Pillow's bilinear filter, which
    antialiases; a JPEG more than twice too large is reduced while it is decoded, to no
    less than twice `size`. `box`, xyxy in whole pixels of the picture as seen: all
    outside it is cut away. Raises InputError that names the file.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise InputError(
                    f"{path}: {width} x {height} pixels; pictures of more than"
                    f" {MAX_PIXELS // 10**6} million pixels are refused."
                )
            orientation = _orientation(image)
            if orientation >= 5:
                width, height = height, width
            if height <= trim:
                raise InputError(
                    f"{path}: only {height} pixels high, and {trim} rows at the bottom"
                    " are to be cut."
                )
            if box is not None:
                box = [box[0], box[1], min(box[2], width), min(box[3], height)]
                if box[0] >= box[2] or box[1] >= box[3]:
                    raise InputError(
                        f"{path}: the box to cut it to lies outside its {width} x"
                        f" {height} pixels."
                    )
            if size is not None and not trim and box is None:
                image.draft(None, (2 * size, 2 * size))
            upright = _turned(_rgb(image, path), orientation)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(
            f"{path}: far too many pixels; pictures of more than {MAX_PIXELS // 10**6}"
            " million pixels are refused."
        ) from error
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file.") from error
    except MemoryError as error:
        raise InputError(f"{path}: not enough memory to decode it.") from error
    # Pillow's decoders raise nearly anything on damaged files
    except Exception as error:
        raise InputError(
            f"{path}: not a picture that can be decoded"
            f" ({str(error) or type(error).__name__}); replace it or take it away."
        ) from error
    if trim:
        upright = upright.crop((0, 0, width, height - trim))
        height -= trim
    if box is not None:
        upright = upright.crop(box)
        width, height = upright.size
    if size is not None:
        upright = upright.resize((size, size), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(upright).transpose(2, 0, 1)), (width, height)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(0x0112, 1)
    # rubbish in the EXIF block of a good picture: viewers ignore it too
    except Exception:
        return 1
    return value if value in range(1, 9) else 1


_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    return (
        image
        if orientation == 1
        else image.transpose(Image.Transpose[_TURNS[orientation]])
    )


def _rgb(image: Image.Image, path: Path) -> Image.Image:
    # convert() would clip these to white
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "I;16N"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(
                f"{path}: grey values outside 0 to 65535; save it with 8 or 16 bits."
            )
        return Image.fromarray(
            ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
        ).convert("RGB")
    if image.mode == "F":
        raise InputError(
            f"{path}: a picture of floating-point numbers; save it with 8 or 16 bits."
        )
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


# Entries


def entry(
    name: str,
    fingerprint: str,
    write: Callable[[Path], None],
    folder: Path | None = None,
) -> dict[str, np.ndarray]:
    """The arrays of an entry, memory-mapped, copy on write; where there is none, or a
    damaged one, `write` makes its files in a temporary folder first."""
    place = folder or paths.store()
    name = paths.file_name(name)
    final = place / f"{name}-{fingerprint[:16]}"
    found = _open(final, fingerprint)
    if found is not None:
        return found
    try:
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / f"{name}.lock"):
            found = _open(final, fingerprint)  # another process may have been faster
            if found is None:
                _build(final, fingerprint, write)
                _remove_stale(name, final)
                found = _open(final, fingerprint)
    except OSError as error:
        free = shutil.disk_usage(place).free / 1e9 if place.is_dir() else 0.0
        raise InputError(
            f"cannot write decoded pictures in {place} ({error.strerror or error};"
            f" {free:.1f} GB free); make room or set FGBOOK_RUNS to another folder."
        ) from error
    if found is None:
        raise InputError(
            f"{final} cannot be read back after it was written; is the disk failing?"
        )
    return found


def _build(final: Path, fingerprint: str, write: Callable[[Path], None]):
    partial = final.with_name(final.name + ".partial")
    # of a process that was killed; nobody else can be in it, we hold the lock
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        write(partial)
        index = {"fingerprint": fingerprint, "arrays": {}}
        for path in sorted(partial.iterdir()):
            with open(path, "rb") as file:
                os.fsync(file.fileno())
            index["arrays"][path.stem] = {
                "bytes": path.stat().st_size,
                "sample": _sample(path),
            }
        with open(partial / "index.json", "w", encoding="utf-8") as file:
            json.dump(index, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        shutil.rmtree(final, ignore_errors=True)  # a damaged one
        os.replace(partial, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_stale(name: str, keep: Path):
    for other in keep.parent.iterdir():
        if other != keep and re.fullmatch(
            re.escape(name) + r"-[0-9a-f]{16}(\.partial)?", other.name
        ):
            # a process that has it mapped keeps its pages
            shutil.rmtree(other, ignore_errors=True)


def _open(entry: Path, fingerprint: str) -> dict[str, np.ndarray] | None:
    """The arrays of an entry, or None where it is missing, incomplete or damaged."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        index = json.loads((entry / "index.json").read_text(encoding="utf-8"))
        paths_ = {key: entry / f"{key}.npy" for key in index["arrays"]}
        if index["fingerprint"] != fingerprint or not paths_:
            return None
        for key, path in paths_.items():
            expected = index["arrays"][key]
            if (
                path.stat().st_size != expected["bytes"]
                or _sample(path) != expected["sample"]
            ):
                return None
        return {key: _map(path) for key, path in paths_.items()}
    return None


def _map(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="c")
    except ValueError:  # an array without elements cannot be mapped
        return np.load(path)


def _sample(path: Path, blocks: int = 64, length: int = 4096) -> int:
    """A checksum of blocks spread evenly over the file, from beginning to end: finds
    lost and overwritten stretches in no time."""
    size, checksum = path.stat().st_size, 0
    with open(path, "rb") as file:
        for i in range(blocks):
            file.seek(max(0, size - length) * i // (blocks - 1))
            checksum = zlib.crc32(file.read(length), checksum)
    return checksum
