"""One way to show any piece: live where a person sits before a kernel; else, in a page,
all of its frames, drawn beforehand, behind plain controls.

A page holds the frame of the start, which stands there without any script, and the
others as templates. ``book/_static/play.js`` uncovers the controls and puts in the
place of the frame the one that they choose; it computes nothing.
"""

import hashlib
import json
import re
import sys
from collections import Counter
from typing import Any

from ..figures import glue
from ..figures.base import Shown
from .piece import Choice, Frame, Piece, escaped

STYLE = """<style>
.fgbook-controls { display: flex; flex-wrap: wrap; gap: .4rem 1.6rem; max-width: 46rem;
  margin: 0 auto .6rem; font-size: .95rem; }
.fgbook-controls[hidden] { display: none; }
.fgbook-controls > div { display: flex; align-items: center; gap: .5rem;
  max-width: 100%; }
.fgbook-controls :is(input, select) { accent-color: #0072b2; font: inherit;
  min-width: 0; }
.fgbook-controls span { white-space: nowrap; }
.fgbook-controls input[type="range"] { width: 9rem; }
.fgbook-controls :is(input, select):focus-visible { outline: 2px solid currentColor;
  outline-offset: 2px; }
.fgbook-stage, .fgbook-told { max-width: 46rem; margin: 0 auto; }
.fgbook-told { padding: .4rem 0; font-size: .95rem; }
.fgbook-tiles { display: grid; gap: .5rem;
  grid-template-columns: repeat(var(--columns), minmax(0, 1fr)); }
.fgbook-tiles svg { display: block; width: 100%; height: auto; background: #8884; }
.fgbook-tiles span { display: block; font-size: .78rem; line-height: 1.35; }
.fgbook-tiles path { fill: none; stroke-width: 2.4px;
  vector-effect: non-scaling-stroke; }
.fgbook-tiles path.u { stroke: #000; stroke-width: 4px; }
.fgbook-tiles path.o { fill: #000; fill-opacity: .62; }
.fgbook-tiles text { fill: #fff; stroke: #000; stroke-width: .22em; paint-order: stroke;
  font-weight: 700; }
.fgbook-interval { display: block; width: 100%; max-width: 32rem; margin: 0 auto;
  fill: currentColor; font-size: 13px; }
.fgbook-interval > path { fill: none; stroke: currentColor; stroke-width: 3px; }
@media (max-width: 600px) {
  .fgbook-tiles { grid-template-columns: repeat(var(--narrow), minmax(0, 1fr)); }
}
</style>"""


def show(name: str, piece: Piece) -> None:
    """Show a piece: to be moved now, where there is somebody to move it; else its
    frames, kept under `name` for the book's pages.
    """
    if attended():
        from IPython.display import display

        display(live(piece))
    else:
        glue(name, page(name, piece))


def attended() -> bool:
    """Whether a person sits before this kernel. Programs that execute notebooks
    (papermill, nbclient, a build) tell the kernel that no one is there to answer.
    """
    shells = sys.modules.get("IPython")
    shell = shells.get_ipython() if shells else None
    return bool(getattr(getattr(shell, "kernel", None), "_allow_stdin", False))


# ---- live


def live(piece: Piece) -> Any:
    """A piece as a widget, for Jupyter and Colab: what is chosen is computed then."""
    import ipywidgets

    controls = {choice.name: _control(choice) for choice in piece.choices}
    stage = ipywidgets.HTML()

    def draw(_: object = None) -> None:
        settings = {name: control.value for name, control in controls.items()}
        stage.value = f"{STYLE}{_framed(piece.frame(**settings))}"

    for control in controls.values():
        control.observe(draw, "value")
    draw()
    caption = ipywidgets.HTML(f"<p>{escaped(piece.caption)}</p>")
    shown = [controls[choice.name] for choice in piece.choices if choice.is_free]
    return ipywidgets.VBox([*shown, stage, caption])


