"""The exception for errors that the user can correct."""

from collections.abc import Iterator
from contextlib import contextmanager

from rvos_edge.secrets import hide_secrets


class UserError(ValueError):
    """Bad input, or a machine that lacks something: for the user to mend.

    The message is one sentence that names the file or option and the remedy; secrets in URLs are hidden in it. The
    command line prints it and exits with 2.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(hide_secrets(message))


@contextmanager
def about(name: str) -> Iterator[None]:
    """Begin the messages of ``UserError`` with the option or key that they are about.

    Example:
        >>> with about("init_from"):
        ...     raise UserError("runs/x does not exist.")
        Traceback (most recent call last):
        rvos_edge.errors.UserError: init_from: runs/x does not exist.
    """
    try:
        yield
    except UserError as error:
        raise UserError(f"{name}: {error}") from error


def one_line(text: object) -> str:
    """Shorten a message of another library to one line of 300 characters, without a full stop at its end."""
    return " ".join(str(text).split())[:300].rstrip(".")
