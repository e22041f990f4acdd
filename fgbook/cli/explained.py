"""Pictures of what a trained model looks at, for ``fgbook predict --explain``."""

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, count

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ..explain import Explanation
    from ..methods import Method

MAPS = ("own attention", "rollout", "CAM", "Grad-CAM", "own boxes", "own regions")
"""The explanations that may light a picture, the first that a model has; occlusion,
which every model has, where it has none of these.
"""


class Explainer:
    """Saves pictures as a model sees them: lit where the map of the predicted class is
    high, with the model's regions or boxes where it has some.
    """

    def __init__(
        self, model: "Method", views: "Callable[[np.ndarray], Tensor]", folder: Path
    ):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--explain {folder}: {error.strerror or error}; name a folder that can"
                " be written."
            ) from error
        self.model = model
        self.views = views  # of pixels, as the model is to see them
        self.folder = folder
        self.saved = 0
        self.name = ""  # of the map, once there is one
        self.explain: Explanation | None = None

    def save(self, files: Sequence[Path], pixels: "np.ndarray") -> None:
        """A PNG file for each picture (B, 3, size, size) uint8. The number in its name
        is the picture's place among those that can be read.
        """
        import torch

        from ..explain import boxes_of, offered

        views = self.views(pixels)  # (B, 3, S, S) in [0, 1]
        with torch.no_grad():
            classes = self.model.predict(views).argmax(1)
        if self.explain is None:  # one for all pictures
            explanations = offered(self.model, views[:1]).explanations
            mine = [name for name in MAPS if name in explanations]
            self.name = mine[0] if mine else "occlusion"
            self.explain = explanations[self.name]
        maps = self.explain(views, classes).detach()

        with torch.no_grad():
            boxes = boxes_of(self.model, views)
        for i, file in enumerate(files):
            self.saved += 1
            marked = boxes[i].tolist() if boxes is not None else []
            self._write(file, drawn(views[i], maps[i], marked))

    def said(self) -> str:
        """What was saved, in a line."""
        if not self.saved:
            return f"{self.folder}: no picture"
        return f"{self.folder}: {count(self.saved, 'picture')}, lit by {self.name}"

    def _write(self, file: Path, content: bytes) -> None:
        from .. import files

        # A name of 255 bytes is the longest: that of the temporary file has some more
        # than this, and a letter has up to 4. What is no letter is left out.
        stem = os.fsencode(file.stem[:60])[:200].decode(errors="ignore")
        path = self.folder / f"{self.saved:05d}-{stem}.png"
        files.write(path, content, "name another folder for these pictures")


def drawn(
    view: "Tensor", explanation: "Tensor", boxes: Sequence[Sequence[float]]
) -> bytes:
    """A PNG: the picture (3, S, S), dimmed where the map (h, w) of an explanation is
    low, with boxes (m, 4) xyxy.
    """
    from PIL import Image, ImageDraw

    from ..images.light import lit

    shown = lit(view, explanation).clamp(0, 1)
    pixels = (255 * shown).round().byte().permute(1, 2, 0).cpu().numpy()

    picture = Image.fromarray(pixels)
    pen = ImageDraw.Draw(picture)
    for box in boxes:
        left, top, right, bottom = (round(x) for x in box)
        # white beside black, so that it stands off every ground
        pen.rectangle(
            (left, top, max(left, right - 1), max(top, bottom - 1)), None, "white"
        )
        inner = (left + 1, top + 1, max(left + 1, right - 2), max(top + 1, bottom - 2))
        pen.rectangle(inner, None, "black")
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()