def _control(choice: Choice) -> Any:
    import ipywidgets

    options = [(choice.say(value), value) for value in choice.values]
    wide = {"description_width": "initial"}
    about = {"description": choice.label, "value": choice.start, "style": wide}
    if choice.kind == "box":
        return ipywidgets.Checkbox(indent=False, **about)
    if choice.kind == "slider":
        return ipywidgets.SelectionSlider(
            options=options, continuous_update=False, **about
        )
    return ipywidgets.Dropdown(options=options, **about)


# ---- in a page


def page(name: str, piece: Piece) -> Shown:
    """A piece as HTML without a kernel; `name` is part of its elements' names."""
    grid = list(piece.grid())
    first = grid.index(piece.start())
    frames = [piece.frame(**settings) for settings in grid]
    shared, texts = _once(name, [frame.shown for frame in frames])
    templates = []
    for text, frame in zip(texts, frames, strict=True):
        says = escaped(frame.says)
        templates.append(f'<template data-says="{says}">{text}</template>')
    controls = "".join(_input(f"{name}-{c.name}", c) for c in piece.choices)
    return Shown(
        f'{STYLE}<figure class="fgbook-figure fgbook-play" id="{name}"'
        f' aria-label="{escaped(piece.title)}">{shared}'
        f'<div class="fgbook-controls" hidden>{controls}</div>'
        f"{_framed(Frame(texts[first], frames[first].says))}"
        f"<figcaption>{escaped(piece.caption)}</figcaption>"
        f"{''.join(templates)}</figure>",
        f"[play] {piece.caption}",
    )


def _framed(frame: Frame) -> str:
    """A frame and, below it, what it says, also to who cannot see it change."""
    return (
        f'<div class="fgbook-stage">{frame.shown}</div>'
        f'<p class="fgbook-told" aria-live="polite">{escaped(frame.says)}</p>'
    )


def _input(place: str, choice: Choice) -> str:
    """The element of HTML that chooses a value; nothing where there is one only."""
    values = choice.there()
    start = values.index(choice.start)
    texts = [choice.say(value) for value in values]
    hidden = "" if choice.is_free else " hidden"
    label = f'<label for="{place}">{escaped(choice.label)}</label>'
    about = f'id="{place}" autocomplete="off"'
    if choice.kind == "slider":
        said = escaped(texts[start])
        told = escaped(json.dumps(texts, ensure_ascii=False))
        control = (
            f'<input type="range" {about} min="0" max="{len(values) - 1}" step="1"'
            f' value="{start}" aria-valuetext="{said}" data-texts="{told}">'
            f'<span aria-hidden="true">{said}</span>'
        )
    elif choice.kind == "box":
        checked = " checked" if choice.start else ""
        control = f'<input type="checkbox" {about}{checked}>'
    else:
        options = []
        for place_of, text in enumerate(texts):
            selected = " selected" if place_of == start else ""
            options.append(f"<option{selected}>{escaped(text)}</option>")
        control = f"<select {about}>{''.join(options)}</select>"
    return f"<div{hidden}>{label}{control}</div>"


# ---- what several frames share

# A picture, or a group that a piece has marked.
ELEMENT = re.compile(r'<image [^>]*href="data:[^>]*/>|<g class="once".*?</g>', re.S)


def _once(name: str, texts: list[str]) -> tuple[str, list[str]]:
    """What more than one frame holds stands once, before all of them."""
    counted = Counter(found for text in texts for found in set(ELEMENT.findall(text)))
    known = {}
    for found, number in counted.items():
        if number > 1:
            known[found] = f"{name}-{hashlib.sha256(found.encode()).hexdigest()[:8]}"

    def used(found: re.Match) -> str:
        place = known.get(found[0])
        return f'<use href="#{place}"/>' if place else found[0]

    shared = ""
    for found, place in known.items():
        shared += re.sub(r"^<\w+", rf'\g<0> id="{place}"', found)
    if shared:
        unseen = 'aria-hidden="true" width="0" height="0" style="position:absolute"'
        shared = f"<svg {unseen}><defs>{shared}</defs></svg>"
    return shared, [ELEMENT.sub(used, text) for text in texts]
