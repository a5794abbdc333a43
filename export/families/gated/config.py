"""Reads values of config.json that families with gated encoders share, and refuses what none can write."""

from export.errors import CorruptFile, UnsupportedModel
from export.source.json_file import Json, is_number, shown

# A base of rotary frequencies; published ones reach 1,000,000.
MOST_THETA = 1e12


def number(config: Json, key: str, default: float | None, least: float, most: float) -> float:
    """Return a number of config.json; a key that is missing or null has the default."""
    value = config.get(key)
    if value is None:
        value = default
    # Written so that NaN, which Python reads from JSON, is refused.
    if not is_number(value) or not least <= value <= most:
        raise CorruptFile(
            "config.json: {key} is {shown}, not a number from {least} to {most}",
            key=key,
            shown=shown(value),
            least=least,
            most=most,
        )
    return float(value)


def epsilon(config: Json, key: str, default: float) -> float:
    return number(config, key, default, 0.0, 0.1)


def theta(config: Json, key: str, default: float | None) -> float:
    return number(config, key, default, 1.0, MOST_THETA)


def require(config: Json, **values: object) -> None:
    """Refuse a key of config.json that has another value than this one; a missing one is right.

    null and false mean the same.
    """
    for key, value in values.items():
        found = config.get(key, value)
        if found != value and not (not found and not value):
            raise UnsupportedModel(
                "config.json: {key} {shown} is not written directly, only {expected}; try --via optimum",
                key=key,
                shown=shown(found),
                expected=shown(value),
            )
