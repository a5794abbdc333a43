"""A picture of what `evaluate` found, as SVG: nDCG@10 of each way, with its interval, for each size of chunks."""

from collections.abc import Iterator, Mapping, Sequence
from xml.sax.saxutils import escape

from server.cli.evaluation.comparison import Means

# Pixels: of a bar, between groups, of the plot's height and its margins.
BAR, GAP, HEIGHT, LEFT, TOP, BELOW = 46, 34, 240, 48, 24, 52
# Colours that colour-blind readers can distinguish.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")
FONT = 'font-family="sans-serif" font-size="12"'

Group = tuple[str, Mapping[str, Means]]  # its label, the means by the name of the way


def drawn(groups: Sequence[Group]) -> str:
    """Return the picture; the same figures give the same text."""
    ways = list(dict.fromkeys(way for _, means in groups for way in means))
    width = LEFT + sum(len(means) * BAR + GAP for _, means in groups)
    width, height = max(width, LEFT + 130 * len(ways)), TOP + HEIGHT + BELOW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {FONT}>',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *_scale(width),
        *_groups(groups, ways),
        *_legend(ways, height),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _y(value: float) -> float:
    return round(TOP + HEIGHT * (1 - value), 1)


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="#222222">{escape(text)}</text>'


def _scale(width: int) -> Iterator[str]:
    yield _text(LEFT - 40, TOP - 8, "nDCG@10", "start")
    for step in range(6):
        value = step / 5
        yield f'<path d="M{LEFT} {_y(value)}H{width}" stroke="#dddddd"/>'
        yield _text(LEFT - 6, _y(value) + 4, f"{value:.1f}", "end")


def _groups(groups: Sequence[Group], ways: Sequence[str]) -> Iterator[str]:
    x = LEFT + GAP // 2
    for label, means in groups:
        yield _text(x + len(means) * BAR / 2, TOP + HEIGHT + 16, label)
        for way, found in means.items():
            yield from _bar(x, found, COLOURS[ways.index(way) % len(COLOURS)])
            x += BAR
        x += GAP


def _bar(x: int, found: Means, colour: str) -> Iterator[str]:
    top, middle = _y(found.ndcg_at_10), x + BAR / 2 - 2
    low, high = map(_y, found.interval)
    tall = round(TOP + HEIGHT - top, 1)
    yield f'<rect x="{x}" y="{top}" width="{BAR - 4}" height="{tall}" fill="{colour}"/>'
    yield f'<path d="M{middle} {low}V{high}" stroke="#222222" stroke-width="1.5"/>'
    yield _text(middle, min(top, high) - 4, f"{found.ndcg_at_10:.3f}")


def _legend(ways: Sequence[str], height: int) -> Iterator[str]:
    for place, way in enumerate(ways):
        x, y = LEFT + 120 * place, height - 20
        colour = COLOURS[place % len(COLOURS)]
        yield f'<rect x="{x}" y="{y}" width="12" height="12" fill="{colour}"/>'
        yield _text(x + 18, y + 11, way, "start")
