"""Which size of chunks is better: reports of the same questions, compared question by question."""

from collections.abc import Iterator, Sequence

import numpy as np

from server.cli.evaluation.comparison import DIGITS, LEAST_QUESTIONS
from server.cli.evaluation.judging import Way
from server.cli.evaluation.metrics import interval
from server.cli.evaluation.report import NAMES, Report, cut
from server.messages.message import Message


def compared(reports: Sequence[Report]) -> Iterator[Message]:
    """Yield how the size with the best nDCG@10 differs from each other one, in the way that is best there."""
    found = [report for report in reports if report.means and report.tokens is not None]
    if len(found) < 2:
        return
    best, way = max(
        ((report, way) for report in found for way in report.means),
        key=lambda each: each[0].means[each[1]].ndcg_at_10,
    )
    for other in found:
        if other is not best:
            yield _difference(best, other, way)


def _difference(best: Report, other: Report, way: Way) -> Message:
    values = np.array(
        [
            one.outcomes[way].ndcg_at_10 - two.outcomes[way].ndcg_at_10
            for one, two in zip(best.judged, other.judged, strict=True)
            if one.outcomes and two.outcomes
        ]
    )
    better, worse = cut(best.tokens or 0), cut(other.tokens or 0)
    if len(values) < LEAST_QUESTIONS:
        return Message(
            "{better} and {other}: {number} questions are too few to say which is better; ask at least"
            " {least}",
            better=better,
            other=worse,
            number=len(values),
            least=LEAST_QUESTIONS,
        )
    low, high = interval(values)
    if round(low, DIGITS) > 0:
        return Message(
            "{better} are better than {other} in {way} on these {number:,} questions: nDCG@10 is higher by"
            " {difference:.3f} (95% interval {low:.3f} to {high:.3f})",
            better=better,
            other=worse,
            way=NAMES[way],
            number=len(values),
            difference=float(values.mean()),
            low=low,
            high=high,
        )
    return Message(
        "{better} and {other} do not differ in {way} on these {number:,} questions: nDCG@10 differs by"
        " {difference:.3f}, and the 95% interval {low:.3f} to {high:.3f} includes 0",
        better=better,
        other=worse,
        way=NAMES[way],
        number=len(values),
        difference=float(values.mean()),
        low=low,
        high=high,
    )
