"""The faster encoder runs a batch that is alone, and sometimes the other one, to compare."""

from collections.abc import Callable

from server.inference.thread_choice import PROBE_EVERY, ThreadChoice

TOKENS = 100


def wide_share(choice: ThreadChoice, batches: int, seconds: Callable[[bool], float]) -> float:
    """Run so many batches alone, each for `seconds(wide)`; return the part that ran wide."""
    wide: list[bool] = []
    for _ in range(batches):
        wide.append(choice.choose())
        choice.observe(wide=wide[-1], tokens=TOKENS, seconds=seconds(wide[-1]))
    return sum(wide) / batches


def test_both_are_tried_before_either_is_believed() -> None:
    choice = ThreadChoice()
    assert choice.choose()
    choice.observe(wide=True, tokens=TOKENS, seconds=0.001)
    assert not choice.choose()


def test_faster_one_serves_and_the_other_is_probed() -> None:
    number = 10 * PROBE_EVERY
    of_wide = wide_share(ThreadChoice(), number, lambda wide: 1 if wide else 2)
    of_narrow = 1 - wide_share(ThreadChoice(), number, lambda wide: 2 if wide else 1)
    for share in (of_wide, of_narrow):
        assert 1 - 2 / PROBE_EVERY <= share <= 1 - 1 / (2 * PROBE_EVERY)


def test_rate_counts_and_not_the_size_of_a_batch() -> None:
    choice = ThreadChoice()
    for _ in range(10):
        choice.observe(wide=True, tokens=1000, seconds=0.5)
        choice.observe(wide=False, tokens=10, seconds=0.01)
    assert choice.choose()


def test_neighbour_that_comes_is_noticed_and_one_that_goes_too() -> None:
    choice = ThreadChoice()
    number = 40 * PROBE_EVERY
    assert wide_share(choice, number, lambda wide: 1 if wide else 2) > 0.8
    wide_share(choice, number, lambda wide: 3 if wide else 2)
    assert wide_share(choice, number, lambda wide: 3 if wide else 2) < 0.2
    wide_share(choice, number, lambda wide: 1 if wide else 2)
    assert wide_share(choice, number, lambda wide: 1 if wide else 2) > 0.8
