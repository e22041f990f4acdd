"""What notebooks draw with: tables and figures from records and models.

Everything returned is a :class:`Shown`: HTML that carries its own caption, alternative
text and sources, so that it reads the same in Jupyter, in Colab, in the built book and
glued into another page. Figures are vector pictures in the colours of the page around
them (`vector.py`); series are told apart by marker and line as well as by colour.

Names here serve every chapter; what one chapter draws stands in a file of its own.
"""

from .base import Shown, figure, glue, measured, table
from .curves import curves_figure, sweep_figure
from .effects import effects_figure
from .photos import spread
from .plates import ground_truth, pictures
from .regions import (
    REGION_STYLES,
    attention_figure,
    hits_figure,
    hits_table,
    regions_figure,
    variant,
)
from .summary import accuracy, setting
from .tables import (
    accuracy_table,
    printed_table,
    recipe_table,
    tuning_table,
    verdict_table,
)

__all__ = [
    "REGION_STYLES",
    "Shown",
    "accuracy",
    "accuracy_table",
    "attention_figure",
    "curves_figure",
    "effects_figure",
    "figure",
    "glue",
    "ground_truth",
    "hits_figure",
    "hits_table",
    "measured",
    "pictures",
    "printed_table",
    "recipe_table",
    "regions_figure",
    "setting",
    "spread",
    "sweep_figure",
    "table",
    "tuning_table",
    "variant",
    "verdict_table",
]
