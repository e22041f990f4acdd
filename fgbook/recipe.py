"""Recipe: every choice of a training run, in one place, as data."""

from dataclasses import asdict, dataclass, fields, replace

from .errors import InputError, unknown

CHOICES = {
    "optimiser": ("sgd", "adam", "adamax", "adamw"),
    "schedule": ("constant", "step", "cosine", "cyclic", "onecycle"),
    "batchnorm": ("batch", "frozen"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
    "train_on": ("train", "train+val"),
    "resolution": ("high", "low", "mixed"),
    "upsample": ("bicubic", "bilinear"),
    "keep": ("best", "last"),
}
OTHER_WAY = ("compile", "recompute")
"""Other ways to the same numbers: not part of what a run is."""
LATER = (
    "erase",
    "mixup",
    "cutmix",
    "resolution",
    "low_side",
    "upsample",
    "fraction",
    "sync_batchnorm",
    "recompute",
    "per_class",
    "views",
    "keep",
)
"""Fields that came after the first published records: while they are off, a run is what
it was without them."""


@dataclass(frozen=True)
class Recipe:
    """All that a training run is told, except the model's own options, the data and the
    seed.

    Raises InputError for a value outside its range; ``Recipe.of(dict)`` also for an
    unknown field.
    """

    # images
    image_size: int = 224  # side of the square that the network sees, pixels
    # side of the square that is kept decoded; training crops image_size from it,
    # evaluation its centre
    store_size: int = 256
    # 0: random place, no zoom. s > 0: a random square of side s..1 of the stored one,
    # resized to image_size
    crop_scale: float = 0.0
    flip: bool = True  # mirror half of the images, left to right
    rotate: float = 0.0  # degrees, uniform in [-rotate, rotate]
    # brightness and contrast factors, uniform in [1 - jitter, 1 + jitter]
    jitter: float = 0.0
    erase: float = 0.0  # share of the images in which one random rectangle is blanked
    # a > 0: every image is blended with another of the training split, in shares from
    # Beta(a, a)
    mixup: float = 0.0
    # a > 0: a rectangle of another image is pasted in, with area shares from Beta(a,
    # a); with mixup, a coin decides by image
    cutmix: float = 0.0
    # "low": reduced to low_side and enlarged again; "mixed": one of both, by a coin for
    # each image and epoch
    resolution: str = "high"
    low_side: int = 0  # pixels; > 0: the test split is measured at low resolution too
    upsample: str = "bicubic"  # how a reduced image is enlarged
    # of each image in a batch, each augmented for itself: all images' first views, then
    # all second ones, ...
    views: int = 1
    # of each class's training images: the first of a fixed order, so that a smaller
    # part lies within a larger one
    fraction: float = 1.0
    # network
    backbone: str = "mobilenet_v2"
    weights: str = "pretrained"  # "pretrained", "none", or the path of a weights file
    # "frozen": pretrained statistics are kept, affine parameters still learn
    batchnorm: str = "batch"
    # optimisation
    epochs: int = 10
    # images per optimiser step, over all processes and accumulation steps
    batch_size: int = 16
    # K > 1: K images of a class follow each other in a batch, so that a loss can
    # compare them; 0: any order
    per_class: int = 0
    # a step's batch is worked through in this many parts (memory), gradients added
    accumulate: int = 1
    optimiser: str = "sgd"
    lr: float = 0.01  # of the new layers (heads)
    # the backbone's rate is lr times this; 0 freezes it
    backbone_lr_factor: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    # "step": every so many epochs the rate is multiplied by step_factor
    step_epochs: int = 40
    step_factor: float = 0.1
    # "cyclic": length of one triangle, from a tenth of the rate to the rate and back
    cycle_epochs: float = 2.0
    warmup_epochs: float = 0.0
    clip_norm: float = 0.0  # 0: gradients are not clipped
    label_smoothing: float = 0.0
    # (name of a model's loss, weight); a loss not named has weight 1
    loss_weights: tuple[tuple[str, float], ...] = ()
    ema: float = 0.0  # decay of the averaged weights, a step; 0: off
    # selection
    # "train+val": train on both and keep the last epoch (settings were chosen before,
    # on validation)
    train_on: str = "train"
    # the epoch that validation likes best, or the "last" one: of a stage whose
    # predictions mean nothing
    keep: str = "best"
    # stop after so many epochs without a better validation accuracy; 0: never
    patience: int = 0
    # execution
    # "auto": bf16 on a GPU that has it, fp16 on an older one, fp32 on a CPU
    precision: str = "auto"
    compile: bool = False
    # activations inside the backbone are computed again for the gradient: less memory,
    # more time
    recompute: bool = False
    # several processes: batch statistics of the whole batch, not of each process's
    # slice
    sync_batchnorm: bool = False

    def __post_init__(self):
        for name, valid in CHOICES.items():
            if getattr(self, name) not in valid:
                raise unknown(name, getattr(self, name), valid)
        positive = (
            "image_size",
            "epochs",
            "batch_size",
            "accumulate",
            "lr",
            "step_epochs",
            "cycle_epochs",
            "fraction",
            "views",
        )
        for name in positive:
            if not getattr(self, name) > 0:
                raise InputError(
                    f"recipe: {name} is {getattr(self, name)!r}; it must be greater"
                    " than 0."
                )
        if self.store_size < self.image_size:
            raise InputError(
                f"recipe: store_size {self.store_size} is smaller than image_size"
                f" {self.image_size}; make it at least as large."
            )
        for name in (
            "crop_scale",
            "backbone_lr_factor",
            "momentum",
            "label_smoothing",
            "ema",
            "erase",
            "fraction",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(
                    f"recipe: {name} is {getattr(self, name)!r}; it must lie between 0"
                    " and 1."
                )
        for name in ("mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise InputError(
                    f"recipe: {name} is {getattr(self, name)!r}; it must not be"
                    " negative (0: off)."
                )
        if not (
            0 < self.low_side < self.image_size
            or (self.low_side == 0 and self.resolution == "high")
        ):
            raise InputError(
                f"recipe: low_side is {self.low_side!r}; resolution {self.resolution!r}"
                f" at image_size {self.image_size} needs it"
                f" {'to be 0 or ' if self.resolution == 'high' else ''}between 1 and"
                f" {self.image_size - 1} pixels."
            )
        if self.batch_size % self.accumulate:
            raise InputError(
                f"recipe: batch_size {self.batch_size} is not a multiple of accumulate"
                f" {self.accumulate}."
            )
        if self.per_class and not (
            self.per_class > 1
            and self.batch_size // self.accumulate % self.per_class == 0
        ):
            raise InputError(
                f"recipe: per_class is {self.per_class!r}; it must be 0, or more than 1"
                f" and a divisor of the {self.batch_size // self.accumulate} images"
                " that are worked through at once."
            )
        if self.keep == "last" and self.patience:
            raise InputError(
                "recipe: patience waits for a better epoch, but keep='last' keeps the"
                " last one; set patience=0."
            )
        if self.train_on == "train+val" and self.patience:
            raise InputError(
                "recipe: patience needs a validation split, but train_on='train+val'"
                " trains on it; set patience=0."
            )

    @classmethod
    def of(cls, values: dict) -> "Recipe":
        """A recipe from a dictionary, such as a record's; lists become tuples."""
        names = [f.name for f in fields(cls)]
        for name in values:
            if name not in names:
                raise unknown("recipe field", name, names)
        values = dict(values)
        if "loss_weights" in values:
            values["loss_weights"] = tuple(
                (str(k), float(v)) for k, v in values["loss_weights"]
            )
        return cls(**values)

    def but(self, **changes) -> "Recipe":
        """A copy with some fields changed; unknown names are refused."""
        names = [f.name for f in fields(self)]
        for name in changes:
            if name not in names:
                raise unknown("recipe field", name, names)
        return replace(self, **changes)

    def as_dict(self) -> dict:
        return asdict(self)

    def determinants(self) -> dict:
        """What a run's results depend on, for keys: without other ways to the same
        numbers, and without later fields while they are off."""
        default = Recipe()
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in OTHER_WAY
            and not (name in LATER and value == getattr(default, name))
        }
