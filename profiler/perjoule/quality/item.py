"""One question of a task, and the answer that is right."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from perjoule.records import Record


class Exact(Record, frozen=True, kw_only=True, tag_field="match", tag="exact"):
    """The answer is this text."""

    text: str


class Number(Record, frozen=True, kw_only=True, tag_field="match", tag="number"):
    """The answer is this number, compared as a decimal: 12.50 is 12.5, and nothing else is near enough."""

    value: str

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_no_number(self.value)


class Choice(Record, frozen=True, kw_only=True, tag_field="match", tag="choice"):
    """The answer is one of the choices that the prompt names."""

    text: str
    choices: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if len({c.casefold() for c in self.choices}) < len(self.choices) or len(self.choices) < 2:  # noqa: PLR2004 - else nothing to choose
            raise ValueError("a choice needs at least two choices, all different")
        if self.text not in self.choices:
            raise ValueError(f"the answer {self.text!r} is none of the choices")


class Order(Record, frozen=True, kw_only=True, tag_field="match", tag="order"):
    """The answer is these names in this order; ``start`` may be said before them."""

    names: tuple[str, ...]
    start: str


class Fields(Record, frozen=True, kw_only=True, tag_field="match", tag="json"):
    """The answer is a JSON object with exactly these texts and these numbers (as decimals)."""

    texts: dict[str, str]
    numbers: dict[str, str]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.texts and not self.numbers:
            raise ValueError("an object needs at least one key")
        if self.texts.keys() & self.numbers.keys():
            raise ValueError("a key is a text or a number, not both")
        for value in self.numbers.values():
            _refuse_no_number(value)


Key = Exact | Number | Choice | Order | Fields


class Item(Record, frozen=True, kw_only=True):
    """``id`` is the same in all languages for the same question."""

    id: str
    task: str
    language: str
    level: int
    prompt: str
    system: str | None = None
    key: Key

    @property
    def chance(self) -> float:
        """Return how often a guess that keeps to the format is right; 0 where there is no short list of answers."""
        if isinstance(self.key, Choice):
            return 1 / len(self.key.choices)
        if isinstance(self.key, Order):
            orders = 1
            for n in range(2, len(self.key.names) + 1):
                orders *= n
            return 1 / orders
        return 0.0


def _refuse_no_number(text: str) -> None:
    try:
        finite = Decimal(text).is_finite()
    except InvalidOperation:
        finite = False
    if not finite:
        raise ValueError(f"{text!r} is not a number")
