"""Downloading the official archives: resumed where they broke off, verified, unpacked
with suspicion, and in place only when whole.

pooch does what it can: it knows the checksums, downloads under a temporary name and
gives a file its own only when it is verified. Two things are done here instead, because
pooch has no way to: its downloaders begin again from the first byte after each break,
which with a gigabyte from a slow server may never end; and its ``Untar`` has no limit
of size and follows links.
"""

import contextlib
import gzip
import lzma
import os
import posixpath
import shutil
import tarfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pooch
import requests
import urllib3
from filelock import AcquireReturnProxy, FileLock, Timeout
from tqdm.auto import tqdm

from .. import paths
from ..errors import InputError, unknown
from . import path as path_of

TRIES = 5  # in a row without a single new byte, before a source is given up
PATIENCE = (10, 60)  # seconds to connect, and to wait for more
PAUSE = 1.0  # seconds before the second try; doubled for each further one
BLOCK = 1 << 14  # bytes read at once; small: when it breaks off, the block is lost
MAX_DOWNLOAD = 4_000_000_000  # bytes, where an archive's own size is not known
MAX_UNPACKED = 8_000_000_000  # bytes of a whole data set
MAX_MEMBERS = 200_000


@dataclass(frozen=True)
class Archive:
    """A file of a data set, as its authors publish it."""

    file: str
    checksum: str  # "sha256:..." or "md5:..."
    urls: tuple[str, ...]  # tried in this order; none: it can no longer be downloaded
    size: int | None = None  # bytes


_VGG = ("https://www.robots.ox.ac.uk/~vgg/data/",)
_DOGS = ("http://vision.stanford.edu/aditya86/ImageNetDogs/",)


def _at(
    bases: tuple[str, ...], place: str, checksum: str, size: int | None = None
) -> Archive:
    file = place.rsplit("/", 1)[-1]
    return Archive(file, checksum, tuple(base + place for base in bases), size)


SOURCES: dict[str, tuple[Archive, ...]] = {
    "cub": (
        _at(
            ("https://data.caltech.edu/records/65de6-vp158/files/",),
            "CUB_200_2011.tgz",
            "sha256:0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
            1_150_585_339,
        ),
    ),
    "aircraft": (
        _at(
            _VGG,
            "fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
            "md5:d4acdd33327262359767eeaa97a4f732",
        ),
    ),
    "dogs": (
        _at(
            _DOGS,
            "images.tar",
            "sha256:a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58",
            793_579_520,
        ),
        _at(
            _DOGS,
            "annotation.tar",
            "sha256:662ed36f707be6b195c2fda392d8e153e83af28cedc8e2134a649f198def30fd",
            21_852_160,
        ),
        _at(
            _DOGS,
            "lists.tar",
            "sha256:34b47cacd9a98b5d150e084f24d29391c084c55272295ec65c85651bc35f4d6c",
            481_280,
        ),
    ),
    "flowers": (
        _at(
            _VGG,
            "flowers/102/102flowers.tgz",
            "sha256:2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
            344_862_509,
        ),
        _at(
            _VGG,
            "flowers/102/imagelabels.mat",
            "sha256:4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d",
            502,
        ),
        _at(
            _VGG,
            "flowers/102/setid.mat",
            "sha256:46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd",
            14_989,
        ),
    ),
    "imagewoof": (
        _at(
            ("https://s3.amazonaws.com/fast-ai-imageclas/",),
            "imagewoof2-320.tgz",
            "sha256:4e4905ed7643120daaf9bf3b2ef7f3a7e8396d9bdaf254a38c6f01f618b4973d",
            328_288_506,
        ),
    ),
    "cars": (  # the links have been dead for years
        Archive(
            "cars_train.tgz",
            "sha256:512b227b30e2f0a8aab9e09485786ab4479582073a144998da74d64b801fd288",
            (),
            979_269_282,
        ),
        Archive(
            "cars_test.tgz",
            "sha256:bffea656d6f425cba3c91c6d83336e4c5f86c6cffd8975b0f375d3a10da8e243",
            (),
            977_350_468,
        ),
        Archive(
            "car_devkit.tgz",
            "sha256:b97deb463af7d58b6bfaa18b2a4de9829f0f79e8ce663dfa9261bf7810e9accd",
            (),
            330_960,
        ),
        Archive(
            "cars_test_annos_withlabels.mat",
            "sha256:790f75be8ea34eeded134cc559332baf23e30e91367e9ddca97d26ed9b895f05",
            (),
            185_758,
        ),
    ),
}
"""Checksums and sizes as torchvision's and TensorFlow Datasets' loaders publish
them.
"""

