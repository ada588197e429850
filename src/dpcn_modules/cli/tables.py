"""Tables for the terminal."""

from collections.abc import Mapping, Sequence

from dpcn_modules.training import Score


def score_table(score: Score, class_names: Mapping[int, str]) -> str:
    """A score in percent: one row a class, then the means."""
    rows = [(name, _percent(score.class_iou.get(class_id))) for class_id, name in class_names.items()]
    rows += [("mIoU", _percent(score.miou)), ("FB-IoU", _percent(score.fb_iou))]
    return table(("class", "IoU %"), rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in [head, ["-" * width for width in widths], *rows]
    ]
    return "\n".join(lines)


def _percent(value: object) -> str:
    return "no pixels" if value is None else f"{100 * float(value):.1f}"  # type: ignore[arg-type]
