"""A drawn bird to play with: change one thing, see what the network names and where the
maps look. Live where a kernel runs; in a page the same frames, drawn beforehand, behind
plain buttons that need no script.
"""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from matplotlib.figure import Figure

from ..evaluation import causal
from ..evaluation.causal import EDITS, Experiment
from ..explain import Explanation
from ..explain.classes import logits_of
from ..methods import Method
from .base import WIDTH, Shown, styled
from .causal import lit, only, outlined, titled
from .photos import photo

DPI = 88  # of a frame: there are many in a page


@dataclass(frozen=True)
class Explorer:
    """A network, the scenes that can be chosen, and what explains it; names: of the
    species.
    """

    model: Method
    pairs: Experiment
    explanations: dict[str, Explanation]
    names: Sequence[str]

    def edits(self, scene: int) -> list[int]:
        """The pictures of a scene that a page shows: as it is, both attributes that
        tell it from siblings, one that does not, perch and background.
        """
        told = self.pairs.telling[scene].tolist()
        idle = next(k for k in range(1, len(EDITS) + 1) if k not in told)
        return [0, *told, idle, len(EDITS) - 1, len(EDITS)]

    def title(self, scene: int, edit: int) -> str:
        """What a picture is called."""
        if edit == 0:
            return "as it is"
        tells = edit in self.pairs.telling[scene].tolist()
        return f"other {EDITS[edit - 1]}{' (the sibling’s)' if tells else ''}"

    @torch.no_grad()
    def frame(self, scene: int, edit: int) -> tuple[Figure, str]:
        """One picture, what the network names it, and its maps of that class; and the
        same in words.
        """
        one = only(self.pairs, torch.tensor([scene]))
        changed = one.changed[0, edit]
        one = replace(one, images=one.images[:, edit : edit + 1])
        device = next(self.model.parameters()).device
        logits = logits_of(self.model, one.views(torch.tensor([0])).to(device))
        probability, named = logits.float().softmax(1).cpu()[0].max(0)
        said = f"named {self.names[int(named)]} with {100 * probability:.0f} %"

        with styled():
            columns = 1 + len(self.explanations)
            size = (WIDTH, WIDTH / columns + 0.4)
            drawn = Figure(figsize=size, layout="constrained")
            first, *places = drawn.subplots(1, columns, squeeze=False)[0]
            image = one.images[0, 0].float() / 255
            photo(first, image)
            if edit:
                outlined(first, changed)
            titled(first, "changed" if edit else "unchanged")
            for axes, (name, explanation) in zip(
                places, self.explanations.items(), strict=True
            ):
                maps = causal.explained(self.model, one, explanation, named[None])
                photo(axes, lit(image, maps[0]))
                titled(axes, name)
        return drawn, said

    def page(self, scenes: Sequence[int]) -> Shown:
        """Frames of some scenes behind buttons, for a page without a kernel."""
        caption = (
            "Change one thing: choose a picture. Pixels that differ from the picture as"
            " it is are outlined; beside it the maps of the class that is named, each"
            " on its own scale."
        )
        groups = [self._group(scene) for scene in scenes]
        return Shown(
            f"{STYLE}<figure class='fgbook-figure fgbook-choices'>{''.join(groups)}"
            f"<figcaption>{html.escape(caption)}</figcaption></figure>",
            f"[choices] {caption}",
        )

    def _group(self, scene: int) -> str:
        name = html.escape(self.names[int(self.pairs.labels[scene])])
        buttons, frames = [], []
        for place, edit in enumerate(self.edits(scene)):
            drawn, said = self.frame(scene, edit)
            title = html.escape(self.title(scene, edit))
            checked = "checked" if place == 0 else ""
            buttons.append(
                f"<label><input type='radio' name='bird{scene}' value='{place}'"
                f" {checked}> {title}</label>"
            )
            maps = ", ".join(self.explanations)
            alt = html.escape(f"{title}: {said}; lit by the maps {maps}")
            frames.append(
                f"<div class='choice{place}'><p>{title}: {html.escape(said)}.</p>"
                f"<img src='{_as_url(drawn)}' alt='{name}, {alt}.'></div>"
            )
        legend = f"<legend>A drawn {name}</legend>"
        return f"<fieldset>{legend}{''.join(buttons)}{''.join(frames)}</fieldset>"

    def widget(self) -> Any:
        """The same with every bird and every change, for Jupyter."""
        import ipywidgets
        from IPython.display import display

        birds = [
            (f"{i + 1}: {self.names[int(label)]}", i)
            for i, label in enumerate(self.pairs.labels)
        ]
        scene = ipywidgets.Dropdown(options=birds, description="bird")
        edit = ipywidgets.Dropdown(
            options=[("as it is", 0), *((name, k) for k, name in enumerate(EDITS, 1))],
            description="change",
        )

        def show(scene: int, edit: int) -> None:
            drawn, said = self.frame(scene, edit)
            url = _as_url(drawn)
            alt = html.escape(f"{self.title(scene, edit)}: {said}")
            display(Shown(f"<p>{said}.</p><img src='{url}' alt='{alt}'>", said))

        shown = ipywidgets.interactive_output(show, {"scene": scene, "edit": edit})
        return ipywidgets.VBox([scene, edit, shown])


def _as_url(drawn: Figure) -> str:
    """A frame as a URL; JPEG, because there are many."""
    with io.BytesIO() as buffer:
        drawn.savefig(buffer, format="jpeg", dpi=DPI, pil_kwargs={"quality": 85})
        return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


# Without :has() a browser shows all frames.
STYLE = (
    "<style>.fgbook-choices fieldset { border: 1px solid #8888; border-radius: 6px;"
    " margin: 0 auto 1rem; max-width: 46rem }"
    " .fgbook-choices label { display: inline-block; margin: 0 .8rem .3rem 0 }"
    " .fgbook-choices p { margin: .3rem 0 }"
    " @supports selector(:has(a)) { .fgbook-choices fieldset > div { display: none }"
    + "".join(
        f" .fgbook-choices fieldset:has(input[value='{k}']:checked) > .choice{k}"
        " { display: block }"
        for k in range(6)
    )
    + " }</style>"
)
