"""`--protocol NAME` of `dpcn fit`, `test` and `episodes`."""

from dpcn_modules._checks import check_choice
from dpcn_modules.evaluation.named import PROTOCOLS


def expand(subcommand: str, arguments: list[str]) -> list[str]:
    """Put the settings of a named protocol in the place of its name; what stands after it overrides it.

    Args:
        subcommand: "fit", "test" or "episodes".
        arguments: those after it.

    Raises:
        ValueError: ``--protocol`` without a name, or an unknown one.
    """
    expanded: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument != "--protocol" and not argument.startswith("--protocol="):
            expanded.append(argument)
            continue
        name = next(rest, "") if argument == "--protocol" else argument.removeprefix("--protocol=")
        check_choice("--protocol", name, PROTOCOLS)
        protocol = PROTOCOLS[name]
        settings = {"protocol_name": name, **protocol.data_settings()}
        expanded += [f"--data.{field}={value}" for field, value in settings.items()]
        if subcommand == "test" and len(protocol.seeds) > 1:
            expanded.append(f"--seeds={list(protocol.seeds)}")
    return expanded
