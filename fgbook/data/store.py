"""Decoded pictures, kept: each is decoded once per size and read ever after from a
memory-mapped array.

An entry is a folder ``NAME-FINGERPRINT`` of ``.npy`` files with an ``index.json``. It
is written under a temporary name and renamed when complete, under a lock, so that of
several processes one builds and the others wait; a folder with the right name is
therefore whole. Entries of the same name and another fingerprint are stale, and are
removed when the new one is ready.
"""

from __future__ import annotations

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
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock
from PIL import Image

from .. import paths
from ..errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
"""Raised when decoding or resizing changes; part of every fingerprint of picture
files.
"""

MAX_PIXELS = 64_000_000
"""Larger pictures are refused before they are decoded: a file of some kilobytes can
claim gigabytes.
"""

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
"""What is decoded; not the formats that Pillow hands to other programs."""

# fmt: off
SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm",
)
# fmt: on

# Pillow warns of large pictures on its own; decode() refuses them in one sentence.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def workers() -> int:
    """Threads for reading and decoding (Pillow decodes outside the interpreter's
    lock).
    """
    if hasattr(os, "sched_getaffinity"):  # the cores that this process may use
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return min(cores, 16)


def in_order(work: Callable, items: Iterable) -> Iterator:
    """`work` of each item, in order, by a few threads that run only a little ahead of
    the reader: memory stays bounded.
    """
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
            # after an error, or when the reader stops early: start no further work
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
) -> tuple[Tensor, Tensor]:
    """All pictures squashed to `size` x `size` pixels, and the size that each had.

    Returns (images, sizes): images (N, 3, size, size) uint8 RGB, memory-mapped (pages
    are read when used; writing changes only this process's copy); sizes (N, 2) int64,
    width and height in pixels of the picture as seen, after `trim` rows at its bottom
    were cut, or what is outside its box (`boxes` (N, 4) int64 xyxy). See
    :func:`decode`.

    The result is kept under `name`, `size` and `fingerprint`; the caller's fingerprint
    must change whenever the files do. Raises InputError for a file that cannot be
    decoded, for one whose content is no longer that of `digests` (see :func:`digest`),
    which the fingerprint was made of, and for a folder that cannot be written.
    """
    no_boxes = [None] * len(files)
    rows = zip(
        files,
        no_boxes if boxes is None else boxes.tolist(),
        digests or [""] * len(files),
        strict=True,
    )

    def read(row: tuple[Path, list[int] | None, str]) -> tuple:
        file, box, expected = row
        square = decode(file, size, trim, box)
        # After decoding: a file that is exchanged meanwhile would otherwise be kept
        # under the fingerprint of the old one.
        if expected and digest(file) != expected:
            raise InputError(
                f"{file}: changed while its data set was being read; run the same"
                " command again."
            )
        return square

    def write(target: Path) -> None:
        from tqdm.auto import tqdm

        bar = tqdm(
            total=len(files),
            desc=f"decode {name} at {size} px",
            leave=False,
            mininterval=1,
            disable=len(files) < 500,
        )
        header = {
            "descr": "|u1",
            "fortran_order": False,
            "shape": (len(files), 3, size, size),
        }
        sizes = []
        # Written as a stream, not through a memory map: a full disk is then an error
        # that can be reported, not a SIGBUS, and nothing piles up in memory.
        with open(target / "images.npy", "wb") as file, bar:
            np.lib.format.write_array_header_1_0(file, header)
            for pixels, seen in in_order(read, rows):
                file.write(pixels)
                sizes.append(seen)
                bar.update()
        np.save(target / "sizes.npy", np.array(sizes, np.int64).reshape(-1, 2))

    import torch

    arrays = entry(f"{name}-{size}", fingerprint, write)
    return torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["sizes"])


