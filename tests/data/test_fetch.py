"""Downloads from a local server that is slow, breaks off, lies and redirects; archives
that want out of their folder.
"""

import hashlib
import io
import multiprocessing
import os
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

import samples
from fgbook import data
from fgbook.data import fetch
from fgbook.errors import InputError


def tar(members, mode="w:gz") -> bytes:
    """An archive of (name, content or TarInfo fields)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                for field, value in content.items():
                    setattr(info, field, value)
                archive.addfile(info)
    return out.getvalue()


def pictures():
    rng = np.random.default_rng(0)
    for part, count in (("train", 5), ("val", 3)):
        for label in ("n01", "n02"):
            for i in range(count):
                out = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (60, 60, 3), np.uint8)).save(
                    out, "PNG"
                )
                yield f"imagewoof2-320/{part}/{label}/{i}.png", out.getvalue()


ARCHIVE = tar(pictures())
LENGTH = len(ARCHIVE)
SUM = "sha256:" + hashlib.sha256(ARCHIVE).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        kind = self.path.split("/")[1]
        self.server.asked.append((kind, self.headers.get("Range")))
        getattr(self, kind)()

    def head(self, status=200, **headers):
        self.send_response(status)
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def part(self):
        """(status, headers, content) that the request's range asks for."""
        wanted = self.headers.get("Range")
        if not wanted:
            return 200, {"Content_Length": len(ARCHIVE)}, ARCHIVE
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
        if start >= len(ARCHIVE):
            return (
                416,
                {"Content_Range": f"bytes */{len(ARCHIVE)}", "Content_Length": 0},
                b"",
            )
        return (
            206,
            {
                "Content_Range": f"bytes {start}-{len(ARCHIVE) - 1}/{len(ARCHIVE)}",
                "Content_Length": len(ARCHIVE) - start,
            },
            ARCHIVE[start:],
        )

    def ok(self):
        status, headers, content = self.part()
        self.head(status, **headers)
        self.wfile.write(content)

    def encoded(self):
        self.head(Content_Encoding="x-gzip", Content_Length=len(ARCHIVE))
        self.wfile.write(ARCHIVE)

    def slow(self):
        status, headers, content = self.part()
        self.head(status, **headers)
        for i in range(0, len(content), 4000):
            self.wfile.write(content[i : i + 4000])
            self.wfile.flush()
            time.sleep(0.05)

    def breaks(self):
        """Never more than 60 kB at a time, whatever it promises."""
        status, headers, content = self.part()
        self.head(status, **headers)
        self.wfile.write(content[:60_000])

    def restarts(self):
        """Knows no ranges; breaks off the first two times."""
        self.head(Content_Length=len(ARCHIVE))
        times = sum(kind == "restarts" for kind, _ in self.server.asked)
        self.wfile.write(ARCHIVE[: 50_000 * times] if times < 3 else ARCHIVE)

    def never(self):
        self.head(Content_Length=len(ARCHIVE))

    def stalls(self):
        status, headers, content = self.part()
        self.head(status, **headers)
        if status == 200:
            self.wfile.write(content[:70_000])
            self.wfile.flush()
            self.server.over.wait(5)
        else:
            self.wfile.write(content)

    def wrong(self):
        self.head(Content_Length=len(ARCHIVE))
        self.wfile.write(ARCHIVE[:-100] + bytes(100))

    def elsewhere(self):
        """Answers a range with the wrong place, until asked for everything."""
        if self.headers.get("Range"):
            self.head(
                206,
                Content_Range=f"bytes 10-{len(ARCHIVE) - 1}/{len(ARCHIVE)}",
                Content_Length=len(ARCHIVE) - 10,
            )
            self.wfile.write(ARCHIVE[10:])
        else:
            self.ok()

    def flood(self):
        self.head()
        try:
            while not self.server.over.is_set():
                self.wfile.write(bytes(1 << 16))
        except OSError:
            self.server.asked.append(("hung up", None))

    def long(self):
        self.head(Content_Length=10 * len(ARCHIVE))

    def moved(self):
        self.head(302, Location="/again/a.tgz", Content_Length=0)

    def again(self):
        self.head(301, Location="/ok/a.tgz", Content_Length=0)

    def circle(self):
        self.head(302, Location="/circle/a.tgz", Content_Length=0)

    def gone(self):
        self.head(404, Content_Length=0)

    def busy(self):
        if sum(kind == "busy" for kind, _ in self.server.asked) < 3:
            self.head(503, Content_Length=0)
        else:
            self.ok()

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """A client that hangs up is part of the game."""


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("FGBOOK_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("FGBOOK_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetch, "PAUSE", 0.001)
    monkeypatch.setattr(fetch, "PATIENCE", (1, 0.5))
    with Server(("127.0.0.1", 0), Handler) as server:
        server.asked, server.over = [], threading.Event()
        server.base = f"http://127.0.0.1:{server.server_address[1]}"

        def source(*kinds, size=LENGTH):
            urls = tuple(f"{server.base}/{kind}/a.tgz" for kind in kinds)
            monkeypatch.setitem(
                fetch.SOURCES, "imagewoof", (fetch.Archive("a.tgz", SUM, urls, size),)
            )

        server.source = source
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.over.set()
        server.shutdown()


