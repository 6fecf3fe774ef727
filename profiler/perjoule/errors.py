"""Errors a user meets: one line that names what went wrong, one hint, one exit code."""

from __future__ import annotations

EXIT_DONE = 0
EXIT_WORSE = 1
EXIT_USAGE = 2
EXIT_UNDECIDED = 3
EXIT_ENGINE = 4
EXIT_NOT_PUBLISHABLE = 5
EXIT_INTERRUPTED = 130


class PerjouleError(Exception):
    """Base of every error that is shown without a traceback.

    ``hint`` says what to do next; ``exit_code`` is what the command line returns.
    """

    exit_code = EXIT_USAGE

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(PerjouleError):
    """An option or argument that cannot be used as given."""


class InputError(PerjouleError):
    """A file or checkpoint whose content is wrong, unknown or hostile."""


class HostError(PerjouleError):
    """The machine said no: disk full, permission, network, missing package."""


class NotComparableError(PerjouleError):
    """A comparison or claim that must not be decided on what is there."""

    exit_code = EXIT_UNDECIDED


class EngineError(PerjouleError):
    """The measured process crashed, hung, or ran out of memory."""

    exit_code = EXIT_ENGINE


class NotPublishableError(PerjouleError):
    """A result that must not be published as it is."""

    exit_code = EXIT_NOT_PUBLISHABLE


class InterruptedRunError(PerjouleError):
    """Ctrl-C or SIGTERM: what was finished has been saved."""

    exit_code = EXIT_INTERRUPTED
