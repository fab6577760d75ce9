"""What a user's weights can do wrong."""


class WeightsError(ValueError):
    """One sentence for the user: which file, what is wrong, what would be right. Ends a script with code 2."""

    exit_code = 2
