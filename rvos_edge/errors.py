"""The exception for errors that the user can correct."""


class UserError(ValueError):
    """Bad input. The message is one sentence that names the file or option and the remedy; the CLI exits with 2."""
