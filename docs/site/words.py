"""Words of the manual's search: Chinese in single characters and pairs, everything else as English.

The index has every pair of neighbouring characters. A query is cut into pairs side by side, and a page
must have all of them: so 备份恢复 finds a page with 备份 and 恢复 apart. JavaScript cuts the query.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

from sphinx.search.en import SearchEnglish

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
RUN = re.compile(rf"[{HAN}]+|[^\W{HAN}]+")
IS_HAN = re.compile(rf"[{HAN}]")


def words_in(text: str) -> Iterator[str]:
    """Yield the words of a text that the index holds."""
    for run in RUN.findall(text):
        if IS_HAN.match(run):
            yield from run
            yield from map("".join, pairwise(run))
        else:
            yield run


class Words(SearchEnglish):
    """Sphinx' English search, which also finds Chinese."""

    lang = "words"
    js_splitter_code = r"""
var splitQuery = (query) => {
  const han = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff";
  const runs = query.match(new RegExp(`[${han}]+|[\\p{L}\\p{N}_]+`, "gu")) || [];
  return runs.flatMap((run) => run.match(new RegExp(`[${han}]+|[^${han}]+`, "gu"))).flatMap((run) => {
    if (!new RegExp(`[${han}]`, "u").test(run) || run.length === 1) return [run];
    // The last pair of an odd number overlaps the one before it.
    const starts = Array.from({ length: Math.ceil(run.length / 2) }, (_, at) => Math.min(2 * at, run.length - 2));
    return starts.map((start) => run.slice(start, start + 2));
  });
};
"""

    def split(self, input: str) -> list[str]:
        return list(words_in(input))
