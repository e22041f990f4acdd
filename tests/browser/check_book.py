"""Look at every page of the built book in a browser, and name each fault.

    python tests/browser/check_book.py _build/html

Each page is loaded twice: on a desktop from a local server, on a phone from disk, both
with the network cut; dark colours are toggled in place. Needs Chromium, playwright and
axe-core (`pip install -e ".[check]"`). Prints one line a fault (page, setting, what,
where) and a summary; the exit status is 1 where there are faults.
"""

import argparse
import functools
import http.server
import multiprocessing
import os
import re
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

HERE = Path(__file__).resolve().parent
MEASURE = (HERE / "measure.js").read_text(encoding="utf-8")
SCREENS = {"desktop": (1440, 900), "phone": (390, 844)}
HEAVIEST = 2_000_000  # bytes, a chapter with all that it loads
WAIT = 60_000  # milliseconds, for anything in the browser
# What is searched for, and the page that must come first.
SEARCHES = {"CutMix": "book/gautam"}
# A chapter by its place in the book, about pictures of which nothing is measured.
NO_NUMBERS = {"book/data"}
# A chapter with numbers and no method of its own to draw.
NO_METHOD = {"book/causal"}
# Of axe-core: it must not load style sheets anew, which it may not do from disk.
AXE = {"resultTypes": ["violations"], "preload": False}
# Colours are all that changes in the dark.
COLOURS = ["color-contrast", "link-in-text-block"]
STRUCTURE = AXE | {"rules": {rule: {"enabled": False} for rule in COLOURS}}
OF_COLOUR = AXE | {"runOnly": COLOURS}
SERIOUS = ("serious", "critical")
# Of text that looks alike (a thousand numbers of code, in the same colours) axe-core is
# shown the first: it takes a hundredth of a second for each.
LIKE_OTHERS = """() => {
  const seen = new Set();
  const look = (element) => {
    const { color, backgroundColor, fontSize } = getComputedStyle(element);
    return [element.tagName, element.className, color, backgroundColor, fontSize];
  };
  const alone = "a, button, img, input, svg, summary, iframe";
  for (const leaf of document.querySelectorAll("body *:not(:has(*))")) {
    if (leaf.matches(alone)) continue;
    const own = [leaf, leaf.parentElement, leaf.parentElement.parentElement];
    const key = own.flatMap(look).join();
    if (seen.has(key)) leaf.dataset.like = "another";
    seen.add(key);
  }
}"""


@dataclass(frozen=True)
class Fault:
    """Something that a reader would meet."""

    page: str
    setting: str
    what: str
    where: str

    def __str__(self) -> str:
        return f"{self.page} | {self.setting} | {self.what} | {self.where}"


# ---- pages


def pages(html: Path) -> list[str]:
    """Every page of the book, without its suffix; not those that only lead to one."""
    found = []
    for path in sorted(html.rglob("*.html")):
        name = path.relative_to(html).with_suffix("")
        leads_on = 'http-equiv="Refresh"' in path.read_text(encoding="utf-8")[:500]
        if name.parts[0] not in ("_static", "search") and not leads_on:
            found.append(name.as_posix())
    return found


def chapters(clone: Path) -> set[str]:
    """Pages of the table of contents that have notebooks below them."""
    contents = yaml.safe_load((clone / "_toc.yml").read_text(encoding="utf-8"))
    found = set()
    for part in contents["parts"]:
        for chapter in part["chapters"]:
            below = [section["file"] for section in chapter.get("sections", [])]
            if any(name.startswith("notebooks/") for name in below):
                found.add(chapter["file"])
    return found


# ---- links


class Links(HTMLParser):
    """What a page refers to, and the places in it."""

    def __init__(self) -> None:
        super().__init__()
        self.to: list[str] = []
        self.ids: set[str] = {"", "top"}

    def handle_starttag(self, tag: str, attributes: list[Any]) -> None:
        """Of one element."""
        for name, value in attributes:
            if name in ("id", "name") and value:
                self.ids.add(value)
            if name in ("href", "src", "xlink:href") and value:
                self.to.append(value)


def read_links(path: Path) -> Links:
    """Of one page."""
    found = Links()
    found.feed(path.read_text(encoding="utf-8"))
    return found


def broken_links(html: Path) -> Iterator[Fault]:
    """Links between pages, and to files, that lead nowhere."""
    known = {path: read_links(path) for path in html.rglob("*.html")}
    for path, links in known.items():
        page = path.relative_to(html).with_suffix("").as_posix()
        for link in dict.fromkeys(links.to):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path
            if parts.path:
                target = (path.parent / unquote(parts.path)).resolve()
            if not target.exists():
                yield Fault(page, "links", "link to a file that is not there", link)
            elif target in known and unquote(parts.fragment) not in known[target].ids:
                yield Fault(page, "links", "link to a place that is not there", link)


# ---- the browser


