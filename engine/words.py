"""Numbers, times and sizes as people read them."""


def counted(number: int, what: str) -> str:
    """ "1 volume", "2 volumes"."""
    return f"{number} {what}{'s' * (number != 1)}"


def duration(seconds: float) -> str:
    """Two figures at most: 0.27 s, 41 s, 12 min, 3 h 20 min, 4 d 6 h."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 9.5 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours, days = minutes // 60, minutes // 1440
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if not days else f"{days} d {hours % 24} h"


def size(count: float) -> str:
    """Of so many bytes, three figures: 618 MB."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            break
        count, unit = count / 1000, "TB"
    return f"{count:.3g} {unit}"
