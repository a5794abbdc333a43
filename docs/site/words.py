"""Words of the manual's search: Chinese in single characters and pairs, everything else as English.

A Chinese query becomes the pairs of its characters, and a page must have all of them. The same rule is
written twice, here for the index and in JavaScript for the query.
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
    return Array.from(run.slice(1), (next, place) => run[place] + next);
  });
};
"""

    def split(self, input: str) -> list[str]:
        return list(words_in(input))