class Browser:
    """Chromium with one window of each size; one a process."""

    def __init__(self, chromium: str, server: str, html: Path) -> None:
        from axe_playwright_python.base import AXE_SCRIPT
        from playwright.sync_api import sync_playwright

        self.server, self.html, self.axe = server, html, AXE_SCRIPT
        self.driver = sync_playwright().start()
        # Names of hosts lead nowhere: the network is cut.
        self.browser = self.driver.chromium.launch(
            executable_path=chromium,
            args=[
                "--no-sandbox",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            ],
        )
        self.windows = {}
        for name, (width, height) in SCREENS.items():
            self.windows[name] = self.browser.new_context(
                viewport={"width": width, "height": height},
                has_touch=name == "phone",
                reduced_motion="reduce",
                permissions=["clipboard-read", "clipboard-write"],
            )

    def address(self, page: str, origin: str) -> str:
        """Of a page of the book, on the server or on disk."""
        if origin == "disk":
            return (self.html / f"{page}.html").as_uri()
        return f"{self.server}/{page}.html"

    def open(self, screen: str) -> tuple[Any, list[tuple[str, str]], list[int]]:
        """An empty tab, the list that its faults go to, and the sizes of what it
        loads, in bytes.
        """
        tab = self.windows[screen].new_page()
        tab.set_default_timeout(WAIT)
        faults: list[tuple[str, str]] = []
        sizes: list[int] = []

        def requested(request: Any) -> None:
            local = (self.server, "file:", "data:", "blob:", "about:")
            if not request.url.startswith(local):
                faults.append(("external request", request.url))

        def said(message: Any) -> None:
            if message.type == "error":
                faults.append(("console error", message.text))

        def finished(request: Any) -> None:
            if request.url.startswith(self.server):
                response = request.response()
                sizes.append(int(response.headers.get("content-length", 0)))

        tab.on("request", requested)
        tab.on("requestfinished", finished)
        tab.on("console", said)
        tab.on("pageerror", lambda error: faults.append(("page error", str(error))))
        return tab, faults, sizes


browser: Browser  # of this process


def start_browser(chromium: str, server: str, html: Path) -> None:
    """What each process does first."""
    global browser
    browser = Browser(chromium, server, html)


def check_page(job: tuple[str, str, bool]) -> list[Fault]:
    """The faults of a page on a screen, light and dark."""
    page, screen, chapter = job
    width, height = SCREENS[screen]
    origin = "disk" if screen == "phone" else "server"
    setting = f"{width}x{height} {origin}"
    tab, faults, sizes = browser.open(screen)
    found = []
    try:
        tab.goto(browser.address(page, origin), wait_until="load")
        load_pictures(tab)
        if page.startswith("book/") and sum(sizes) > HEAVIEST:
            weight = f"{sum(sizes) / 1e6:.2f} MB"
            faults.append((f"heavier than {HEAVIEST / 1e6:.0f} MB", weight))
        options = {"phone": screen == "phone", "chapter": chapter}
        options["method"] = chapter and page not in NO_METHOD
        for what, places in tab.evaluate(MEASURE, options).items():
            faults += [(what, place) for place in places]
        faults += source_of_a_number(tab)
        faults += commands_to_copy(tab) if origin == "server" else []
        tab.evaluate(browser.axe)
        tab.evaluate(LIKE_OTHERS)
        faults += accessibility(tab, STRUCTURE)
        faults += accessibility(tab, OF_COLOUR)
        lit = len(faults)
        tab.evaluate("document.documentElement.dataset.theme = 'dark'")
        tab.evaluate("document.documentElement.dataset.mode = 'dark'")
        faults += accessibility(tab, OF_COLOUR)
        for number, (what, where) in enumerate(faults):
            colours = "light" if number < lit else "dark"
            found.append(Fault(page, f"{setting} {colours}", what, where))
    except Exception as error:  # one page must not hide the others
        found.append(Fault(page, setting, "not checked", f"{error}".splitlines()[0]))
    finally:
        tab.close()
    return found


def load_pictures(tab: Any) -> None:
    """Those that wait until they are scrolled to as well."""
    tab.evaluate(
        """async () => {
          const images = [...document.images];
          for (const image of images) image.loading = "eager";
          await Promise.all(images.map((image) => image.decode().catch(() => {})));
        }"""
    )


def accessibility(tab: Any, options: dict) -> list[tuple[str, str]]:
    """What axe-core finds serious or critical; one fault a rule and element."""
    result = tab.evaluate(
        "options => axe.run({ exclude: [['[data-like]']] }, options)", options
    )
    found = []
    for rule in result["violations"]:
        if rule["impact"] in SERIOUS:
            for node in rule["nodes"]:
                where = f"{' '.join(map(str, node['target']))}  {node['html'][:120]}"
                what = f"axe {rule['id']} ({rule['impact']})"
                found.append((what, " ".join(where.split())))
    return found


