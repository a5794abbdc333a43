"""Warnings about conditions that no stored value can meet: how many are given."""

from server.store.filters.kinds import MOST_WARNINGS, Operand, warnings


def test_the_first_ten_conditions_without_a_match_are_named() -> None:
    asked = [Operand(f"k{n}", frozenset(["number"])) for n in range(12)]
    rows = [(each.key, False, True, False, False) for each in asked]
    said = warnings(asked, rows)
    assert len(said) == MOST_WARNINGS == 10
    assert said[0].startswith("no value of 'k0' can match: the filter compares it with a number,")
    assert said[-1].startswith("no value of 'k9' ")
