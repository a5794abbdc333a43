"""The choice between the wide and the narrow encoder for lone batches."""

from server.width import PROBE_EVERY, Width


def choices(width: Width, count: int, *, wide_s: float, narrow_s: float) -> int:
    """How many of `count` lone batches run wide when each kind takes the given time."""
    chosen = 0
    for _ in range(count):
        wide = width.choose()
        width.observe(wide=wide, tokens=100, seconds=wide_s if wide else narrow_s)
        chosen += wide
    return chosen


def test_the_faster_encoder_serves_and_the_other_is_only_probed() -> None:
    batches = 10 * PROBE_EVERY
    # The first two batches find out, then one in PROBE_EVERY goes to the slower one.
    assert choices(Width(), batches, wide_s=0.5, narrow_s=1.0) == batches - 11
    assert choices(Width(), batches, wide_s=2.0, narrow_s=1.0) == 11


def test_the_choice_follows_a_neighbour_that_comes_and_goes() -> None:
    width = Width()
    choices(width, 100, wide_s=0.5, narrow_s=1.0)
    choices(width, 400, wide_s=2.0, narrow_s=1.0)
    assert choices(width, 160, wide_s=2.0, narrow_s=1.0) == 10
    choices(width, 2000, wide_s=0.5, narrow_s=1.0)
    assert choices(width, 160, wide_s=0.5, narrow_s=1.0) == 150


def test_rates_count_tokens_not_batches() -> None:
    width = Width()
    for _ in range(5):
        width.observe(wide=True, tokens=500, seconds=1.0)
        width.observe(wide=False, tokens=10, seconds=0.1)
    assert sum(width.choose() for _ in range(PROBE_EVERY)) == PROBE_EVERY - 1