def source_of_a_number(tab: Any) -> list[tuple[str, str]]:
    """Whether the first measured number on a page says by keyboard where it comes from,
    and goes on Escape.
    """
    numbers = tab.locator("article .fgbook-measured:visible")
    if not numbers.count():
        return []
    numbers.first.focus()
    tab.keyboard.press("Enter")
    source = tab.locator(".fgbook-source")
    if not source.count() or not source.is_visible():
        return [("the source of a number does not open", "Enter on the first number")]
    missing = []
    for expected in ("record", "fgbook ", "seed"):
        if expected not in source.inner_text():
            missing.append(("the source of a number is incomplete", expected))
    tab.keyboard.press("Escape")
    if source.is_visible():
        missing.append(("the source of a number stays", "Escape"))
    return missing


def commands_to_copy(tab: Any) -> list[tuple[str, str]]:
    """Blocks with a prompt whose button copies the prompt too."""
    blocks = tab.locator("div.highlight:has(button.copybtn)").filter(has_text="$ ")
    found = []
    for number in range(blocks.count()):
        blocks.nth(number).locator("button.copybtn").evaluate("one => one.click()")
        copied = tab.evaluate("navigator.clipboard.readText()")
        if re.search(r"^\$ ", copied, flags=re.M):
            found.append(("the prompt is copied", copied.splitlines()[0]))
    return found


def check_search(job: tuple[str, str, str]) -> list[Fault]:
    """Whether searching for a word finds its chapter first."""
    word, expected, origin = job
    setting = f"search from {origin}"
    if not (browser.html / "search.html").is_file():
        return [Fault("search", setting, "not there", "search.html")]
    tab, faults, _ = browser.open("desktop")
    try:
        tab.goto(f"{browser.address('search', origin)}?q={word}")
        first = tab.locator("#search-results li a").first
        first.wait_for()
        tab.wait_for_timeout(1500)  # until summaries have come
        target = first.get_attribute("href") or ""
        if expected not in target:
            faults.append((f"searching {word} does not find {expected} first", target))
        tab.evaluate(browser.axe)
        faults += accessibility(tab, STRUCTURE)
        faults += accessibility(tab, OF_COLOUR)
    except Exception as error:
        faults.append(("not checked", f"{error}".splitlines()[0]))
    finally:
        tab.close()
    return [Fault("search", setting, what, where) for what, where in faults]


# ---- all of it


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


def need_packages() -> None:
    """Raises SystemExit where what drives the browser is not installed."""
    for module in ("playwright", "axe_playwright_python"):
        if find_spec(module) is None:
            raise SystemExit(
                f"the book is checked with {module.replace('_', '-')}, which is not"
                ' installed: pip install -e ".[check]"'
            )


def chromium_at(asked: str) -> str:
    """The path of the browser. Raises SystemExit where there is none."""
    path = asked or shutil.which("chromium") or shutil.which("google-chrome") or ""
    if not path or not Path(path).is_file():
        named = f"{asked} is not there" if asked else "no chromium is installed"
        raise SystemExit(
            f"the book is checked in Chromium, but {named}; install it (apt-get"
            " install chromium), or name one: make check-book CHROMIUM=/path/to/chrome"
        )
    return path


def check(html: Path, clone: Path, chromium: str, workers: int, only: list[str]):
    """All faults of a book, page by page as they are found."""
    serve = functools.partial(Quiet, directory=str(html))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"

    with_numbers = chapters(clone) - NO_NUMBERS
    chosen = [page for page in pages(html) if not only or page in only]
    # The heaviest first, so that both processes end together.
    chosen.sort(key=lambda page: -(html / f"{page}.html").stat().st_size)
    jobs = [
        (page, screen, page in with_numbers) for page in chosen for screen in SCREENS
    ]
    searches = []
    if not only:
        yield from broken_links(html)
        for word, page in SEARCHES.items():
            searches += [(word, page, "server"), (word, page, "disk")]
    started = (chromium, address, html)
    with multiprocessing.Pool(workers, start_browser, started) as pool:
        for faults in pool.imap_unordered(check_page, jobs):
            yield from faults
        for faults in pool.imap_unordered(check_search, searches):
            yield from faults


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("html", type=Path, help="the built book, as _build/html")
    parser.add_argument("pages", nargs="*", help="only these, as book/feng")
    parser.add_argument("--chromium", default=os.environ.get("CHROMIUM", ""))
    parser.add_argument("--workers", type=int, default=2, help="browsers at a time")
    given = parser.parse_args()
    html = given.html.resolve()
    if not (html / "index.html").is_file():
        raise SystemExit(f"there is no book in {given.html}; make it: make reproduce")
    need_packages()
    chromium = chromium_at(given.chromium)
    clone = HERE.parents[1]

    started = time.monotonic()
    counted: Counter[str] = Counter()
    for fault in check(html, clone, chromium, given.workers, given.pages):
        counted[fault.what] += 1
        print(fault, flush=True)
    for what, number in counted.most_common():
        print(f"{number:6d}  {what}")
    seen = len(given.pages) or len(pages(html))
    print(
        f"check-book: {counted.total()} faults on {seen} pages,"
        f" {time.monotonic() - started:.0f} s"
    )
    return 1 if counted else 0


if __name__ == "__main__":
    sys.exit(main())
