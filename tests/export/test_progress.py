"""The progress of an export in a log."""

import io

from export.pipeline import LINE_EVERY_S, _Progress
from server.messages.terminal import Terminal


def test_log_gets_a_line_every_few_seconds() -> None:
    err, moment = io.StringIO(), 0.0
    with _Progress(6, Terminal("en", io.StringIO(), err), lambda: moment) as progress:
        for step in ("layer 0", "layer 1", "layer 2", "layer 3"):
            moment += LINE_EVERY_S / 2
            progress(step)
    assert err.getvalue().splitlines() == [
        "exporting: step 2 of 6, layer 1",
        "exporting: step 4 of 6, layer 3",
    ]
