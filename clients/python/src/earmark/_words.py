_PLURALS = {"calls", "characters", "images", "messages", "minutes", "pages", "requests", "seconds", "tokens"}


def format_amounts(amounts: dict[str, int]) -> str:
    """Amounts for people, such as "1 request + 1,200 tokens"."""
    return " + ".join(_format_quantity(amounts[unit], unit) for unit in sorted(amounts))


def _format_quantity(n: int, unit: str) -> str:
    singular = unit[:-1] if n == 1 and unit.rsplit("_", 1)[-1] in _PLURALS else unit
    return f"{n:,} {singular}"
