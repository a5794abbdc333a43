"""Quantities are read as people write them, or refused with what is possible."""

import pytest

from benchmarks.capacity.quantity import (
    BYTES,
    RATES,
    TIMES,
    BadQuantity,
    quantity,
    shown_bytes,
    shown_count,
    shown_rate,
    shown_time,
    whole,
)


@pytest.mark.parametrize(
    ("text", "units", "value"),
    [
        ("100ms", TIMES, 0.1),
        ("1.5 h", TIMES, 5400),
        ("0.25s", TIMES, 0.25),
        ("200", RATES, 200),
        ("200/s", RATES, 200),
        ("86.4k/day", RATES, 1),
        ("32GB", BYTES, 32e9),
    ],
)
def test_a_quantity_is_a_number_and_a_unit(
    text: str, units: dict[str, float], value: float
) -> None:
    assert quantity(text, units, 0, 1e12) == pytest.approx(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ms",
        "100",
        "-1ms",
        "1e3",
        "1,000",
        "100 m s",
        "100MS",
        "1..5",
        "٣s",
        "nan",
        "0x10",
        "9" * 40,
    ],
)
def test_anything_else_is_refused_with_the_value_and_the_units(text: str) -> None:
    with pytest.raises(BadQuantity) as refused:
        quantity(text, TIMES, 0, 1e12)
    assert repr(text[:40]) in str(refused.value) and "ms" in str(refused.value)


def test_bounds_and_fractions_of_things_are_refused() -> None:
    with pytest.raises(BadQuantity, match="'2h' is outside 0 to 3600"):
        quantity("2h", TIMES, 0, 3600)
    assert whole("1.5k") == 1500
    with pytest.raises(BadQuantity, match=r"'1\.5' is not a whole number"):
        whole("1.5")
    with pytest.raises(BadQuantity, match="outside 1"):
        whole("0")


def test_quantities_are_shown_in_units_that_suit_them() -> None:
    assert shown_count(50e6) == "50 million" and shown_count(1200) == "1,200"
    assert shown_count(1e12) == "1 trillion" and shown_bytes(6e6) == "6.0 MB"
    assert shown_rate(1e7) == "10,000,000" and shown_rate(0.25) == "0.25"
    assert shown_time(0.1) == "100.0 ms" and shown_time(7200) == "2.0 hours"
    assert shown_bytes(3.07e11) == "307.0 GB" and shown_bytes(3.3e12) == "3.3 TB"
