"""The page's three networks as ONNX graphs: a picture goes in, and all that the page
shows comes out, so that nothing of a method is written a second time in JavaScript.

===== ============================ ================================================
name  besides the picture          gives
===== ============================ ================================================
plain                              probabilities, map
focus overlap (), side () int64    probabilities, map, boxes (MOST, 4), and what each
                                   region alone is named: region_probabilities (MOST, C)
flrdf                              probabilities, map, box (4,)
===== ============================ ================================================

The picture is (1, 3, S, S) in [0, 1]; probabilities (C,); a map lies over the pixels of
the picture (S, S); boxes are xyxy in its pixels. Regions are chosen one after the
other, so that a smaller m than MOST cuts the list short.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..evidence import models, runs
from ..evidence.plan import Run
from ..export import to_onnx
from ..images import regions
from ..images.enlarge import enlarge
from ..methods import Method
from ..methods.flrdf import Flrdf
from ..methods.focus import Focus
from ..recipe import Recipe

MOST = 9  # regions
# Sides of a box that can be chosen, in pixels of the paper's 448; its own is 160.
OF = 448
SIDES = list(range(80, 321, 16))


class Graph(nn.Module):
    """A trained network, and what the page shows of it at pictures of `size` pixels."""

    inputs: tuple[str, ...] = ("picture",)
    outputs: tuple[str, ...] = ("probabilities", "map")

    def __init__(self, model: Method, size: int):
        super().__init__()
        self.model = model
        self.size = size
        self.depth = cast(Any, model).backbone.depth_at(size)

    def over(self, maps: Tensor) -> Tensor:
        """A map (1, h, w) over the pixels, (S, S)."""
        return enlarge(maps, self.size, self.depth.stride, self.depth.first)[0]

    def examples(self) -> tuple[Tensor, ...]:
        """Inputs to trace it with."""
        return (torch.rand(1, 3, self.size, self.size),)


class PlainGraph(Graph):
    """The plain backbone, and the class activation map of the class that it names."""

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Picture -> probabilities, map."""
        model = cast(Any, self.model)
        maps = model.backbone(picture)
        logits = model.image_head(maps.mean((2, 3)))
        weight = model.image_head.weight[logits.argmax(1)]  # (1, n)
        activation = torch.einsum("bn,bnhw->bhw", weight, maps)
        return logits.softmax(1)[0], self.over(activation)


class FocusGraph(Graph):
    """Focus and discriminate, with the overlap of regions and their side to choose."""

    inputs = ("picture", "overlap", "side")
    outputs = ("probabilities", "map", "boxes", "region_probabilities")
    candidates: Tensor  # boxes (sides, h * w, 4)

    def __init__(self, model: Focus, size: int):
        super().__init__(model, size)
        with torch.no_grad():
            h, w = model.attention_map(self.examples()[0]).shape[1:]
        stride, first = self.depth.stride, self.depth.first
        of_sides = [
            regions.centre_boxes(h, w, size, side / OF * size, stride, first)
            for side in SIDES
        ]
        self.register_buffer("candidates", torch.stack(of_sides))

    def forward(
        self, picture: Tensor, overlap: Tensor, side: Tensor
    ) -> tuple[Tensor, ...]:
        """Picture, largest overlap () in [0, 1], place in SIDES () -> probabilities,
        map, boxes, what each region alone is named.
        """
        # the steps of Focus.predict
        model = cast(Any, self.model)
        maps, feature, image_logits = model._first_look(picture)
        attention = model._attention(maps, image_logits)
        boxes = self.candidates[side]  # (h * w, 4)
        chosen = regions.select(
            attention.flatten(1), regions.iou_matrix(boxes), MOST, overlap
        )
        best = boxes[chosen]  # (1, M, 4)
        features = model._second_look(picture, best)  # (1, M, n)
        logits = model.hybrid_head(model._joined(feature, features))
        alone = model.region_head(features)
        return (
            logits.softmax(1)[0],
            self.over(attention),
            best[0],
            alone.softmax(2)[0],
        )

    def examples(self) -> tuple[Tensor, ...]:
        """Inputs to trace it with."""
        side = torch.tensor(SIDES.index(160))
        return (*super().examples(), torch.tensor(0.25), side)


class FlrdfGraph(Graph):
    """FLRDF, and the foreground that its second look is at."""

    outputs = ("probabilities", "map", "box")

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Picture -> probabilities, pressed map, box."""
        model = cast(Flrdf, self.model)
        activation = model.activations(model.first_look(picture))["foreground"]
        box = model.box(activation, self.size)
        return model.predict(picture).softmax(1)[0], self.over(activation), box[0]


# name on the page -> paper, row, graph
ROWS: dict[str, tuple[str, str, type[Graph]]] = {
    "plain": ("feng", "plain", PlainGraph),
    "focus": ("feng", "hybrid", FocusGraph),
    "flrdf": ("liang", "flrdf", FlrdfGraph),
}


@dataclass
class Network:
    """A trained network of the page."""

    name: str
    model: Method
    recipe: Recipe
    classes: list[str]

    def graph(self) -> Graph:
        """Made for pictures of the size that the network was trained on."""
        made = ROWS[self.name][2]
        return made(self.model, self.recipe.image_size).eval()

    def onnx(self) -> bytes:
        """The graph as ONNX. Raises InputError where the packages for that are not
        installed, or this version of PyTorch cannot write it.
        """
        to_onnx.check_installed()
        graph = self.graph()
        try:
            with to_onnx.quiet():
                program = torch.onnx.export(
                    graph,
                    graph.examples(),
                    input_names=graph.inputs,
                    output_names=graph.outputs,
                    opset_version=to_onnx.OPSET,
                    dynamo=True,
                    verbose=False,
                )
        except Exception as error:  # as many kinds as there are reasons
            raise InputError(
                f"PyTorch {torch.__version__} cannot write the network {self.name} as"
                f" ONNX ({type(error).__name__})."
            ) from error
        assert program is not None
        return to_onnx.described(program.model_proto, {"name": self.name})


def planned() -> dict[str, Run]:
    """The quick run of every network, with seed 0, as the notebooks make it."""
    return {
        name: runs.resolve(paper, row, "quick")
        for name, (paper, row, _) in ROWS.items()
    }


def trained(planned: dict[str, Run]) -> list[Network]:
    """The networks of finished runs. Raises InputError where the weights of one are not
    here.
    """
    found = []
    for name, run in planned.items():
        models.check_weights(run.folder, {"key": run.key, "command": run.command})
        model, about = runs.load_model(run.key, "cpu")
        recipe = Recipe.of(about["recipe"])
        found.append(Network(name, model, recipe, about["classes"]))
    return found
