"""What `dpcn` says of errors: one line for those of the library, a traceback and a request for all others."""

import subprocess
import sys

import pytest

from dpcn_modules.cli import info, main
from dpcn_modules.errors import DPCNError, InputError, InputFileError, InputTypeError, NonFiniteLossError


@pytest.mark.parametrize("kind", [InputError, InputTypeError, InputFileError, NonFiniteLossError])
def test_an_error_of_the_library_is_one_line(monkeypatch, capsys, kind):
    def fail(args):
        raise kind("``shot``: expected at least 1, got 0.")

    monkeypatch.setattr(info, "run", fail)
    assert main.main(["info"]) == 2
    assert capsys.readouterr().err == "dpcn: error: ``shot``: expected at least 1, got 0.\n(--traceback shows where)\n"
    with pytest.raises(kind):
        main.main(["info", "--traceback"])


@pytest.mark.parametrize("kind", [ValueError, TypeError, KeyError, OSError, FloatingPointError, ModuleNotFoundError])
def test_any_other_error_passes_with_a_request_to_report_it(monkeypatch, kind):
    def fail(args):
        raise kind("an internal fault")

    monkeypatch.setattr(info, "run", fail)
    with pytest.raises(kind, match="an internal fault") as caught:
        main.main(["info"])
    assert not isinstance(caught.value, DPCNError)
    assert "please report it" in "".join(caught.value.__notes__)


def test_an_unexpected_error_ends_the_command_with_its_traceback():
    code = (
        "import sys\nfrom dpcn_modules.cli import info, main\n"
        "def fail(args): raise TypeError('an internal fault')\n"
        "info.run = fail\nsys.exit(main.main(['info']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "TypeError: an internal fault\n\ndpcn: this is not an error that dpcn expects." in done.stderr
