"""The page in which networks run: its graphs against PyTorch in a real browser, and
what becomes of it where something is missing.
"""

import base64
import hashlib
import io
import shutil
import tarfile

import numpy as np
import pytest
import torch
from filelock import FileLock
from markdown_it import MarkdownIt
from PIL import ExifTags, Image

from fgbook import explain, methods, papers, paths, tryout
from fgbook.data import fieldguide, store
from fgbook.errors import InputError
from fgbook.images import augment
from fgbook.images.enlarge import enlarge
from fgbook.papers import feng
from fgbook.tryout import graphs, pictures, runtime

RECIPE = feng.QUICK_RECIPE
CLASSES = fieldguide.species_names()
CLOSE = 1e-3
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # the network is cut
]


# ---- what the page must show


def network(name: str, **changes) -> methods.Method:
    """A network of the page with a trained backbone and heads of chance, the same at
    every call; options may differ.
    """
    paper, row, _ = graphs.ROWS[name]
    line = papers.get(paper).row(row)
    torch.manual_seed(5)
    options = {**line.options, **changes}
    model = methods.build(line.method, len(CLASSES), RECIPE, options)
    for part in model.modules():  # so that classes are told apart
        if isinstance(part, torch.nn.Linear) and part.out_features == len(CLASSES):
            torch.nn.init.normal_(part.weight, std=0.3)
    return model.eval()


def seen(file) -> torch.Tensor:
    """A picture as evaluation sees it, (1, 3, S, S)."""
    pixels, _ = store.decode(file, RECIPE.store_size)
    one = torch.from_numpy(pixels)[None]
    return augment.evaluation_view(one, torch.zeros(1), RECIPE, "high")


def over(model, maps) -> np.ndarray:
    depth = model.backbone.depth_at(RECIPE.image_size)
    return enlarge(maps, RECIPE.image_size, depth.stride, depth.first)[0].numpy()


@torch.no_grad()
def wanted(name: str, picture: torch.Tensor, **changes) -> dict[str, np.ndarray]:
    """What the method itself says of a picture."""
    model = network(name, **changes)
    found = {"probabilities": model.predict(picture).softmax(1)[0].numpy()}
    if name == "plain":
        found["map"] = over(model, explain.cam(model, picture))
    elif name == "focus":
        found["map"] = over(model, model.attention_map(picture))
        found["boxes"] = model.regions(picture)[0].numpy()
        alone = model(picture)["region"].softmax(2)[0]
        found["region_probabilities"] = alone.numpy()
    else:
        found["map"] = over(model, model.activation_maps(picture)["foreground"])
        found["box"] = model.locate(picture)["foreground"][0].numpy()
    return found


def compare(found: dict, expected: dict[str, np.ndarray]) -> None:
    for output, values in expected.items():
        # of all regions, those that are asked for
        mine = np.asarray(found[output], np.float32).ravel()[: values.size]
        scale = max(1, np.abs(values).max()) if output == "map" else 1
        difference = np.abs(mine - values.ravel()).max() / scale
        assert difference < CLOSE, (output, difference)


# ---- the page, opened from disk


@pytest.fixture(scope="session")
def folder(tmp_path_factory, request):
    """The page as the book has it, with these networks; made once, also for several
    test processes.
    """
    pytest.importorskip("onnxscript")
    worker = getattr(request.config, "workerinput", {}).get("workerid")
    top = (
        tmp_path_factory.getbasetemp().parent
        if worker
        else tmp_path_factory.mktemp("t")
    )
    where = top / "try-page"
    with FileLock(top / "try-page.lock"):
        if not where.is_dir():
            make(where)
    return where


def make(where) -> None:
    try:
        ort = runtime.package(paths.REPOSITORY / "_build" / "vendor")
    except InputError as error:
        pytest.skip(str(error))
    static = where / "_static"
    (where / "book").mkdir(parents=True)
    (static / "try").mkdir(parents=True)
    networks = [
        graphs.Network(name, network(name), RECIPE, CLASSES) for name in graphs.ROWS
    ]
    tryout.write(static / "try", networks, ort)
    for name in ("try.js", "try.css"):
        shutil.copy(paths.REPOSITORY / "book" / "_static" / name, static)
    text = (paths.REPOSITORY / "book" / "try.md").read_text(encoding="utf-8")
    body = MarkdownIt("commonmark").render(text.replace(tryout.MARK, tryout.SCRIPTS))
    page = f"<!doctype html><meta charset='utf-8'><body>{body}</body>"
    (where / "book" / "try.html").write_text(page, encoding="utf-8")


