class SentrayError(Exception):
    """A mistake of the user or of the input.

    The message is one sentence that says what is wrong, where (file, row, column) and the cure. The command
    line prints it without a traceback and exits with the status.
    """

    status = 1
