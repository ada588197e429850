"""What the runs of `dpcn fit` and `dpcn test` say of themselves: the value of a setting, and which results compare."""

import dataclasses
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from paper.plots import Line, Point, Value

from dpcn_modules.models import settings_of

SECTIONS = ("model", "data", "data.source.init_args", "trainer")
# What a protocol says under the name of the setting.
OF_TEST = ("shot", "size", "sampling", "annotation", "scales", "target")
OF_FOLD = ("id", "name", "data", "classes", "manifest")  # what differs between the protocols of two folds


def read_config(path: Path) -> dict[str, Any]:
    """Read the config.yaml of a run; another file is a ValueError."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: expected the config.yaml of a run, got a file that is no YAML ({error}).") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path}: expected the config.yaml of a run, got {type(config).__name__}.")
    return config


def setting(config: Mapping[str, Any], name: str) -> Any:
    """The value of a setting in the config of a run, None where it is not there or not set.

    The name has its section (``"model.reverse_weight"``), or is looked for among the settings of the task, the data
    module, the data set and the trainer; a ValueError says where two of them have it.
    """
    found = {}
    for place in (name, *(f"{section}.{name}" for section in SECTIONS if "." not in name)):
        value: Any = config
        for key in place.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None and not (place == name and isinstance(value, Mapping)):
            found[place] = value
    if len(found) > 1:
        raise ValueError(f"expected the name of one setting, got {name!r}; give one of {', '.join(found)}.")
    return next(iter(found.values()), None)


def find_setting(name: str, file: Path, result: Mapping[str, Any]) -> tuple[Value, str]:
    """The value that a setting had in a test, and the file that says so; a ValueError where none does.

    What the test looked at (the network's settings, shots, scales, ...) is in test.json, the ``file`` that holds the
    ``result``. Any other setting is one of learning: it is read from the config.yaml of the training, in the folder
    above the checkpoint's, or, where that is gone, from the one beside test.json.
    """
    short = re.sub(r"^(model\.overrides|model|data)\.(?=\w+$)", "", name)
    protocol = result["runs"][0]["protocol"]
    tested = {**(result["settings"] or {}), **{key: protocol.get(key) for key in OF_TEST}, "fusion": result["fusion"]}
    if tested.get(short) is not None:
        return plain(tested[short]), str(file)
    places = [folder / "config.yaml" for folder in (Path(result["checkpoint"]["file"]).parent.parent, file.parent)]
    for place in places:
        value = setting(read_config(place), name) if place.is_file() else None
        if value is not None:
            return plain(value), str(place)
    looked = " nor in ".join(f"{place}{'' if place.is_file() else ' (not there)'}" for place in places)
    raise ValueError(
        f"``--x``: expected a setting of the network or of the run, got {name!r}, which is neither in {file} nor in "
        f"{looked}; keep each config.yaml beside its run, or name another setting."
    )


def plain(value: Any) -> Value:
    """A number or text as it is, anything else as text."""
    return value if isinstance(value, int | float | str) and not isinstance(value, bool) else str(value)


def sweep_lines(results: Sequence[Mapping[str, Any]], values: Sequence[Value], name: str) -> list[Line]:
    """One line for the results that differ in the named setting alone, each of which has a value of it.

    Lines are labelled by network, shots, data and what else differs among the protocols; folds of the same thing are
    a group.
    """
    name = name.rsplit(".", 1)[-1]
    protocols = [result["runs"][0]["protocol"] for result in results]
    keys = [key for key in protocols[0] if key not in (*OF_FOLD, "shot", name)]
    differing = [key for key in keys if len({str(each.get(key)) for each in protocols}) > 1]
    lines: dict[str, Line] = {}
    for result, protocol, x in zip(results, protocols, values, strict=True):
        words = [described(result["network"], result["settings"], but=name)]
        words += [result["fusion"]] if result["fusion"] != "concat" else []
        words += [f"{protocol['shot']}-shot"] if name != "shot" else []
        group = ", ".join([*words, *(f"{key} {protocol.get(key)}" for key in differing)])
        scores = [run["miou"] for run in result["runs"]]
        seeds = [run["protocol"]["seed"] for run in result["runs"]]
        same = json.dumps([group, protocol["data"], protocol["classes"], protocol.get("manifest"), seeds])
        data = protocol["data"].split(" (")[0].split(",")[0]
        line = lines.setdefault(same, Line(f"{group}, {data}", [], group))
        line.points.append(Point(x, result["miou"], statistics.stdev(scores) if len(scores) > 1 else 0.0))
    return list(lines.values())


def described(network: str, settings: Mapping[str, Any] | None, *, but: str = "") -> str:
    """A network's name, and which of its defaults the settings override; None: of a network built by hand."""
    if settings is None:
        return network
    defaults = dataclasses.asdict(settings_of(network))
    # JSON has lists where settings have tuples.
    changed = {key: value for key, value in settings.items() if json.dumps(value) != json.dumps(defaults.get(key))}
    overrides = ", ".join(f"{key} {value}" for key, value in changed.items() if key != but)
    return f"{network} ({overrides})" if overrides else network
