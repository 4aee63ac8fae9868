class SentrayError(Exception):
    """A mistake of the user or of the input.

    The message is one sentence that says what is wrong, where (file, row, column) and the cure. The command
    line prints it without a traceback and exits with the status.
    """

    status = 1


class SentrayWarning(UserWarning):
    """What a user should know and what stops nothing; the command line prints it as one line."""


def first_line(error: BaseException) -> str:
    """What an error says, in one line without its final stop."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
