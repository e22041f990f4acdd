"""What a reader plays with: settings to choose, and one function that makes the frame
of every choice, whether it is drawn now or was drawn beforehand.
"""

import html
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Frame:
    """What is shown for one choice of settings: `shown` as HTML, and `says` the values
    in one or two sentences.
    """

    shown: str
    says: str


@dataclass(frozen=True)
class Choice:
    """A setting: the `name` that the frame's function calls it, what a reader is told
    it is, its values in order, and the one at the start.

    Whether it is a slider (numbers), a menu (words) or a box to tick (False, True)
    follows from the values; `say` makes a value's text. `in_page`: the values that have
    frames in a page without a kernel; empty: all. Raises ValueError where the start is
    none of these.
    """

    name: str
    label: str
    values: Sequence[Any]
    start: Any
    say: Callable[[Any], str] = str
    in_page: Sequence[Any] = ()

    def __post_init__(self) -> None:
        if self.start not in self.there():
            raise ValueError(f"{self.name}: {self.start!r} is not in {self.there()!r}")

    @property
    def kind(self) -> str:
        """One of "slider", "menu" and "box"."""
        if list(self.values) == [False, True]:
            return "box"
        numbers = all(isinstance(value, int | float) for value in self.values)
        return "slider" if numbers else "menu"

    @property
    def is_free(self) -> bool:
        """Whether there is anything to choose."""
        return len(self.values) > 1

    def there(self) -> list[Any]:
        """The values that a page has frames for."""
        return list(self.in_page or self.values)


@dataclass(frozen=True)
class Piece:
    """Something to play with. `title` names it, `caption` says what is to be seen;
    `frame` is called with a value of each of the choices by its name.
    """

    title: str
    caption: str
    choices: Sequence[Choice]
    frame: Callable[..., Frame]

    def start(self) -> dict[str, Any]:
        """The settings that are shown first."""
        return {choice.name: choice.start for choice in self.choices}

    def grid(self) -> Iterator[dict[str, Any]]:
        """All settings that a page has frames for; the last choice changes first."""
        names = [choice.name for choice in self.choices]
        for values in itertools.product(*(choice.there() for choice in self.choices)):
            yield dict(zip(names, values, strict=True))

    def say(self, settings: dict[str, Any]) -> str:
        """The settings in words: "m: 4, box: 0.36"."""
        said = []
        for choice in self.choices:
            said.append(f"{choice.label}: {choice.say(settings[choice.name])}")
        return ", ".join(said)


def escaped(text: object) -> str:
    """Text as HTML, also inside an attribute."""
    return html.escape(str(text))