@pytest.fixture
def tab(folder):
    """The page in a browser, and the addresses that it asks for."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no chromium is installed")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        tab = browser.new_page()
        tab.set_default_timeout(120_000)
        asked, faults = [], []
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.goto((folder / "book" / "try.html").as_uri())
        yield tab, asked
        browser.close()
    assert faults == []


def results(tab) -> dict:
    return tab.evaluate(
        "Object.fromEntries(Object.entries(fgbookTry.seen).map(([name, all]) =>"
        " [name, Object.fromEntries(Object.entries(all).map(([output, values]) =>"
        " [output, typeof values == 'number' ? values : Array.from(values)]))]))"
    )


def wait_for(tab, *names: str) -> dict:
    """Results of these networks that came after `forget`."""
    tab.wait_for_function("names => names.every(n => fgbookTry.seen[n])", arg=names)
    return results(tab)


def forget(tab) -> None:
    tab.evaluate("for (const name in fgbookTry.seen) delete fgbookTry.seen[name]")


def drop(tab, name: str, content: bytes, kind: str) -> None:
    """Let go of a file over the page."""
    tab.evaluate(
        """([name, content, type]) => {
          const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([bytes], name, { type }));
          document.querySelector("#fgbook-try .own").dispatchEvent(
            new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
        }""",
        [name, base64.b64encode(content).decode(), kind],
    )


def photograph(kind="png", width=331, height=217, **options) -> bytes:
    """A picture that is not square and has something to see at every scale."""
    random = np.random.default_rng(3)
    coarse = random.integers(50, 206, (9, 13, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noise = random.integers(-20, 21, (height, width, 3))
    pixels = (np.asarray(smooth) + noise).clip(0, 255).astype(np.uint8)
    with io.BytesIO() as buffer:
        Image.fromarray(pixels).save(buffer, format=kind, **options)
        return buffer.getvalue()


def turned() -> Image.Exif:
    """What a camera notes that was held upright."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return exif


# Too large by a factor that Pillow takes off while it decodes: 2, 4 and 8 times.
LARGE = {
    "whole colours": {"width": 499, "height": 375, "subsampling": "4:4:4"},
    "halved colours": {"width": 997, "height": 653, "subsampling": "4:2:0"},
    "a camera's": {"width": 2000, "height": 1504, "exif": turned()},
}


def move(tab, slider: str, value: str) -> None:
    """Move a slider by keyboard until it has a value."""
    tab.focus(slider)
    for _ in range(40):
        now = float(tab.input_value(slider))
        if abs(now - float(value)) < 1e-6:
            return
        tab.keyboard.press("ArrowRight" if now < float(value) else "ArrowLeft")
    raise AssertionError(f"{slider} never reaches {value}")


def test_a_browser_shows_what_pytorch_computes(tab, tmp_path):
    tab, asked = tab
    assert not any("networks.js" in address for address in asked)  # before a click
    tab.focus(".start")
    tab.keyboard.press("Enter")

    # a drawn bird
    bird = tmp_path / "bird.webp"
    _, content = pictures.birds()[0]["picture"].split(",")
    bird.write_bytes(base64.b64decode(content))
    found = wait_for(tab, *graphs.ROWS)
    for name in graphs.ROWS:
        compare(found[name], wanted(name, seen(bird)))

    # a picture of one's own
    photo = tmp_path / "photo.png"
    photo.write_bytes(photograph())
    forget(tab)
    drop(tab, photo.name, photo.read_bytes(), "image/png")
    found = wait_for(tab, *graphs.ROWS)
    for name in graphs.ROWS:
        compare(found[name], wanted(name, seen(photo)))
        best = int(np.argmax(found[name]["probabilities"]))
        share = 100 * found[name]["probabilities"][best]
        shown = tab.inner_text(f"[data-network={name}] .named li:first-child")
        assert shown.split("\n") == [CLASSES[best], f"{share:.0f} %"]
    tab.wait_for_function("document.querySelector('.said').textContent.includes('png')")

    # other settings
    move(tab, "#try-overlap", "0.6")
    move(tab, "#try-side", "240")
    forget(tab)
    tab.evaluate(
        "document.querySelector('#try-side').dispatchEvent(new Event('input'))"
    )
    found = wait_for(tab, "focus")
    changes = {"m": 8, "threshold": 0.6, "box": 240 / 448}
    expected = wanted("focus", seen(photo), **changes)
    before = wanted("focus", seen(photo))
    assert np.abs(expected["boxes"][:6] - before["boxes"]).max() > 1
    compare(found["focus"], expected)
    move(tab, "#try-m", "8")
    assert tab.locator(".alone li").count() == 8
    assert tab.text_content("output[for=try-side]") == f"{240 / 448:.2f}"

    # what is no picture
    drop(tab, "notes.txt", b"no picture", "text/plain")
    tab.wait_for_function(
        "document.querySelector('.said').textContent.includes('notes')"
    )
    assert "not a picture" in tab.text_content(".said")

    kinds = {address.split(":")[0] for address in asked}
    assert kinds <= {"file", "data", "blob"}


