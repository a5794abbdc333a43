"""Reads values of config.json that families share, and refuses what none can write."""

from collections.abc import Callable

from export.errors import CorruptFile, ShapeMismatch, UnsupportedModel
from export.source.json_file import Json, is_number, shown, size

# No network is near this. It refuses a damaged number before memory runs out.
MOST_LAYERS = 1_000
# Kinds of layers in layer_types, by what a token attends to.
GLOBAL, LOCAL = "full_attention", "sliding_attention"
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


def n_layers(config: Json, key: str = "num_hidden_layers") -> int:
    return size(config, key, most=MOST_LAYERS)


def layer_kinds(config: Json, layers: int, is_local: Callable[[int], bool]) -> list[str]:
    """Return what each layer attends to, GLOBAL or LOCAL.

    is_local: says it of a layer where config.json does not list it.
    """
    listed = config.get("layer_types")
    if listed is None:
        return [LOCAL if is_local(index) else GLOBAL for index in range(layers)]
    known = isinstance(listed, list) and all(kind in (GLOBAL, LOCAL) for kind in listed)
    if not known or len(listed) != layers:
        raise CorruptFile(
            "config.json: layer_types is {shown}, not a list of {layers} times full_attention or "
            "sliding_attention",
            shown=shown(listed),
            layers=layers,
        )
    return list(map(str, listed))


def check_heads(key: str, hidden: int, heads: int, *, rotary: bool = False) -> None:
    """Refuse heads that do not divide the width, or whose channels do not make pairs.

    key: what config.json calls the width.
    """
    if hidden % heads:
        raise ShapeMismatch(
            "{key} {hidden} cannot be split into {heads} heads", key=key, hidden=hidden, heads=heads
        )
    if rotary and hidden // heads % 2:
        raise ShapeMismatch(
            "{key} {hidden} gives each of {heads} heads {width} channels; rotary positions need an even "
            "number",
            key=key,
            hidden=hidden,
            heads=heads,
            width=hidden // heads,
        )
