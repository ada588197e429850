"""Draw the results of dynamic_conv.py and region_matching.py as images.

    python benchmarks/plots.py                                      # results/ to docs/images/
    python benchmarks/plots.py --results runs/bench --out runs/bench

Missing results are listed as skipped. region_matching is drawn from the file of `--sweep`, if there is one.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from _harness import HERE, Row

from dpcn_modules.viz.figure import line_style, new_figure, save_figure

WORKS = ("forward", "forward+backward")
FLOOR = "floor"
AXES = {
    "size": "side of the feature, positions",
    "batch": "batch, samples",
    "kernels": "side of the kernel, positions",
    "channels": "channels",
}


def draw_lines(axes: Any, rows: Sequence[Row], x: Callable[[Row], float], y: Callable[[Row], float]) -> None:
    """A line for each contender, the floor in black."""
    for number, name in enumerate(dict.fromkeys(row["contender"] for row in rows)):
        points = sorted((row for row in rows if row["contender"] == name), key=x)
        style = {"color": "black", "linestyle": ":"} if name == FLOOR else line_style(number)
        axes.plot([x(row) for row in points], [y(row) for row in points], marker=".", label=name, **style)
    places = sorted({x(row) for row in rows})
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3)


def finish(figure: Any, axes: Any, result: Row, title: str, out: Path) -> None:
    """Title, one legend for all, and the file."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), fontsize="small")
    hardware = result["hardware"]
    machine = hardware["gpu"] or f"{hardware['cpu']}, threads: {hardware['threads']}"
    figure.set_dpi(100)  # a small file
    figure.suptitle(f"{title}, {result['settings']['dtype']}, {machine}, {result['versions']['commit']}", fontsize=9)
    save_figure(figure, out)
    print(f"written: {out}")


def dynamic_conv(result: Row, out: Path) -> None:
    """Time against feature size, batch, kernel size and channels, each with the others at the first of the run."""
    settings = result["settings"]
    base = {
        name: settings[option][0] for name, option in zip(AXES, ("sizes", "batch", "kernels", "channels"), strict=True)
    }
    rows = [row for row in result["rows"] if row["contender"] != "copy"]
    floors = [{**row, "contender": FLOOR, "median": row["median"] / row["times_floor"]} for row in rows]
    figure = new_figure(12, 6)
    panels = figure.subplots(2, len(AXES), sharey="row")
    for work, line in zip(WORKS, panels, strict=True):
        for (name, label), axes in zip(AXES.items(), line, strict=True):
            fixed = {other: value for other, value in base.items() if other != name}
            if name == "kernels":
                fixed.pop("kernels", None)
            shown = [
                row
                for row in [*rows, *floors]
                if row["work"] == work
                and all(row[other] == value for other, value in fixed.items())
                and not (name == "kernels" and row["kernels"] == "dpcn")
            ]
            if not shown:
                axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center")
                continue
            draw_lines(axes, shown, lambda row, name=name: float(row[name]), lambda row: 1e3 * row["median"])
            axes.set_xlabel(label)
            axes.set_title(work + "".join(f", {n} {v}" for n, v in fixed.items()), fontsize=6)
        line[0].set_ylabel("median time, ms")
    finish(figure, panels[0][0], result, "Dynamic convolution", out)


def region_matching(result: Row, out: Path) -> None:
    """Time and memory against HW, forward and with backward, for the shots that were measured."""
    shots = sorted({row["shots"] for row in result["rows"]})
    columns = [(work, shot) for work in WORKS for shot in shots]
    figure = new_figure(3.2 * len(columns), 6)
    panels = figure.subplots(2, len(columns), sharey="row", squeeze=False)
    for column, (work, shot) in enumerate(columns):
        rows = [row for row in result["rows"] if (row["work"], row["shots"]) == (work, shot)]
        known = [row for row in rows if row["peak_bytes"]]
        draw_lines(panels[0][column], rows, lambda row: row["size"] ** 2, lambda row: row["median"])
        draw_lines(panels[1][column], known, lambda row: row["size"] ** 2, lambda row: row["peak_bytes"] / 2**20)
        panels[0][column].set_title(f"{work}, {shot} shot", fontsize=9)
        panels[1][column].set_xlabel("HW, positions")
    panels[0][0].set_ylabel("median time, s")
    panels[1][0].set_ylabel("peak memory, MiB")
    title = f"Region matching, {result['settings']['channels']} channels"
    finish(figure, panels[0][0], result, title, out)


PLOTS = {"dynamic_conv": dynamic_conv, "region_matching": region_matching}


def find_result(folder: Path, name: str, device: str) -> Path | None:
    """The file of a benchmark, the sweep before the single setting."""
    candidates = [folder / f"{name}_sweep_{device}.json", folder / f"{name}_{device}.json"]
    return next((path for path in candidates if path.is_file()), None)


def main() -> None:
    """Draw every result that exists."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the JSON files")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "images", help="folder of the images")
    args = parser.parse_args()
    if not args.results.is_dir():
        parser.error(f"--results: expected a folder with results, got {args.results}; the benchmarks write them")
    for name, draw in PLOTS.items():
        for device in ("cpu", "cuda"):
            path = find_result(args.results, name, device)
            if path is None:
                print(f"skipped: {name} on {device}: no {name}_{device}.json in {args.results}")
                continue
            result = json.loads(path.read_text())
            if "rows" in result:
                draw(result, args.out / f"{name}_{device}.png")
            else:
                print(f"skipped: {name} on {device}: {path.name} has an older format; run the benchmark again")


if __name__ == "__main__":
    main()
