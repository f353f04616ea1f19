"""The one exception that a user can act on."""


class UserError(ValueError):
    """Input or usage that the user can correct.

    The message is one line: what is wrong, with both numbers where numbers disagree, and the
    setting or file to change. `cli` prints it to stderr without a traceback and exits with code 2.
    """