PARTS = {"cub50": "cub", "dogs21": "dogs"}
"""Data sets that are part of another."""


class NotDelivered(InputError):
    """The name is right, but no source delivers; on the command line a failure."""


def size(name: str) -> int | None:
    """How many bytes there are to download for a data set (of the whole one, where it
    is a part); None where its authors offer nothing, or say no size.
    """
    archives = SOURCES.get(PARTS.get(name, name), ())
    total = 0
    for archive in archives:
        if not archive.urls or archive.size is None:
            return None
        total += archive.size
    return total or None


def get(name: str) -> Path:
    """Download a data set into the data folder and unpack it there; the folder that its
    pictures are then read from. One that is there already is left alone, wherever its
    loader finds it, be it the whole or the part that is asked for.

    Broken downloads go on where they stopped, in this call or the next; archives that
    somebody put into ``downloads/NAME`` of the data folder are used. Every archive is
    verified before it is unpacked. The data set's folder appears when all of it is
    there. Raises NotDelivered where no source is left (with the reason of each), and
    InputError: unknown name, a folder in its place that holds something else or less, a
    checksum that does not fit, an archive that reaches outside its folder or is far too
    large, a full or read-only disk.
    """
    whole = PARTS.get(name, name)
    if whole not in SOURCES:
        raise unknown("data set that can be downloaded", name, [*SOURCES, *PARTS])
    with contextlib.suppress(InputError):  # where its loader does not find it whole
        return path_of(name)
    final = paths.data() / whole
    if final.exists():
        raise InputError(
            f"{final} is there, but not all of data set {whole} in it (`fgbook data"
            f" check {name}` says what is missing); complete it, or move it away and"
            " give the same command again."
        )
    keep = paths.data() / "downloads" / whole
    try:
        keep.mkdir(parents=True, exist_ok=True)
        with _turn(keep.with_suffix(".lock"), whole):
            if not final.exists():  # another process may have been faster
                _get(whole, keep, final)
    except OSError as error:
        raise InputError(
            f"cannot write in {paths.data()} ({error.strerror or error}); make room, or"
            " set FGBOOK_DATA to a folder that can be written."
        ) from error
    return path_of(name)


def _get(name: str, keep: Path, final: Path) -> None:
    """Fetch a data set's archives into `keep`, and unpack them as `final`."""
    archives = SOURCES[name]
    missing = []
    for archive in archives:
        if not archive.urls and not (keep / archive.file).is_file():
            missing.append(f"{archive.file} ({archive.checksum})")
    if missing:
        raise InputError(
            f"data set {name} can no longer be downloaded from its authors; find these"
            f" files elsewhere, put them into {keep} and give the same command again,"
            f" which verifies and unpacks them: {', '.join(missing)}."
        )

    before = {(path.name, path.stat().st_ino) for path in keep.iterdir()}
    files = [_fetch(archive, keep) for archive in archives]
    _unpack_all(files, final)
    # What somebody put there stays, and the folder with it; but not the archives that
    # came now, beginnings of them, and temporary files of pooch that was killed.
    for file in files:
        if (file.name, file.stat().st_ino) not in before:
            file.unlink()
        file.with_name(f"{file.name}.part").unlink(missing_ok=True)
    for file in keep.glob("tmp????????"):
        if file.is_file():
            file.unlink()
    with contextlib.suppress(OSError):
        keep.rmdir()


def _turn(path: Path, name: str) -> AcquireReturnProxy:
    """Held while a data set is fetched. A second process that wants it says so, and
    waits.
    """
    lock = FileLock(path)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        print(
            f"data set {name} is being fetched by another process; waiting for it.",
            flush=True,
        )
        return lock.acquire()


# Downloading


