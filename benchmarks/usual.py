"""Methods as their public repositories run them, in our words, for peers.py: loops over
images, boxes chosen by numpy on the host, patches cut by PIL, every loss read after
every step. They use the modules of our models, so that both ways have the same
weights and arithmetic.

Read for this: yangze0930/NTS-Net (core/model.py, core/anchors.py),
PRIS-CV/PMG-Progressive-Multi-Granularity-Training (train.py, utils.py), JDAI-CV/DCL
(utils/dataset_DCL.py, transforms/functional.py).
"""

import random
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageStat
from torch import Tensor, nn

from fgbook.methods import DCL, PMG, NTSNet


class Usual:
    """A training step of SGD, or several, on batches as they come."""

    def __init__(self, model: nn.Module):
        self.model = model.train()
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.SGD(parameters, 1e-4, momentum=0.9)
        self.read = 0.0  # sum of losses, for the log

    def update(self, loss: Tensor) -> None:
        """One optimiser step; the loss is read, as for a progress bar."""
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.read += loss.item()


# ---- NTS-Net


def best_boxes(listed: np.ndarray, count: int, threshold: float) -> np.ndarray:
    """Greedy NMS of one image on the host: rows of score, y0, x0, y1, x1, number; the
    `count` best that overlap no better one.
    """
    left = listed[listed[:, 0].argsort()]
    found = []
    while len(left) and len(found) < count:
        best, left = left[-1], left[:-1]
        found.append(best)
        top_left = np.maximum(left[:, 1:3], best[1:3])
        sides = np.minimum(left[:, 3:5], best[3:5]) - top_left
        shared = sides[:, 0] * sides[:, 1]
        shared[(sides < 0).any(1)] = 0
        areas = (left[:, 3] - left[:, 1]) * (left[:, 4] - left[:, 2])
        area = (best[3] - best[1]) * (best[4] - best[2])
        left = left[shared / (areas + area - shared) < threshold]
    return np.array(found)


def cut_regions(
    images: Tensor,
    scores: Tensor,
    anchors: np.ndarray,
    count: int,
    side: int,
    threshold: float = 0.25,
) -> tuple[Tensor, Tensor]:
    """The chosen boxes' numbers (B, count) and crops (B, count, 3, side, side):
    `anchors` (A, 4) are y0, x0, y1, x1 in whole pixels.

    The image is padded on all sides by as much as a crop has, because the original's
    boxes leave it.
    """
    padded = F.pad(images, (side,) * 4)
    numbers = np.arange(len(anchors))[:, None]
    chosen = []
    for score in scores.detach().cpu().numpy():
        listed = np.concatenate([score[:, None], anchors + side, numbers], 1)
        chosen.append(best_boxes(listed, count, threshold))
    boxes = np.array(chosen)
    crops = torch.zeros(len(images), count, 3, side, side, device=images.device)
    for i in range(len(images)):
        for j in range(count):
            y0, x0, y1, x1 = boxes[i, j, 1:5].astype(int)
            part = padded[i : i + 1, :, y0:y1, x0:x1]
            crops[i : i + 1, j] = F.interpolate(
                part, (side, side), mode="bilinear", align_corners=True
            )
    return torch.from_numpy(boxes[:, :, -1].astype(int)).to(images.device), crops


class UsualNTSNet(Usual):
    """Navigator, teacher and scrutinizer, with a loop over images for the crops and one
    for the teacher's losses.
    """

    model: NTSNet

    def step(self, images: Tensor, targets: Tensor) -> None:
        """One batch."""
        model = self.model
        maps, feature = model._see(images)
        scores = model.navigator(maps.detach())
        boxes, _ = model._geometry(images, *maps.shape[2:])
        side = round(model.zoom * images.shape[-1])
        chosen, crops = cut_regions(images, scores, anchors(boxes), model.m, side)
        _, parts = model._see(crops.flatten(0, 1).detach())
        parts = parts.unflatten(0, (-1, model.m))
        of_parts = model.part_head(parts).flatten(0, 1)
        joined = torch.cat([parts[:, : model.k].flatten(1), feature], 1)

        each = targets.unsqueeze(1).repeat(1, model.m).view(-1)
        logarithms = F.log_softmax(of_parts, 1)
        teacher = [-logarithms[i][each[i].item()] for i in range(len(each))]
        losses = torch.stack(teacher).view(-1, model.m)
        score = scores.gather(1, chosen)
        rank = torch.zeros(1, device=images.device)
        for i in range(model.m):
            behind = (losses > losses[:, i : i + 1]).float()
            rank = rank + ((1 - score[:, i : i + 1] + score) * behind).relu().sum()
        whole = F.cross_entropy(model.image_head(feature), targets)
        together = F.cross_entropy(model.concat_head(joined), targets)
        part = F.cross_entropy(of_parts, each)
        self.update((whole + rank / len(images) + together + part).sum())


