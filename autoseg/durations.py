"""How long something takes, in words."""


def duration(seconds: float) -> str:
    """Seconds as "45 s", "12 min" or "3 h 20 min"; what is shorter than a second counts as one, and only nothing as "0 s"."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{max(1, round(seconds)) if seconds > 0 else 0} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