def _fetch(archive: Archive, folder: Path) -> Path:
    """An archive in `folder`, verified; downloaded from the first source that delivers
    it.
    """
    pooch.get_logger().setLevel("WARNING")  # the progress bar says it already
    path = folder / archive.file
    if path.is_file() and pooch.hashes.hash_matches(str(path), archive.checksum):
        return path
    if path.is_file() and not archive.urls:
        raise InputError(
            f"{path} is not the official file: its checksum is not {archive.checksum}."
        )
    if path.is_file():  # somebody's
        kept = path.with_name(f"{path.name}.{time.time_ns()}")
        path.rename(kept)
        print(
            f"{path} is not the official file (its checksum is another): it is kept as"
            f" {kept.name}, and the official one is downloaded.",
            flush=True,
        )

    failures = []
    for url in archive.urls:
        try:
            return _from_source(archive, url, folder)
        except ValueError:  # pooch's, for a wrong checksum
            failures.append(
                f"{url}: what it sends has not the checksum {archive.checksum}"
            )
        except _GivenUp as error:
            failures.append(f"{url}: {error}")
    raise NotDelivered(
        f"{archive.file} could not be downloaded ({'; '.join(failures)}); try again"
        f" later, or put the file into {folder}."
    )


def _from_source(archive: Archive, url: str, folder: Path) -> Path:
    """An archive from one source, verified. Raises ValueError for a wrong checksum,
    _GivenUp for a source that does not deliver.
    """

    def attempt() -> Path:
        found = pooch.retrieve(
            url, archive.checksum, fname=archive.file, path=folder, downloader=download
        )
        return Path(found)

    part = folder / f"{archive.file}.part"
    download = _Download(part, archive.size)
    try:
        return attempt()
    except ValueError:
        if not download.resumed:
            raise
    # Once more, from the beginning: what was resumed may have been the beginning of
    # another file.
    return attempt()


class _GivenUp(Exception):
    """A source that does not deliver."""


class _Download:
    """What pooch calls to download one file: goes on from `part`, which outlives this
    process, and moves it to where pooch verifies it.
    """

    def __init__(self, part: Path, size: int | None):
        self.part = part
        self.limit = size or MAX_DOWNLOAD
        self.exact = size is not None
        self.resumed = False

    def __call__(
        self, url: str, output_file: str, _pooch: object, check_only: bool = False
    ) -> None:
        self.resumed = False
        idle = 0
        while idle < TRIES:
            before = self._have()
            self.resumed = self.resumed or before > 0
            try:
                if self._more(url, before):
                    os.replace(self.part, output_file)
                    return
                reason = "it breaks off"
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                reason = _reason(error)
                if _hopeless(error):
                    break
            idle = 0 if self._have() > before else idle + 1
            if idle < TRIES:
                time.sleep(PAUSE * 2**idle)
        raise _GivenUp(reason)

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _more(self, url: str, start: int) -> bool:
        """Ask for what is still missing and write it behind what is there. Whether the
        file is then as long as the server says.
        """
        # Unencoded, and read raw: some servers call an archive's own compression an
        # encoding, and would have it unpacked on the way.
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        with requests.get(
            url, headers=headers, stream=True, timeout=PATIENCE
        ) as answer:
            if answer.status_code == 416:
                # There is nothing behind what we have: it is all of it, or not this
                # file's beginning.
                _, total = _range(answer)
                if total == start:
                    return True
                self.part.unlink(missing_ok=True)
                return False

            answer.raise_for_status()
            if answer.status_code == 206:
                first, total = _range(answer)
                if first != start:  # not what was asked for
                    self.part.unlink(missing_ok=True)
                    return False
            else:  # a server that knows no ranges sends everything again
                start = 0
                total = _number(answer.headers.get("Content-Length"))
            self._refuse(total)
            have = self._write(answer, start, total)
        return total is None or have == total

    def _refuse(self, total: int | None) -> None:
        """Raises _GivenUp where the length that is announced cannot be right."""
        if total is None:
            return
        if total > self.limit or (self.exact and total != self.limit):
            raise _GivenUp(f"it offers {total} bytes, not {self.limit}")

    def _write(self, answer: requests.Response, start: int, total: int | None) -> int:
        """Write an answer behind the first `start` bytes; how many there are then."""
        bar = tqdm(
            total=total,
            initial=start,
            desc=self.part.stem,
            unit="B",
            unit_scale=True,
            leave=False,
            mininterval=1,
        )
        have = start
        with open(self.part, "ab" if start else "wb") as file, bar:
            for block in answer.raw.stream(BLOCK, decode_content=False):
                have += len(block)
                if have > self.limit:
                    file.close()
                    self.part.unlink()
                    raise _GivenUp(
                        f"it sends more than the {self.limit} bytes that are expected"
                    )
                file.write(block)
                bar.update(len(block))
        return have