def cached_arrays(
    name: str, build: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays that `build` makes, kept under `name`, which must say everything that
    determines them. Memory-mapped, copy on write.
    """

    def write(target: Path) -> None:
        for key, array in build().items():
            np.save(target / f"{key}.npy", array, allow_pickle=False)

    return entry(name, hashlib.sha256(name.encode()).hexdigest(), write)


_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how such a file begins


def digest(path: Path) -> str:
    """sha256 of a file's content. Raises InputError where it is missing or cannot be
    read.

    Of a TIFF with an orientation tag, the sha256 of that and a mark: earlier versions
    turned such pictures twice, and what they kept or trained must not be taken for
    today's. All other digests, and so all fingerprints, stay as they were.
    """
    try:
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            is_tiff = file.read(4) in _TIFF
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); put it back, or make it"
            " readable."
        ) from error

    if is_tiff and _tagged(path):
        return hashlib.sha256(f"{content} turned once".encode()).hexdigest()
    return content


def _tagged(path: Path) -> bool:
    """Whether the orientation tag of a picture asks for a turn."""
    # Not a picture after all? decode() will say so.
    with contextlib.suppress(Exception), Image.open(path, formats=FORMATS) as image:
        return _orientation(image) != 1
    return False


def whole_pixels(boxes: np.ndarray) -> np.ndarray:
    """The smallest boxes of whole pixels round `boxes` (N, 4) xyxy that do not begin
    outside the picture: (N, 4) int64.
    """
    corners = np.floor(boxes[:, :2]).clip(min=0)
    ends = np.ceil(boxes[:, 2:])
    return np.concatenate([corners, ends], 1).astype(np.int64)


# Decoding


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
    # A reduced picture has other coordinates than `trim` and `box`.
    reduce_to = size if not trim and box is None else None
    picture, seen = _read(path, reduce_to)

    if trim:
        picture = _trimmed(picture, trim, path)
        seen = picture.size
    if box is not None:
        picture = _cut(picture, box, path)
        seen = picture.size
    if size is not None:
        picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1)), seen


def _read(path: Path, reduce_to: int | None) -> tuple[Image.Image, tuple[int, int]]:
    """An RGB picture, upright, and the (width, height) that it has in full: a JPEG may
    come reduced, to no less than twice `reduce_to`.
    """
    too_large = (
        f"pictures of more than {MAX_PIXELS // 10**6} million pixels are refused."
    )
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise InputError(f"{path}: {width} x {height} pixels; {too_large}")
            reduced = False
            if reduce_to is not None:
                half = (2 * reduce_to, 2 * reduce_to)
                reduced = image.draft(None, half) is not None

            # The tag is read after the pixels: Pillow turns a TIFF while it loads it,
            # and then takes the tag away. Before, it would be turned a second time.
            image.load()
            orientation = _orientation(image)
            picture = _turned(_rgb(image, path), orientation)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{path}: far too many pixels; {too_large}") from error
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

    if not reduced:
        return picture, picture.size
    return picture, (height, width) if orientation in _SIDEWAYS else (width, height)


def _trimmed(picture: Image.Image, trim: int, path: Path) -> Image.Image:
    width, height = picture.size
    if height <= trim:
        raise InputError(
            f"{path}: only {height} pixels high, and {trim} rows at the bottom are to"
            " be cut."
        )
    return picture.crop((0, 0, width, height - trim))


def _cut(picture: Image.Image, box: list[int], path: Path) -> Image.Image:
    width, height = picture.size
    # some official boxes reach beyond their picture
    left, top, right, bottom = box[0], box[1], min(box[2], width), min(box[3], height)
    if left >= right or top >= bottom:
        raise InputError(
            f"{path}: the box to cut it to lies outside its {width} x {height} pixels."
        )
    return picture.crop((left, top, right, bottom))


_ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)  # width and height change places


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    # rubbish in the EXIF block of a good picture: viewers ignore it too
    except Exception:
        return 1
    return value if value in _TURNS else 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    if orientation == 1:
        return image
    return image.transpose(_TURNS[orientation])


def _rgb(image: Image.Image, path: Path) -> Image.Image:
    # convert() would clip these to white
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "I;16N"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(
                f"{path}: grey values outside 0 to 65535; save it with 8 or 16 bits."
            )
        grey = (values.astype(np.uint32) + 128) // 257  # 65535 = 255 * 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")

    if image.mode == "F":
        raise InputError(
            f"{path}: a picture of floating-point numbers; save it with 8 or 16 bits."
        )

    has_alpha = image.mode in ("RGBA", "LA", "PA", "La", "RGBa")
    if has_alpha or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


# Entries


def entry(
    name: str, fingerprint: str, write: Callable[[Path], None]
) -> dict[str, np.ndarray]:
    """The arrays of an entry of :func:`fgbook.paths.store`, memory-mapped, copy on
    write; where there is none, or a damaged one, `write` makes its files in a temporary
    folder first.

    Raises InputError for a folder that cannot be written, and what `write` raises.
    """
    place = paths.store()
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
        there = next(above for above in (place, *place.parents) if above.is_dir())
        free = shutil.disk_usage(there).free / 1e9
        raise InputError(
            f"cannot write decoded pictures in {place} ({error.strerror or error};"
            f" {free:.1f} GB free); make room or set FGBOOK_RUNS to another folder."
        ) from error
    if found is None:
        raise InputError(
            f"{final} cannot be read back after it was written; is the disk failing?"
        )
    return found


def _build(final: Path, fingerprint: str, write: Callable[[Path], None]) -> None:
    partial = final.with_name(final.name + ".partial")
    # of a process that was killed; nobody else can be in it, we hold the lock
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        write(partial)
        arrays = {}
        for path in sorted(partial.iterdir()):
            # On the disk before the rename is: else a power cut could leave a folder
            # with the right name and empty files.
            with open(path, "rb") as file:
                os.fsync(file.fileno())
            arrays[path.stem] = {"bytes": path.stat().st_size, "sample": _sample(path)}
        with open(partial / "index.json", "w", encoding="utf-8") as file:
            json.dump({"fingerprint": fingerprint, "arrays": arrays}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        shutil.rmtree(final, ignore_errors=True)  # a damaged one
        os.replace(partial, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_stale(name: str, keep: Path) -> None:
    same_name = re.compile(re.escape(name) + r"-[0-9a-f]{16}(\.partial)?")
    for other in keep.parent.iterdir():
        if other != keep and same_name.fullmatch(other.name):
            # a process that has it mapped keeps its pages
            shutil.rmtree(other, ignore_errors=True)


def _open(place: Path, fingerprint: str) -> dict[str, np.ndarray] | None:
    """The arrays of an entry, or None where it is missing, incomplete or damaged."""
    # the errors of damaged JSON, of JSON with another structure, of missing files
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        index = json.loads((place / "index.json").read_text(encoding="utf-8"))
        if index["fingerprint"] != fingerprint or not index["arrays"]:
            return None
        arrays = {}
        for key, expected in index["arrays"].items():
            path = place / f"{key}.npy"
            if path.stat().st_size != expected["bytes"]:
                return None
            if _sample(path) != expected["sample"]:
                return None
            arrays[key] = _map(path)
        return arrays
    return None


def _map(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="c")
    except ValueError:  # an array without elements cannot be mapped
        return np.load(path)


BLOCKS, LENGTH = 64, 4096  # of a sample; in bytes


def _sample(path: Path) -> int:
    """A checksum of blocks spread evenly over the file, from beginning to end: finds
    lost and overwritten stretches in no time.
    """
    size = path.stat().st_size
    checksum = 0
    with open(path, "rb") as file:
        for i in range(BLOCKS):
            file.seek(max(0, size - LENGTH) * i // (BLOCKS - 1))
            checksum = zlib.crc32(file.read(LENGTH), checksum)
    return checksum
