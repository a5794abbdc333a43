"""Service times are fitted to measured shapes, and full batches are those of the server's queue."""

import numpy as np
import pytest

from benchmarks.capacity.service import ServiceTime, fitted, lengths_of, saturated

TRUE = ServiceTime(0.001, 6e-5, 3e-8)


def test_fit_finds_the_numbers_that_made_the_times() -> None:
    shapes = [(18,), (16,) * 16, (64,) * 4, (128,), (512,)]
    found = fitted({shape: TRUE.of(shape) for shape in shapes})
    assert found.batch_s == pytest.approx(TRUE.batch_s)
    assert found.token_s == pytest.approx(TRUE.token_s)
    assert found.pair_s == pytest.approx(TRUE.pair_s)


def test_no_fitted_number_is_below_zero() -> None:
    # Long texts that are faster a token than short ones would give attention a negative time.
    found = fitted({(10,): 0.01, (100,): 0.05, (500,): 0.2})
    assert min(found.batch_s, found.token_s, found.pair_s) == 0.0
    with pytest.raises(ValueError, match="2 shapes were measured, 3 are needed"):
        fitted({(1,): 1.0, (2,): 1.0})


def test_lengths_have_the_mean_that_is_asked_for_and_are_the_same_each_time() -> None:
    assert lengths_of("queries", 18).mean() == pytest.approx(18, abs=0.1)
    assert lengths_of("queries").max() <= 62
    assert lengths_of("laws", 2000).max() == 512
    assert (lengths_of("laws") == lengths_of("laws")).all()


def test_full_batches_have_the_budget_of_the_server_and_long_texts_none_but_their_own() -> None:
    short = saturated(TRUE, np.full(500, 16))
    assert short.texts == 16 and short.batch_s == pytest.approx(TRUE.of([16] * 16))
    assert short.variation == pytest.approx(0, abs=1e-12)
    long = saturated(TRUE, np.full(500, 300))
    assert long.texts == 1