def whole(place):
    """The data folder holds the data set, and nothing half."""
    assert len(data.load("imagewoof", 8).test) == 6
    assert sorted(f.name for f in place.iterdir()) == ["downloads", "imagewoof"]
    assert [f.name for f in (place / "downloads").iterdir()] == ["imagewoof.lock"]
    # what others may do is as everywhere
    rights = (place / "imagewoof").stat().st_mode & 0o077
    assert rights == place.stat().st_mode & 0o077


@pytest.mark.parametrize(
    "kind", ["ok", "slow", "breaks", "restarts", "stalls", "moved", "busy", "encoded"]
)
def test_a_difficult_server_is_got_the_better_of(server, tmp_path, kind):
    server.source(kind)
    found = fetch.get("imagewoof")
    assert found == data.path("imagewoof")
    assert found.parent == tmp_path / "data" / "imagewoof"
    whole(tmp_path / "data")
    ranges = [asked for asked_kind, asked in server.asked if asked_kind == kind]
    if kind == "breaks":
        starts = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in ranges[1:]]
        assert ranges[0] is None
        assert len(starts) >= 2
        # it goes on, never back
        steps = np.diff([0, *starts])
        assert min(steps) > 0
        assert max(steps) <= 60_000
    elif kind in ("ok", "slow", "encoded"):
        assert ranges == [None]
    before = list(server.asked)
    fetch.get("imagewoof")
    assert server.asked == before  # what is there is not fetched again


@pytest.mark.parametrize(
    "kind, reason",
    [
        ("wrong", "has not the checksum"),
        ("never", "breaks off"),
        ("circle", "redirects in circles"),
        ("gone", "404"),
        ("long", "bytes, not"),
        ("flood", "more than"),
    ],
)
def test_a_hopeless_server_is_given_up_and_the_mirror_is_asked(
    server, tmp_path, kind, reason
):
    server.source(kind)
    with pytest.raises(InputError, match=reason) as caught:
        fetch.get("imagewoof")
    assert f"{server.base}/{kind}/a.tgz" in str(caught.value)
    assert str(tmp_path / "data" / "downloads") in str(caught.value)
    assert [f.name for f in (tmp_path / "data").iterdir()] == ["downloads"]
    with pytest.raises(InputError, match="data get imagewoof"):
        data.load("imagewoof", 8)
    server.source(kind, "ok")
    fetch.get("imagewoof")
    whole(tmp_path / "data")
    # 31: the steps of a circle
    assert sum(k == kind for k, _ in server.asked) <= 2 * max(fetch.TRIES, 31)


def test_an_endless_answer_without_a_known_size_is_cut(server, monkeypatch):
    monkeypatch.setattr(fetch, "MAX_DOWNLOAD", 1_000_000)
    server.source("flood", size=None)
    with pytest.raises(InputError, match="more than the 1000000 bytes"):
        fetch.get("imagewoof")


def test_no_server_at_all(server, monkeypatch):
    monkeypatch.setitem(
        fetch.SOURCES,
        "imagewoof",
        (
            fetch.Archive(
                "a.tgz", SUM, ("http://127.0.0.1:9/a.tgz", "nonsense://x/a.tgz")
            ),
        ),
    )
    with pytest.raises(InputError, match="127.0.0.1:9/a.tgz: no connection; nonsense"):
        fetch.get("imagewoof")


BEGINNINGS = {
    "half": ARCHIVE[:90_000],
    "all": ARCHIVE,
    "more": ARCHIVE + b"more",
    "another": b"\1" * 50_000,
    "little": ARCHIVE[:10],
}


@pytest.mark.parametrize(
    "kind, which",
    [
        *(("ok", which) for which in BEGINNINGS),
        ("elsewhere", "half"),
        ("restarts", "little"),
    ],
)
def test_any_beginning_left_by_an_earlier_try_ends_well(server, tmp_path, kind, which):
    beginning = BEGINNINGS[which]
    part = tmp_path / "data" / "downloads" / "imagewoof" / "a.tgz.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(beginning)
    server.source(kind)
    fetch.get("imagewoof")
    whole(tmp_path / "data")
    if kind == "ok" and which in ("half", "all", "little"):
        assert [asked for _, asked in server.asked] == [f"bytes={len(beginning)}-"]