def _range(answer: requests.Response) -> tuple[int, int | None]:
    """First byte and total length, of a header such as "bytes 200-999/1000"."""
    header = answer.headers.get("Content-Range", "").removeprefix("bytes ")
    span, _, total = header.partition("/")
    first, _, _ = span.partition("-")
    return _number(first) or 0, _number(total)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


def _hopeless(error: Exception) -> bool:
    """Whether the same question will get the same answer."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        code = error.response.status_code
        # 408: too slow; 429: too many questions
        return code < 500 and code not in (408, 429)
    # ValueError: an address that is none
    return isinstance(error, (requests.TooManyRedirects, ValueError))


def _reason(error: Exception) -> str:
    """Why a source did not deliver, in words."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"{error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.TooManyRedirects):
        return "it redirects in circles"
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
        return "it does not answer in time"
    broken_off = (
        requests.exceptions.ChunkedEncodingError,
        urllib3.exceptions.ProtocolError,
    )
    if isinstance(error, broken_off):
        return "it breaks off"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return type(error).__name__


# Unpacking


def _unpack_all(files: list[Path], final: Path) -> None:
    """All archives into one folder (other files as they are), which gets its name when
    everything is in it.
    """
    partial = final.with_name(f".{final.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    partial.mkdir()
    try:
        left = MAX_UNPACKED
        for file in files:
            if file.suffix == ".mat":
                shutil.copyfile(file, partial / file.name)
            else:
                left -= unpack(file, partial, left)
        os.replace(partial, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def unpack(archive: Path, target: Path, limit: int = MAX_UNPACKED) -> int:
    """The files of a tar archive, under `target`; the bytes written. Links that stay
    inside are left out; owners and permissions are not taken over.

    Raises InputError, possibly with some files written: not a whole tar archive, a path
    or link out of the folder, a device, more than `limit` bytes.
    """
    written = members = 0
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                members += 1
                written += member.size if member.isreg() else 0
                # before it is written: the header says how large it will be
                if written > limit or members > MAX_MEMBERS:
                    raise InputError(
                        f"{archive} holds more than {limit} bytes or {MAX_MEMBERS}"
                        " files; it is not unpacked."
                    )
                _unpack_member(tar, member, archive, target)
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(
            f"{archive} is not a whole tar archive ({error}); remove it and fetch it"
            " again."
        ) from error
    except ValueError as error:
        raise InputError(
            f"{archive} holds a name that cannot be used ({error}); it is not unpacked."
        ) from error
    if not members:
        raise InputError(f"{archive} is empty; remove it and fetch it again.")
    return written


_DAMAGE = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)


def _unpack_member(
    tar: tarfile.TarFile, member: tarfile.TarInfo, archive: Path, target: Path
) -> None:
    path = target / _inside(member.name, archive)
    if member.issym():
        # relative to its own folder; a hard link's is relative to the archive
        folder = posixpath.dirname(member.name)
        _inside(posixpath.normpath(posixpath.join(folder, member.linkname)), archive)
    elif member.islnk():
        _inside(posixpath.normpath(member.linkname), archive)
    elif member.isdir():
        path.mkdir(parents=True, exist_ok=True)
    elif member.isreg():
        content = tar.extractfile(member)
        assert content is not None  # it is a regular file
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            shutil.copyfileobj(content, file, 1 << 20)
    else:
        raise InputError(
            f"{archive} holds {member.name!r}, which is neither file nor folder; it is"
            " not unpacked."
        )


def _inside(name: str, archive: Path) -> PurePosixPath:
    """The path that a member's name means. Raises InputError for one that leads out of
    the folder, on any system.
    """
    path = PurePosixPath(name)
    leads_out = path.is_absolute() or ".." in path.parts
    if leads_out or "\\" in name or "\0" in name or Path(name).drive:
        raise InputError(
            f"{archive} holds {name!r}, which lies outside its folder; it is not"
            " unpacked."
        )
    return path
