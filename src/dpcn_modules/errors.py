"""The errors of the library: what a caller can correct, in a message with the rule, the value and the remedy.

Each is also Python's own class for its kind, so ``except ValueError`` catches an `InputError`. The command `dpcn`
prints them in one line; any other error is a fault of the library or of the system, and shows its traceback.
"""

__all__ = [
    "DPCNError",
    "DownloadError",
    "InputError",
    "InputFileError",
    "InputTypeError",
    "MissingPackageError",
    "NonFiniteLossError",
    "WriteError",
]


class DPCNError(Exception):
    """The base class of all errors that the library raises on purpose."""


class InputError(DPCNError, ValueError):
    """A wrong value or shape."""


class InputTypeError(DPCNError, TypeError):
    """A value of another type."""


class InputFileError(DPCNError, FileNotFoundError):
    """A file or folder that is not there."""


class WriteError(DPCNError, OSError):
    """A place where nothing can be written."""


class DownloadError(DPCNError, ConnectionError):
    """A file that cannot be downloaded."""


class MissingPackageError(DPCNError, ModuleNotFoundError):
    """A package of an extra that is not installed."""


class NonFiniteLossError(DPCNError, FloatingPointError):
    """A training whose loss is no longer a finite number."""
