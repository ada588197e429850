"""The command `dpcn`."""

import argparse
import sys
import warnings

from dpcn_modules import __version__
from dpcn_modules._checks import require
from dpcn_modules.errors import DPCNError

UNEXPECTED = """
dpcn: this is not an error that dpcn expects. If the line above does not name something on your side (a full disk, a
missing permission, a setting of Lightning), please report it with all of these lines, the command and `dpcn info`."""


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand with the arguments after ``dpcn`` (None: the process's), and return its exit status.

    An error of the library's own (:mod:`dpcn_modules.errors`) is one line on stderr and exit status 2; any other one
    passes, with a request to report it.
    """
    argv = sys.argv[1:] if argv is None else argv
    traceback = "--traceback" in argv
    argv = [argument for argument in argv if argument != "--traceback"]
    try:
        return _run(argv)
    except DPCNError as error:
        if traceback:
            raise
        print(f"dpcn: error: {error}\n(--traceback shows where)", file=sys.stderr)
        return 2
    except Exception as error:
        error.add_note(UNEXPECTED)
        raise


def _run(argv: list[str]) -> int:
    # Lightning's command line has a parser of its own, and takes seconds to import.
    if argv and argv[0] in ("fit", "test", "episodes", "features"):
        require("lightning", "torchmetrics", "jsonargparse", extra="train")
        from dpcn_modules.cli import episodes, features, fit

        # Lightning warns that its own arguments could be confused with the process's.
        warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
        if argv[0] in ("episodes", "features"):
            {"episodes": episodes, "features": features}[argv[0]].run(argv[1:])
        else:
            fit.run(argv[0], argv[1:])
        return 0
    from dpcn_modules.cli import info, prepare, segment

    parser = argparse.ArgumentParser(prog="dpcn", description="Few-shot semantic segmentation.")
    parser.add_argument("--version", action="version", version=f"dpcn_modules {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where an error was raised")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="{fit,test,episodes,features,segment,prepare,info}"
    )
    commands.add_parser("fit", help="train a network by a config (dpcn fit --help)")
    commands.add_parser("test", help="score a checkpoint by a config (dpcn test --help)")
    commands.add_parser("episodes", help="write the episodes of a config's test (dpcn episodes --help)")
    commands.add_parser("features", help="write the feature store of a config (dpcn features --help)")
    for name, module, text in (
        ("segment", segment, "segment images with a checkpoint and a few masked images"),
        ("prepare", prepare, "a data set's masks and lists from its raw downloads"),
        ("info", info, "versions, devices, and which backends can run"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    return int(args.run(args) or 0)


if __name__ == "__main__":
    sys.exit(main())
