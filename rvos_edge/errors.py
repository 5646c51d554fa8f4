"""The exception for errors that the user can correct."""

from rvos_edge.secrets import hide_secrets


class UserError(ValueError):
    """Bad input, or a machine that lacks something: for the user to mend.

    The message is one sentence that names the file or option and the remedy; secrets in URLs are hidden in it. The
    command line prints it and exits with 2.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(hide_secrets(message))


def one_line(text: object) -> str:
    """Shorten a message of another library to one line of 300 characters, without a full stop at its end."""
    return " ".join(str(text).split())[:300].rstrip(".")
