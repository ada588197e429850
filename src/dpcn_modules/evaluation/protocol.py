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
        annotation: of the supports: "mask", "box" (each connected object) or "class_box" (one around all).
        scales: further sides at which the network sees the pictures; the probabilities are averaged.
        truth: "original" (the mask as it is) or "resized" (the mask on the square that the network sees).
        manifest: hash of the file that the episodes come from; empty where they were drawn.

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
    # A field that is added later needs a default: what every test did before there was the field.
    annotation: str = "mask"
    scales: tuple[int, ...] = ()
    truth: str = "original"
    manifest: str = ""

    @property
    def id(self) -> str:
        """Six hexadecimal digits of all but the name; the same for the same protocol, on any machine.

        A field with a default counts only where it differs from it, so that ids once published stay.
        """
        deciding: list[object] = []
        for field in dataclasses.fields(self)[1:]:
            value = getattr(self, field.name)
            if field.default is dataclasses.MISSING:
                deciding.append(value)
            elif value != field.default:
                deciding.append((field.name, value))
        return hashlib.sha256(repr(tuple(deciding)).encode()).hexdigest()[:6]

    def __str__(self) -> str:
        count = len(self.classes)
        drawn = f"manifest {self.manifest}" if self.manifest else f"seed {self.seed}, drawn by {self.draw}"
        sides = " and ".join(str(side) for side in (self.size, *self.scales))
        annotated = "" if self.annotation == "mask" else f", supports annotated by {self.annotation}"
        return (
            f"{self.name}: {self.data}, {count} class{'es' * (count > 1)}, {self.shot}-shot, {self.episodes} episodes, "
            f"{drawn}, seen at {sides} px{annotated}, scored at {self.truth} size [{self.id}]"
        )
