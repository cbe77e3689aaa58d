"""Numbers of things in words, wherever they are said. Cost: none."""


def counted(number: int, what: str) -> str:
    """How many there are of something: "1 example", "1,200 examples".

    Args:
        number: How many.
        what: The word for one.

    Example:
        >>> counted(1, "example"), counted(1200, "example")
        ('1 example', '1,200 examples')
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}"
