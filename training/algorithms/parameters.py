"""Checks of parameters: what is wrong with them is said before the fitting, not after an hour of it."""

import math


def whole(least: int = 1, **values: object) -> None:
    """Refuse what is not a whole number from `least` on.

    Raises:
        ValueError: names the parameter.
    """
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be a whole number from {least} on, not {value!r}")


def positive(**values: object) -> None:
    """Refuse what is not a number above 0.

    Raises:
        ValueError: names the parameter.
    """
    for name, value in values.items():
        if not _is_number(value) or value <= 0:  # type: ignore[operator]
            raise ValueError(f"{name} must be a number above 0, not {value!r}")


def not_negative(**values: object) -> None:
    """Refuse what is not a number from 0 on.

    Raises:
        ValueError: names the parameter.
    """
    for name, value in values.items():
        if not _is_number(value) or value < 0:  # type: ignore[operator]
            raise ValueError(f"{name} must be a number from 0 on, not {value!r}")


def one_of(known: tuple[str, ...], **values: object) -> None:
    """Refuse what is none of the known words.

    Raises:
        ValueError: names the parameter and the words.
    """
    for name, value in values.items():
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
