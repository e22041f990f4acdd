"""A drawn figure as an SVG element that stands in a page: text stays text, what is
drawn in INK takes the colour of the text around it, pictures inside are WebP.
"""

import base64
import hashlib
import html
import io
import re
from math import ceil

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

# What is to be seen on a light page and on a dark one. Not quite black: what is drawn
# black on purpose, as an edge on a photograph, stays black.
INK = "#14171a"
# Lines behind the curves, a shade of the ink.
GRID = re.compile(r"stroke: #(?:dddddd|b0b0b0)")
FAINT = "stroke: currentColor; stroke-opacity: 0.18"
# What a browser may use for the text, all about as wide as what it was laid out with.
FONTS = "'DejaVu Sans', Verdana, Geneva, sans-serif"
DPI = 170  # of pictures inside
QUALITY = 85  # of WebP
# Of text on a page, in CSS pixels a point of Matplotlib's.
SCALE = 1.6
SMALLEST = 11.0  # px, text on a phone


def svg(drawn: Figure, name: str) -> str:
    """An SVG element with the role of a picture called `name`.

    It is as wide as its column, at most 1.6 px a point, and never so narrow that its
    smallest text is below 11 px: on a phone a wide figure is scrolled.
    """
    text = _drawn(drawn, salt=name)
    text = text[text.index("<svg") :]  # without what only a file needs
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    # A style sheet inside would hold for the whole page.
    text = re.sub(r"<!--.*?-->|<style.*?</style>", "", text, flags=re.S)
    text = GRID.sub(FAINT, text.replace(INK, "currentColor"))
    text = text.replace("'DejaVu Sans'", FONTS)
    text = re.sub(r'"data:image/png;base64,([^"]+)"', _as_webp, text)
    text = _without_names(text)
    opening, _, rest = text.partition(">")
    return f"{_opening(opening, rest, name)}>{_short(rest)}"


def _drawn(drawn: Figure, salt: str) -> str:
    """As Matplotlib writes it, on no ground, the same for the same figure."""
    settings = matplotlib.RcParams({"svg.fonttype": "none", "svg.hashsalt": salt})
    with matplotlib.rc_context(settings), io.StringIO() as buffer:
        drawn.savefig(
            buffer,
            format="svg",
            dpi=DPI,
            bbox_inches="tight",
            pad_inches=0.03,
            transparent=True,
            metadata={"Date": None, "Creator": None},
        )
        return buffer.getvalue()


def _opening(tag: str, rest: str, name: str) -> str:
    """The opening tag, with its name and how large it may be."""
    (box,) = re.findall(r'viewBox="([^"]+)"', tag)
    width = float(box.split()[2])
    sizes = [float(size) for size in re.findall(r"font(?:-size)?: ([\d.]+)px", rest)]
    least = SMALLEST / min(sizes, default=SMALLEST) * width
    style = f"width:100%;max-width:{SCALE * width:.0f}px;min-width:{ceil(least)}px"
    return (
        f'<svg viewBox="{box}" style="{style};height:auto" fill="currentColor"'
        ' stroke-linejoin="round" stroke-linecap="butt"'
        f' role="img" aria-label="{html.escape(name)}"'
    )


def _as_webp(found: re.Match) -> str:
    """A picture inside, a tenth as large."""
    with io.BytesIO() as buffer:
        picture = Image.open(io.BytesIO(base64.b64decode(found[1])))
        picture.save(buffer, format="webp", quality=QUALITY, method=6)
        content = base64.b64encode(buffer.getvalue()).decode()
    return f'"data:image/webp;base64,{content}"'


def _without_names(text: str) -> str:
    """Names of elements that nothing refers to are left out: several figures of a page
    have the same. Those that are used get the figure's own.
    """
    used = set(re.findall(r'(?:url\(|href=")#([\w-]+)', text))
    own = hashlib.sha256(text.encode()).hexdigest()[:8]

    def renamed(found: re.Match) -> str:
        return f' id="{own}{found[1]}"' if found[1] in used else ""

    text = re.sub(r' id="([^"]*)"', renamed, text)
    return re.sub(r'(url\(|href=")#', rf"\1#{own}", text)


def _short(text: str) -> str:
    """Without what a browser does not need: white space, and in tags, which say where
    something is, digits beyond 1/100 point. What is to be read keeps all of its own.
    """

    def rounded(tag: re.Match) -> str:
        return re.sub(r"(\d\.\d\d)\d+", r"\1", tag[0])

    return re.sub(r">\s+<", "><", re.sub(r"<[^>]+>", rounded, text)).strip()
