"""The one exception that is the user's to mend, not ours."""


class UserError(ValueError):
    """Bad input. The message is one sentence that names the file or option and the remedy; the CLI exits with 2."""