# real processes, of a server that has imported everything already
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["fgbook.data.store", "fgbook.data.fetch", "torchvision.transforms.v2", "pytest"]
)


def fetching(url, checksum, place):
    os.environ.update(FGBOOK_DATA=str(place), NO_PROXY="127.0.0.1")
    fetch.SOURCES["imagewoof"] = (fetch.Archive("a.tgz", checksum, (url,)),)
    fetch.get("imagewoof")


def start(server, kind, place):
    process = SERVER.Process(
        target=fetching, args=(f"{server.base}/{kind}/a.tgz", SUM, place)
    )
    process.start()
    return process


def until(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it never happened")


def test_a_killed_download_goes_on(server, tmp_path):
    killed = start(server, "slow", tmp_path / "data")
    part = tmp_path / "data" / "downloads" / "imagewoof" / "a.tgz.part"
    until(lambda: part.is_file() and part.stat().st_size > 20_000)
    killed.kill()
    killed.join(20)
    have = part.stat().st_size
    assert 0 < have < len(ARCHIVE)
    assert not (tmp_path / "data" / "imagewoof").exists()
    server.source("ok")
    fetch.get("imagewoof")
    whole(tmp_path / "data")
    assert server.asked[-1] == ("ok", f"bytes={have}-")


def test_of_two_processes_one_downloads(server, tmp_path, capsys):
    other = start(server, "slow", tmp_path / "data")
    until(lambda: server.asked)
    server.source("ok")
    fetch.get("imagewoof")
    assert "another process" in capsys.readouterr().out
    other.join(20)
    assert other.exitcode == 0
    assert [kind for kind, _ in server.asked] == ["slow"]
    whole(tmp_path / "data")


def test_archives_put_there_by_hand_are_verified_and_used(
    server, tmp_path, monkeypatch
):
    monkeypatch.setitem(
        fetch.SOURCES,
        "imagewoof",
        (
            fetch.Archive("a.tgz", SUM, ()),
            fetch.Archive("b.mat", "md5:" + hashlib.md5(b"m").hexdigest(), ()),
        ),
    )
    place = tmp_path / "data" / "downloads" / "imagewoof"
    with pytest.raises(
        InputError, match=f"can no longer be downloaded.*{place}.*a.tgz.*b.mat"
    ):
        fetch.get("imagewoof")
    (place / "a.tgz").write_bytes(ARCHIVE)
    (place / "b.mat").write_bytes(b"other")
    with pytest.raises(InputError, match="b.mat is not the official file"):
        fetch.get("imagewoof")
    (place / "b.mat").write_bytes(b"m")
    fetch.get("imagewoof")
    assert len(data.load("imagewoof", 8).test) == 6
    assert (tmp_path / "data" / "imagewoof" / "b.mat").read_bytes() == b"m"
    assert (place / "a.tgz").is_file()  # not ours to remove


def test_what_a_person_keeps_beside_a_download_stays(server, tmp_path, capsys):
    server.source("ok")
    place = tmp_path / "data" / "downloads" / "imagewoof"
    (place / "old").mkdir(parents=True)
    (place / "notes.txt").write_text("a person's")
    (place / "a.tgz").write_bytes(b"another archive of that name")
    fetch.get("imagewoof")
    assert len(data.load("imagewoof", 8).test) == 6
    others = {path.name for path in place.iterdir()} - {"old", "notes.txt"}
    (kept,) = others
    assert (place / kept).read_bytes() == b"another archive of that name"
    assert f"is kept as {kept}" in capsys.readouterr().out


HOSTILE = {
    "parent": ("lies outside", [("a/../../evil", b"x")]),
    "absolute": ("lies outside", [("TOP/evil", b"x")]),  # TOP: the test's own folder
    "backslash": ("lies outside", [("..\\evil", b"x")]),
    "link out": (
        "lies outside",
        [("a/link", {"type": tarfile.SYMTYPE, "linkname": "../../evil"})],
    ),
    "link to root": (
        "lies outside",
        [("link", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})],
    ),
    "hard link out": (
        "lies outside",
        [("link", {"type": tarfile.LNKTYPE, "linkname": "../evil"})],
    ),
    "through a link": (
        "lies outside",
        [("door", {"type": tarfile.SYMTYPE, "linkname": ".."}), ("door/evil", b"x")],
    ),
    "device": (
        "neither file nor folder",
        [("null", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3})],
    ),
    "pipe": ("neither file nor folder", [("pipe", {"type": tarfile.FIFOTYPE})]),
    "bomb": ("more than", [(f"{i}", bytes(1_000_000)) for i in range(9)]),
    "nothing": ("is empty", []),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_hostile_archives_are_refused(server, tmp_path, monkeypatch, how):
    message, members = HOSTILE[how]
    content = tar(
        [(name.replace("TOP", str(tmp_path)), what) for name, what in members]
    )
    monkeypatch.setattr(fetch, "MAX_UNPACKED", 8_000_000)
    monkeypatch.setitem(
        fetch.SOURCES,
        "imagewoof",
        (fetch.Archive("a.tgz", "sha256:" + hashlib.sha256(content).hexdigest(), ()),),
    )
    place = tmp_path / "data" / "downloads" / "imagewoof"
    place.mkdir(parents=True)
    (place / "a.tgz").write_bytes(content)
    with pytest.raises(InputError, match=message):
        fetch.get("imagewoof")
    found = sorted(
        str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*") if not f.is_dir()
    )
    assert found == ["data/downloads/imagewoof.lock", "data/downloads/imagewoof/a.tgz"]