@pytest.mark.parametrize("kind", LARGE)
def test_a_large_jpeg_is_reduced_as_python_does(tab, tmp_path, kind):
    tab, _ = tab
    file = tmp_path / "photo.jpg"
    file.write_bytes(photograph("jpeg", quality=90, **LARGE[kind]))
    tab.click(".start")
    wait_for(tab, *graphs.ROWS)
    forget(tab)
    drop(tab, file.name, file.read_bytes(), "")
    wait_for(tab, *graphs.ROWS)
    mine = 255 * np.float32(tab.evaluate("Array.from(fgbookTry.pixels())"))
    # The browser rounds before the picture is reduced, libjpeg after: some values are
    # one apart. Without the reduction they would be up to 20 apart.
    away = np.abs(mine - 255 * seen(file).numpy().ravel())
    assert away.max() < 1.5
    assert away.mean() < 0.25


# ---- what is missing


def npm(tmp_path, monkeypatch, script: str) -> None:
    """A command npm that does this, and nothing else in the path."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (commands / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")


def packed(path) -> str:
    """A small package in the form of npm's, and its integrity."""
    with tarfile.open(path, "w:gz") as archive:
        for name in runtime.FILES:
            about = tarfile.TarInfo(f"package/dist/{name}")
            content = f"content of {name}".encode()
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    digest = hashlib.sha512(path.read_bytes()).digest()
    return f"sha512-{base64.b64encode(digest).decode()}"


def test_the_package_is_asked_for_once_and_taken_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "INTEGRITY", packed(tmp_path / runtime.FILE))
    calls = tmp_path / "calls"
    npm(
        tmp_path,
        monkeypatch,
        f'echo "$@" >> {calls}; cp {tmp_path / runtime.FILE} .',
    )
    for _ in range(2):
        path = runtime.package(tmp_path / "vendor")
    (line,) = calls.read_text().splitlines()
    assert f"pack onnxruntime-web@{runtime.VERSION}" in line
    for name, content in runtime.extracted(path).items():
        assert content == f"content of {name}".encode()


def test_another_package_is_refused_and_not_kept(tmp_path, monkeypatch):
    npm(tmp_path, monkeypatch, f"echo other > {runtime.FILE}")
    with pytest.raises(InputError, match="is not the package that was expected"):
        runtime.package(tmp_path / "vendor")
    assert list((tmp_path / "vendor").iterdir()) == []


def test_it_says_why_npm_gave_nothing(tmp_path, monkeypatch):
    npm(tmp_path, monkeypatch, "echo 'npm error code ENOTFOUND' >&2; exit 1")
    with pytest.raises(InputError, match=r"could not get .* \(ENOTFOUND\)"):
        runtime.package(tmp_path / "vendor")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="npm, which is not installed"):
        runtime.package(tmp_path / "vendor")


def gathered(tmp_path, monkeypatch, files) -> tuple[str, str]:
    """What `gather` says, and the page that it leaves."""
    source = tmp_path / "book-src"
    (source / "book" / "_static").mkdir(parents=True)
    shutil.copy(paths.REPOSITORY / "book" / "try.md", source / "book")
    monkeypatch.setattr(tryout, "_files", files)
    why = tryout.gather(source, tmp_path / "build", "")
    return why, (source / "book" / "try.md").read_text(encoding="utf-8")


def test_the_page_gets_its_scripts(tmp_path, monkeypatch):
    made = tmp_path / "made"
    made.mkdir()
    (made / "page.js").write_text("")
    why, page = gathered(tmp_path, monkeypatch, lambda *_: made)
    assert why == ""
    assert tryout.SCRIPTS in page
    assert (tmp_path / "book-src" / "book" / "_static" / "try" / "page.js").is_file()


def test_the_page_says_what_is_missing(tmp_path, monkeypatch):
    def missing(*_):
        raise InputError("npm is not installed here.")

    why, page = gathered(tmp_path, monkeypatch, missing)
    assert why == "npm is not installed here."
    assert f"the networks do not run: {why}" in page
    assert "<script" not in page
    assert "{glue:}" in page  # the still figures stay
