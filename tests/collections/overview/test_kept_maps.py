"""The maps that were drawn last."""

from server.collections.overview.chunk_map import Map
from server.collections.overview.kept_maps import MOST, KeptMaps
from server.store.filters.tree import parse


def test_a_map_is_kept_for_what_it_shows() -> None:
    maps, one, other = KeptMaps(), Map([], 1, (1.0, 0.0), None), Map([], 2, (1.0, 0.0), None)
    maps.put("a", 10, parse({"n": 1}), one)
    maps.put("a", 10, parse({"n": True}), other)
    assert maps.get("a", 10, parse({"n": 1})) is one
    assert maps.get("a", 10, parse({"n": True})) is other
    assert maps.get("a", 11, parse({"n": 1})) is maps.get("b", 10, None) is None


def test_few_maps_are_kept_and_none_of_what_has_no_revision() -> None:
    maps, one = KeptMaps(), Map([], 1, (1.0, 0.0), None)
    for number in range(MOST + 1):
        maps.put(str(number), 10, None, one)
    assert maps.get("0", 10, None) is None and maps.get(str(MOST), 10, None) is one
    maps.put(None, 10, None, one)
    assert maps.get(None, 10, None) is None