def anchors(boxes: Tensor) -> np.ndarray:
    """Boxes xyxy as the original keeps them: y0, x0, y1, x1, whole pixels."""
    return boxes.round().int().cpu().numpy()[:, [1, 0, 3, 2]]


# ---- PMG


def jigsaw(images: Tensor, n: int) -> Tensor:
    """Patches swapped with the first place one after another, by one permutation for
    the whole batch.
    """
    side = images.shape[-1] // n
    places = [(row, column) for row in range(n) for column in range(n)]
    random.shuffle(places)
    shuffled = images.clone()
    first = shuffled[..., :side, :side]
    for row, column in places:
        rows = slice(row * side, (row + 1) * side)
        columns = slice(column * side, (column + 1) * side)
        before = first.clone()
        first.copy_(shuffled[..., rows, columns].clone())
        shuffled[..., rows, columns] = before
    return shuffled


class UsualPMG(Usual):
    """Four steps a batch, each of which runs all blocks and heads."""

    model: PMG

    def step(self, images: Tensor, targets: Tensor) -> None:
        """One batch."""
        for name, n in self.model.patches.items():
            logits = self.model.look(jigsaw(images, n))
            self.update(F.cross_entropy(logits[name], targets))
        logits = self.model.look(images)
        self.update(2 * F.cross_entropy(logits["concat"], targets))


# ---- DCL


def cut(picture: Image.Image, n: int) -> list[Image.Image]:
    """Its n x n patches, row by row."""
    width, height = picture.size
    across = [int(width / n * i) for i in range(n + 1)]
    down = [int(height / n * i) for i in range(n + 1)]
    patches = []
    for y0, y1 in pairwise(down):
        for x0, x1 in pairwise(across):
            patches.append(picture.crop((x0, y0, x1, y1)))
    return patches


def destroy(picture: Image.Image, n: int) -> Image.Image:
    """A picture whose patches have swapped places with neighbours: those of a row one
    after another, then whole rows.
    """
    width, height = picture.size
    patches = cut(picture.crop((10, 10, width - 10, height - 10)), n)
    rows: list[list[Image.Image]] = []
    for start in range(0, n * n, n):
        row = patches[start : start + n]
        for i in range(1, n):
            pair = row[i - 1 : i + 1]
            random.shuffle(pair)
            row[i - 1 : i + 1] = pair
        rows.append(row)
        last = rows[-2:]
        random.shuffle(last)
        rows[-2:] = last
    across, down = (width - 20) // n, (height - 20) // n
    made = Image.new("RGB", (across * n, down * n))
    for y, row in enumerate(rows):
        for x, patch in enumerate(row):
            resized = patch.resize((across, down), Image.Resampling.LANCZOS)
            made.paste(resized, (x * across, y * down))
    return made.resize((width, height))


def guessed(whole: Image.Image, destroyed: Image.Image, n: int) -> list[float]:
    """Where each patch came from, by the mean colour of what looks most like it."""
    colours = [sum(ImageStat.Stat(patch).mean) for patch in cut(whole, n)]
    places = []
    for patch in cut(destroyed, n):
        colour = sum(ImageStat.Stat(patch).mean)
        distances = [abs(colour - other) for other in colours]
        number = distances.index(min(distances))
        places.append((number - n * n // 2) / (n * n))
    return places


def to_tensor(picture: Image.Image) -> Tensor:
    """(3, H, W) in 0..1."""
    pixels = torch.from_numpy(np.array(picture))
    return pixels.permute(2, 0, 1).contiguous().float().div(255)


class UsualDCL(Usual):
    """Every picture destroyed and its permutation guessed by PIL, one by one. (The
    repository does it in loader processes: the processor's time is the same.)
    """

    model: DCL

    def step(self, pictures: list[Image.Image], targets: Tensor) -> None:
        """One batch."""
        model, n = self.model, self.model.n
        unmoved = [(i - n * n // 2) / (n * n) for i in range(n * n)]
        images, laws = [], []
        for picture in pictures:
            other = destroy(picture, n)
            images += [to_tensor(picture), to_tensor(other)]
            laws += [unmoved, guessed(picture, other, n)]
        batch = torch.stack(images).to(targets.device)
        maps = model.backbone(batch)
        features = maps.mean((2, 3))
        twice = targets.repeat_interleave(2)
        destroyed = torch.tensor([0, 1], device=targets.device).repeat(len(targets))
        where = model._locate(maps, model.location_head)[..., 0]
        law = torch.tensor(laws, device=targets.device)
        self.update(
            F.cross_entropy(model.image_head(features), twice)
            + F.cross_entropy(model.adversarial_head(features), destroyed)
            + F.l1_loss(where, law)
        )