def test_inner_links_are_left_out_and_modes_are_not_taken(tmp_path):
    soft = {"type": tarfile.SYMTYPE, "linkname": "file"}
    hard = {"type": tarfile.LNKTYPE, "linkname": "a/file"}
    members = [
        ("a/file", b"x"),
        ("a/link", soft),
        ("b", hard),
        ("c", {"type": tarfile.DIRTYPE, "mode": 0}),
        ("c/run", b"y"),
    ]
    (tmp_path / "a.tar").write_bytes(tar(members, "w"))
    assert fetch.unpack(tmp_path / "a.tar", tmp_path / "out") == 2
    assert sorted(
        str(f.relative_to(tmp_path / "out"))
        for f in (tmp_path / "out").rglob("*")
        if f.is_file()
    ) == ["a/file", "c/run"]


def test_damaged_archives_are_named(tmp_path):
    for content in (
        b"no archive",
        b"",
        ARCHIVE[:3000],
        ARCHIVE[: LENGTH // 2],
        b"\x1f\x8b" + bytes(100),
    ):
        (tmp_path / "a.tgz").write_bytes(content)
        with pytest.raises(InputError, match="a.tgz is not a whole tar archive"):
            fetch.unpack(tmp_path / "a.tgz", tmp_path / "out")


def test_names(server, tmp_path):
    with pytest.raises(InputError, match="did you mean 'cub'"):
        fetch.get("cubb")
    assert set(fetch.SOURCES) | set(fetch.PARTS) <= set(data.names())
    for archives in fetch.SOURCES.values():
        for archive in archives:
            kind, _, digest = archive.checksum.partition(":")
            assert len(bytes.fromhex(digest)) == hashlib.new(kind).digest_size


@pytest.mark.parametrize("folder", ["cub", "CUB_200_2011", "cub/CUB_200_2011"])
def test_what_its_loader_finds_is_not_fetched_again(tmp_path, monkeypatch, folder):
    monkeypatch.setenv("FGBOOK_DATA", str(tmp_path))
    monkeypatch.setattr(fetch, "_get", None)  # to call it would be an error
    samples.cub(tmp_path / folder, 4, 2)
    for name in ("cub", "cub50"):  # the second is a part of the first
        assert fetch.get(name) == data.path(name) == tmp_path / folder / "images"


@pytest.mark.parametrize("there", ["nothing", "no classes"])
def test_a_folder_that_its_loader_does_not_accept_is_incomplete(
    server, tmp_path, there
):
    place = tmp_path / "data" / "imagewoof"
    place.mkdir(parents=True)
    if there == "no classes":
        (place / "train").mkdir()
    server.source("ok")
    with pytest.raises(InputError, match=f"{place} is there, but not all of"):
        fetch.get("imagewoof")
    assert not server.asked
    place.rename(tmp_path / "away")  # as the message says
    fetch.get("imagewoof")
    whole(tmp_path / "data")


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("FGBOOK_DATA", str(tmp_path / "file"))
    with pytest.raises(InputError, match="cannot write in .*FGBOOK_DATA"):
        fetch.get("imagewoof")


def test_what_there_is_to_download_is_told_where_it_is_known():
    dogs = sum(archive.size for archive in fetch.SOURCES["dogs"])
    assert fetch.size("dogs21") == fetch.size("dogs") == dogs > 800_000_000
    assert fetch.size("cars") is None  # offered by nobody
    assert fetch.size("aircraft") is None  # offered without a size
    assert fetch.size("imagewoof10") is None  # a selection of our own
