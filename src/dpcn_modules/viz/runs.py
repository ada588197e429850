"""What runs say of themselves: the config.yaml and the test.json that `dpcn` writes beside the logs."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dpcn_modules._checks import require
from dpcn_modules.viz.sweep import SweepLine, SweepPoint, Value

_OF_FOLD = ("id", "name", "data", "classes", "manifest")  # what differs between protocols of two folds
_SECTIONS = ("model", "data", "data.source.init_args", "trainer")


def read_config(path: str | Path) -> dict[str, Any]:
    """Read a config.yaml.

    Raises:
        ModuleNotFoundError: PyYAML is missing.
        ValueError: the file is no configuration of a run.
    """
    require("yaml", extra="train")
    import yaml

    try:
        config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: expected the config.yaml of a run, got a file that is no YAML ({error}).") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path}: expected the config.yaml of a run, got {type(config).__name__}.")
    return config


def setting(config: Mapping[str, Any], name: str) -> Any:
    """The value of a setting, None where it is not there or not set.

    Args:
        config: as :func:`read_config` gives it.
        name: with its section (``"model.reverse_weight"``), or without it for the settings of the task, the data
            module, the data set and the trainer.

    Raises:
        ValueError: two sections have a setting of that name.

    Example:
        >>> setting({"model": {"reverse_weight": 0.5}}, "reverse_weight")
        0.5
    """
    value = _at(config, name)
    if "." in name or (value is not None and not isinstance(value, Mapping)):
        return value
    found = {f"{section}.{name}": _at(config, f"{section}.{name}") for section in _SECTIONS}
    found = {place: each for place, each in found.items() if each is not None}
    if len(found) > 1:
        raise ValueError(f"expected the name of one setting, got {name!r}; give one of {', '.join(found)}.")
    return next(iter(found.values()), None)


def describe_data(config: Mapping[str, Any], *, otherwise: str) -> str:
    """The data set of a run and its held-out fold, such as "Pascal5i, fold 0"."""
    name, fold = setting(config, "data.source.class_path"), setting(config, "data.source.init_args.fold")
    if name is None:
        return otherwise
    short = str(name).rsplit(".", 1)[-1]
    return short if fold is None else f"{short}, fold {fold}"


def _at(config: Any, place: str) -> Any:
    for key in place.split("."):
        if not isinstance(config, Mapping):
            return None
        config = config.get(key)
    return config


class Result(NamedTuple):
    """A test.json with the value of the swept setting.

    Attributes:
        file: the test.json.
        content: what is in it.
        x: the value.
        where: the file that the value was found in.
    """

    file: Path
    content: Mapping[str, Any]
    x: Value
    where: str


def read_result(
    file: str | Path, name: str, *, prefer: str | None, network: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> Result:
    """Read a test.json, and find the value that a setting had.

    A setting of the network is taken from the recipe in test.json. Any other one is looked up in two files: the
    config.yaml of the training, in the folder above the checkpoint's, and that of the test, beside test.json. Where
    the two differ, the training's counts for what a test does not look at (such as reverse_weight).

    Args:
        file: the test.json.
        name: of the setting, as :func:`setting` takes it.
        prefer: "training" or "test", the config.yaml that counts where the two differ; None: an error otherwise.
        network: from a recipe to all settings of its network.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no test.json, no file has the setting, or the two differ in what decides both.
    """
    file = Path(file)
    content = _read_test(file)
    inside = network(content["recipe"]).get(name)
    if inside is not None:
        return Result(file, content, _value(inside), f"recipe in {file}")
    places = {
        "training": Path(content["checkpoint"]["file"]).parent.parent / "config.yaml",
        "test": file.parent / "config.yaml",
    }
    configs = {kind: read_config(place) for kind, place in places.items() if place.is_file()}
    found = {kind: setting(config, name) for kind, config in configs.items()}
    found = {kind: value for kind, value in found.items() if value is not None}
    # A test does not look at the settings of learning; its recipe may say anything there.
    learning = name.removeprefix("model.") != "fusion" and any(
        setting(config, f"model.{name.removeprefix('model.')}") is not None for config in configs.values()
    )
    prefer = prefer or ("training" if learning else None)
    if not found:
        looked = ", ".join(f"{place}{'' if place.is_file() else ' (not there)'}" for place in places.values())
        raise ValueError(
            f"``--x``: expected a setting of the network or of the run, got {name!r}, which is neither in the recipe "
            f"of {file} nor in {looked}; keep each config.yaml beside its run, or name another setting."
        )
    if len(found) == 2 and found["training"] != found["test"] and prefer is None:
        raise ValueError(
            f"``--x``: {name} is {found['training']} in {places['training']} and {found['test']} in {places['test']}; "
            f"say with --x-from training or --x-from test which one is meant."
        )
    kind = prefer if prefer in found else next(iter(found))
    return Result(file, content, _value(found[kind]), str(places[kind]))


def sweep_lines(results: Sequence[Result], name: str) -> list[SweepLine]:
    """One line for the results that differ in the setting alone; folds of the same thing are a group.

    Args:
        results: as :func:`read_result` gives them.
        name: of the setting.

    Returns:
        The lines, labelled by network, shots, data, and what else differs among the protocols.
    """
    name = name.rsplit(".", 1)[-1]
    first = [result.content["runs"][0]["protocol"] for result in results]
    keys = [key for key in dict.fromkeys(key for each in first for key in each) if key not in (*_OF_FOLD, name)]
    differing = [key for key in keys if len({str(each.get(key)) for each in first}) > 1 and key != "shot"]
    lines: dict[str, tuple[str, str, list[SweepPoint]]] = {}
    for result, protocol in zip(results, first, strict=True):
        content = result.content
        recipe = {key: value for key, value in content["recipe"].items() if key != name}
        changes = ", ".join(f"{key} {value}" for key, value in recipe.items() if key != "name")
        words = [f"{recipe.get('name', 'network')}{f' ({changes})' if changes else ''}"]
        words += [content["fusion"]] if content["fusion"] != "concat" else []
        words += [f"{protocol['shot']}-shot"] if name != "shot" else []
        group = ", ".join([*words, *(f"{key} {protocol.get(key)}" for key in differing)])
        scores = [run["miou"] for run in content["runs"]]
        point = SweepPoint(result.x, content["miou"], statistics.stdev(scores) if len(scores) > 1 else 0.0)
        data = protocol["data"].split(" (")[0].split(",")[0]
        seeds = [run["protocol"]["seed"] for run in content["runs"]]
        same = json.dumps([group, protocol["data"], protocol["classes"], protocol.get("manifest"), seeds])
        lines.setdefault(same, (f"{group}, {data}", group, []))[2].append(point)
    return [SweepLine(label, points, group) for label, group, points in lines.values()]


def _read_test(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(f"``--results``: no file {file}; `dpcn test` writes a test.json beside its logs.")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        missing = {"runs", "miou", "recipe", "checkpoint", "fusion", "versions"} - content.keys()
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{file}: expected a test.json that `dpcn test` wrote, got another file ({error}).") from error
    if missing:
        lacking = ", ".join(sorted(missing))
        raise ValueError(f"{file}: expected a test.json that `dpcn test` wrote, got a file without {lacking}.")
    return dict(content)


def _value(value: Any) -> Value:
    plain = isinstance(value, int | float | str) and not isinstance(value, bool)
    return value if plain else str(value)
