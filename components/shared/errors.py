"""Errors that users can fix."""


class UserError(Exception):
    """A problem outside the code, explained in one message.

    The message says what was given, what is allowed and what to do. Steps and the
    command line show it without a traceback and exit with a non-zero status.
    """


class OutageError(UserError):
    """A service that did not answer: the same may work later, with nothing changed."""
