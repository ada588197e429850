"""How a number was made, in one line."""

import dataclasses
import hashlib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """Everything that decides which episodes a test has and how they are scored.

    Attributes:
        name: what people call it; a label, which decides nothing.
        data: the pictures, as their source names them (set, fold, list, area rule).
        classes: the names of the classes that are scored.
        shot: K.
        episodes: how many.
        seed: of the episodes.
        draw: "class" (a class, then its pictures) or "image" (a picture, then one of its classes).
        size: side of the square that the network sees.

    Example:
        >>> scored = dict(data="shapes fold 0 test", classes=("ring",), shot=1, episodes=200, seed=0, draw="class")
        >>> print(Protocol(name="demo", **scored, size=64))  # doctest: +ELLIPSIS
        demo: shapes fold 0 test, 1 class, 1-shot, 200 episodes, seed 0, drawn by class, seen at 64 px, scored ...
    """

    name: str
    data: str
    classes: tuple[str, ...]
    shot: int
    episodes: int
    seed: int
    draw: str
    size: int

    @property
    def id(self) -> str:
        """Six hexadecimal digits of all but the name; the same for the same protocol, on any machine."""
        deciding = dataclasses.astuple(self)[1:]
        return hashlib.sha256(repr(deciding).encode()).hexdigest()[:6]

    def __str__(self) -> str:
        count = len(self.classes)
        return (
            f"{self.name}: {self.data}, {count} class{'es' * (count > 1)}, {self.shot}-shot, {self.episodes} episodes, "
            f"seed {self.seed}, drawn by {self.draw}, seen at {self.size} px, scored at original size [{self.id}]"
        )
