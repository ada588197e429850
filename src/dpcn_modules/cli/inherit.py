"""Recipes that begin with another one: `base: other.yaml`, merged before Lightning's command line reads them."""

import functools
import inspect
import pkgutil
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from dpcn_modules._checks import check_choice

OWN_KEYS = ("base", "paper")
_RUN_KEYS = ("seed_everything", "seeds", "ckpt_path", "weights_only", "verbose", "output", "config")
_SETTING = re.compile(r"--(?P<section>\w+)\.(?P<name>\w+).*", re.DOTALL)
_CONFIG = re.compile(r"(?:-c|--config)(?:=(?P<path>.*))?", re.DOTALL)


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one recipe over another.

    Mappings are merged, all else is replaced. Where ``class_path`` changes, the ``init_args`` of the other class go.

    Example:
        >>> merge({"data": {"size": 473, "scales": [641]}}, {"data": {"scales": []}})
        {'data': {'size': 473, 'scales': []}}
    """
    merged = dict(under)
    if "class_path" in over and over["class_path"] != under.get("class_path"):
        merged.pop("init_args", None)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(below, value) if both else value  # type: ignore[arg-type]
    return merged


def read_file(path: Path) -> dict[str, Any]:
    """Read a recipe as it is written, without its bases.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no YAML mapping, or has a key that no recipe has.
    """
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: expected YAML: {error}") from error
    if recipe is None:
        return {}
    if not isinstance(recipe, dict):
        raise ValueError(f"{path}: expected a mapping (model: ..., data: ...), got {type(recipe).__name__}.")
    for key, value in recipe.items():
        # "data.size: 65" is a way to write it that Lightning's command line knows too.
        section, *inner = str(key).split(".")
        check_choice(f"{path}: key", section, (*OWN_KEYS, *_sections(), *_RUN_KEYS))
        for name in inner[:1] or (value if isinstance(value, dict) else ()):
            _check_setting(str(path), section, name)
    return recipe


def resolve(path: Path) -> dict[str, Any]:
    """Read a recipe with its bases merged under it, and without the keys that only recipes know.

    ``base`` is a file or a list of files, relative to the recipe that names them; a later one lies over an earlier one,
    and the recipe over all.

    Raises:
        FileNotFoundError: there is no such recipe or base.
        ValueError: bases go round in a circle, or a file is no recipe.
    """
    recipe = _with_bases(path, ())
    _check_classes(path, recipe)
    return recipe


@contextmanager
def resolved(arguments: list[str]) -> Iterator[list[str]]:
    """Put a merged temporary file in the place of each ``--config`` that has bases; all else stays.

    Args:
        arguments: those after ``dpcn fit``, ``test`` or ``episodes``.

    Raises:
        FileNotFoundError, ValueError: as `resolve`; a misspelt ``--data.NAME``, whose nearest is named.
    """
    for argument in arguments:
        if match := _SETTING.fullmatch(argument):
            _check_setting("command line", match["section"], match["name"])
    with tempfile.TemporaryDirectory(prefix="dpcn_") as folder:
        handed_on: list[str] = []
        awaited = False
        for number, argument in enumerate(arguments):
            match = _CONFIG.fullmatch(argument)
            if awaited:
                handed_on.append(_plain(argument, Path(folder, str(number))))
            elif match and match["path"] is not None:
                handed_on.append(f"--config={_plain(match['path'], Path(folder, str(number)))}")
            else:
                handed_on.append(argument)
            awaited = not awaited and match is not None and match["path"] is None
        yield handed_on


def _plain(config: str, folder: Path) -> str:
    """A recipe that Lightning's command line can read; what is no file here is its to judge."""
    path = Path(config)
    if len(config) > 1000 or "\n" in config or not path.is_file():
        return config
    recipe = resolve(path)
    if not set(OWN_KEYS) & set(read_file(path)):
        return config
    folder.mkdir()
    merged = folder / path.name  # errors name the file
    merged.write_text(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return str(merged)


def _with_bases(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    here = path.resolve()
    if here in above:
        circle = " -> ".join(str(each) for each in (*above[above.index(here) :], here))
        raise ValueError(f"``base``: expected no circle, got {circle}; let the first file stand on its own.")
    recipe = read_file(path)
    merged: dict[str, Any] = {}
    for base in _bases(path, recipe):
        merged = merge(merged, _with_bases(base, (*above, here)))
    for key, value in recipe.items():
        if key not in OWN_KEYS:
            for part in reversed(key.split(".")):
                value = {part: value}
            merged = merge(merged, value)
    return merged


def _bases(path: Path, recipe: Mapping[str, Any]) -> list[Path]:
    named = recipe.get("base", [])
    names = [named] if isinstance(named, str) else named
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path}: ``base``: expected a file or a list of files, got {named!r}.")
    bases = [path.parent / name for name in names]
    for base in bases:
        if not base.is_file():
            raise FileNotFoundError(f"{path}: ``base``: there is no file {base}; bases are relative to their recipe.")
    return bases


def _check_setting(where: str, section: str, name: str) -> None:
    known = _fields(_sections()[section]) if section in _sections() else ()
    if known:
        check_choice(f"{where}: key under {section}", name, known)


def _check_classes(path: Path, value: object) -> None:
    """Name the nearest argument of a class where one is misspelt; Lightning's command line only says that it is."""
    if isinstance(value, list):
        for each in value:
            _check_classes(path, each)
    if not isinstance(value, dict):
        return
    for each in value.values():
        _check_classes(path, each)
    if isinstance(value.get("class_path"), str) and isinstance(value.get("init_args"), dict):
        known = _fields_by_path(value["class_path"])
        for name in value["init_args"] if known else ():
            check_choice(f"{path}: argument of {value['class_path']}", name, known)


def _fields_by_path(class_path: str) -> tuple[str, ...]:
    try:
        return _fields(pkgutil.resolve_name(class_path))
    except (ImportError, AttributeError, ValueError):
        return ()  # short names and unknown classes are Lightning's command line's to judge


@functools.cache
def _sections() -> dict[str, type]:
    """What takes each part of a recipe."""
    from lightning import Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint

    from dpcn_modules.cli.recipes import RecipeTask  # which imports this file
    from dpcn_modules.training import EpisodeDataModule

    callbacks = {"best": ModelCheckpoint, "last": ModelCheckpoint}
    return {"model": RecipeTask, "data": EpisodeDataModule, "trainer": Trainer, **callbacks}


@functools.cache
def _fields(target: Any) -> tuple[str, ...]:
    """The names of a class's arguments, with those that it hands up to its bases; empty where any name goes."""
    names: dict[str, None] = {}
    for each in target.__mro__ if inspect.isclass(target) else ():
        if "__init__" not in vars(each) or each is object:
            continue
        parameters = list(inspect.signature(vars(each)["__init__"]).parameters.values())[1:]
        names |= {one.name: None for one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)}
        if not any(one.kind == one.VAR_KEYWORD for one in parameters):
            return tuple(names)
    return ()
