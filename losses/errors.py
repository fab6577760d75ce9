"""What cannot be clustered."""


class ClusteringError(ValueError):
    """One sentence for the user: what was asked for, what is wrong, what would be right. Ends a script with code 2."""

    exit_code = 2
