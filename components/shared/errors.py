"""Errors that are the user's to mend."""


class UserError(Exception):
    """A problem outside the code, told in one message.

    The message says what was given, what is allowed and what to do. Steps and the
    command line show it without a traceback and exit with a non-zero status.
    """


class OutageError(UserError):
    """A service that did not answer: later the same may work, with nothing mended."""
