"""What a user's data can do wrong."""


class DataError(ValueError):
    """One sentence for the user: which file or folder, what is wrong, what would be right. Ends a script with code 2."""

    exit_code = 2
