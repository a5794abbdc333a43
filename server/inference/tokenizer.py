"""Texts to token ids, exactly as sentence-transformers prepares them for the same model.

For clients that count and cut texts themselves it also lists a text's tokens with their places, and
turns token ids into text.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Literal

# The lanes own the cores; the library's own thread pool would compete with them. Read at import.
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import msgspec
import numpy as np
import tokenizers

from server.errors import EmptyInput
from server.inference.manifest import PairPrompt, TextRules
from server.inference.tokenization.fast_wordpiece import FastWordPiece
from server.inference.tokenization.instruction_tokens import InstructionTokens
from server.inference.tokenization.pairs import Bare, PairTemplate, PromptTemplate, Template
from server.inference.tokenization.tokenizer_bounds import check_bounds
from server.types import Ids, InputType, Tokens

# Of texts of more characters than this per token of the maximum only the beginning is tokenised first: all
# of a 10 MB text would take seconds, to keep 512 tokens. Ordinary text has one to five characters a token.
CHARACTERS_PER_TOKEN = 16
# At most so many such beginnings are read: past a thousand characters a token a text is one endless
# word, which is one unknown token, at 0.4 s a megabyte.
MOST_BEGINNINGS = 64

# Any text that every vocabulary can read.
SAMPLE = "a"

# What is left of a text that is too long.
Kept = Literal["beginning", "end"]

# A lone text of so many characters keeps the interpreter lock: with 16 clients, waiting to get it back
# from the lanes took longer than tokenising.
QUICK_CHARACTERS = 256


class Token(msgspec.Struct, frozen=True, gc=False):
    """A token and its place in the text; special tokens have none.

    text: the characters that it covers, or the name of a special token. start, stop: their places,
    counted from the beginning of the instruction.
    """

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class Tokenizer:
    """The tokenizer of one model. Thread-safe: it holds no state besides the vocabulary."""

    def __init__(self, tokenizer_json: str, rules: TextRules) -> None:
        """Build the tokenizer; raise BadArtifact where its time for a text has no known bound."""
        description = msgspec.json.decode(tokenizer_json)
        # First, because the library compiles every pattern.
        check_bounds(description)
        self.rules = rules
        self._json = tokenizer_json
        self._unlimited = tokenizers.Tokenizer.from_str(tokenizer_json)
        self._unlimited.no_padding()
        self._unlimited.no_truncation()
        self._fast = FastWordPiece.of(description, self._read_piece)
        self._before, self._after = self._special_around()
        self._tokenizer = self._cutting("right")
        self._long = CHARACTERS_PER_TOKEN * rules.max_tokens
        self._instructions: dict[InputType, str] = {
            "query": rules.query_instruction,
            "document": rules.document_instruction,
            "none": "",
        }
        given = {kind: self._plain(each) for kind, each in self._instructions.items() if each}
        self._instruction_tokens = InstructionTokens.of(
            self._tokenizer, given, rules.instruction_offset, len(self._before)
        )

    def encode(
        self, texts: Sequence[str], input_type: InputType = "document", keep: Kept = "beginning"
    ) -> Tokens:
        """Return the token ids of each text with the instruction of its kind, cut to the model's maximum.

        keep: what is left of a text that is cut; the end loses the instruction first. Ids of one that pooling
        leaves out come with the offset of the rules. The Rust library releases the interpreter lock while it
        works. Raises UnicodeEncodeError for a lone surrogate.
        """
        whole = [self._prepared(text, input_type) for text in texts]
        prepared = [self._first_characters(text, keep) for text in whole]
        known = [self._from_fast(text, keep) for text in prepared]
        rest = [text for text, found in zip(prepared, known, strict=True) if found is None]
        asked = iter(self._ask(rest, keep) if rest else ())
        ids: list[Ids] = []
        truncated = []
        for index, found in enumerate(known):
            row, cut = found or next(asked)
            ids.append(np.array(self._without_dropped(row), dtype=np.int64))
            if cut or len(prepared[index]) < len(whole[index]):
                truncated.append(index)
            if input_type in self._instruction_tokens.counts:
                lost = self._lost(prepared[index], len(row)) if cut and keep == "end" else 0
                self._instruction_tokens.mark(ids[-1], input_type, lost)
        return Tokens(ids, truncated)

    def encode_pairs(
        self,
        pairs: Sequence[tuple[str, str]],
        keep: Kept = "beginning",
        known: dict[str, Bare] | None = None,
        template: Template | None = None,
    ) -> Tokens:
        """Return the token ids of each pair of texts, cut to the model's maximum.

        The longer text of a pair is cut first, and white space around a text stays, as in the CrossEncoder
        of sentence-transformers; of a pair in a prompt the second text is cut first. A text that is in
        several pairs is read once. keep: what is left of a text that is cut. known: texts that a call
        before has read; afterwards it has the first text of the last pair, for a next call. template: of
        `template_with`; None for the model's own. Raises UnicodeEncodeError for a lone surrogate.
        """
        template, most = template or self._pair_template, self.rules.max_tokens
        # Made once for all pairs of a first text, which may be long.
        firsts = {first: template.first(first) for first, _ in pairs}
        read = [(firsts[first], template.second(second)) for first, second in pairs]
        bare = dict(known or {})
        bare |= self._bare({text for pair in read for text in pair} - bare.keys(), keep)
        if known is not None:
            known.clear()
            known |= {first: bare[first] for first, _ in read[-1:]}
        ids: list[Ids] = []
        truncated = []
        for index, (first, second) in enumerate(read):
            one, other = bare[first], bare[second]
            row, cut = template.join(one.ids, other.ids, most, from_end=keep == "end")
            ids.append(np.array(row, dtype=np.int64))
            if cut or not (one.whole and other.whole):
                truncated.append(index)
        return Tokens(ids, truncated)

    def encode_pair(self, first: str, second: str) -> Ids:
        """Return the token ids of one pair, int64 (T,); see `encode_pairs`."""
        return self.encode_pairs([(first, second)]).ids[0]

    def around_pairs(self) -> int:
        """Return the tokens that every pair has besides those of its two texts."""
        return self._pair_template.special

    def template_with(self, instruction: str) -> Template:
        """Return the template of pairs whose prompt has this instruction in place of its own.

        The model's rules must have a prompt. Raises UnicodeEncodeError for a lone surrogate.
        """
        prompt = self.rules.pair_prompt
        assert prompt is not None
        return self._in_prompt(msgspec.structs.replace(prompt, instruction=instruction))

    def pair_by_library(self, first: str, second: str) -> list[int]:
        """Return what `encode_pair` gives, by the library alone; it is slower, and for checks."""
        if self.rules.lower_case:
            first, second = first.lower(), second.lower()
        prompt, template = self.rules.pair_prompt, self._pair_template
        if prompt is not None and isinstance(template, PromptTemplate):
            body = self._read_piece(prompt.body(first, second))
            return template.around(body[: template.room(self.rules.max_tokens)])
        return _typed_ids(self._tokenizer.encode(first, second), self.rules.second_text_offset)

    def _bare(self, texts: Collection[str], keep: Kept) -> dict[str, Bare]:
        """Return the token ids of each text."""
        found: dict[str, Bare] = {}
        rest: dict[str, str] = {}
        for text in texts:
            prepared = text.lower() if self.rules.lower_case else text
            short = self._fast is not None and len(prepared) <= self._long
            ids = self._fast.ids(prepared) if self._fast is not None and short else None
            if ids is None:
                rest[text] = prepared
            else:
                found[text] = Bare(ids, True)
        if rest:
            with _clear_surrogates(rest.values()):
                read = [self._excerpt_if_long(text, keep) for text in rest.values()]
                encodings = self._unlimited.encode_batch_fast(read, add_special_tokens=False)
            for text, excerpt, encoding in zip(rest, read, encodings, strict=True):
                found[text] = Bare(encoding.ids, len(excerpt) == len(rest[text]))
        return found

    def _from_fast(self, text: str, keep: Kept) -> tuple[list[int], bool] | None:
        """Return the token ids, and whether some were cut off; None if the library is needed."""
        if self._fast is None or len(text) > self._long:
            return None
        ids = self._fast.ids(text)
        if ids is None:
            return None
        room = self.rules.max_tokens - len(self._before) - len(self._after)
        excess = len(ids) - room
        if excess > 0:
            ids = ids[:room] if keep == "beginning" else ids[excess:]
        return [*self._before, *ids, *self._after], excess > 0

    def _ask(self, texts: Sequence[str], keep: Kept) -> list[tuple[list[int], bool]]:
        """Return the same for prepared texts, by the library."""
        tokenizer = self._that_keeps(keep)
        with _clear_surrogates(texts):
            read = [self._excerpt_if_long(text, keep) for text in texts]
            if len(read) == 1 and len(read[0]) <= QUICK_CHARACTERS:
                encodings = [tokenizer.encode(read[0])]
            else:
                encodings = tokenizer.encode_batch_fast(read)
        full = self.rules.max_tokens
        # subtle: .overflowing copies every cut-off part, so only texts of full length are asked for it.
        return [
            (
                encoding.ids,
                len(excerpt) < len(text) or (len(encoding) == full and bool(encoding.overflowing)),
            )
            for text, excerpt, encoding in zip(texts, read, encodings, strict=True)
        ]

    def length(self, text: str, input_type: InputType) -> int:
        """Return how many tokens `encode` would read of a text without a maximum."""
        prepared = self._prepared(text, input_type)
        return len(self._unlimited.encode_batch_fast([prepared])[0])

    def tokens(
        self, texts: Sequence[str], input_type: InputType, *, special: bool = True
    ) -> list[list[Token]]:
        """Return the tokens that `encode` would read without a maximum, with their places.

        special: with the special tokens around a text.
        """
        given = [self._instructions[input_type] + text for text in texts]
        prepared = [self._prepared(text, input_type) for text in texts]
        encodings = self._unlimited.encode_batch(prepared, add_special_tokens=special)
        return [
            _tokens(text, encoding, places_of(text, self.rules))
            for text, encoding in zip(given, encodings, strict=True)
        ]

    def decode(self, ids: Sequence[Sequence[int]], *, skip_special: bool = True) -> list[str]:
        """Return the text of each row of token ids; raises ValueError for an id that is not a token's."""
        for row in ids:
            for token in row:
                if not 0 <= token < self.vocabulary_size:
                    raise ValueError(
                        f"{token} is no token id; the vocabulary has {self.vocabulary_size}"
                    )
        return self._unlimited.decode_batch(list(map(list, ids)), skip_special_tokens=skip_special)

    def texts_of(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Return the text that has exactly the tokens of each row; raises ValueError where none has.

        ids: of this vocabulary, with or without the special tokens around a text.
        """
        bare = [self._without_special(row) for row in ids]
        texts = self.decode(bare, skip_special=False)
        prepared = [self._plain(text) for text in texts]
        found = self._unlimited.encode_batch_fast(prepared, add_special_tokens=False)
        for index, (row, encoding) in enumerate(zip(bare, found, strict=True)):
            if encoding.ids != row:
                raise ValueError(
                    f"input[{index}]: no text has exactly these token ids, for example where one"
                    " means an unknown word; send the text instead"
                )
        return texts

    def _without_special(self, row: Sequence[int]) -> list[int]:
        before, after, bare = self._before, self._after, list(row)
        if len(bare) >= len(before) + len(after):
            if bare[: len(before)] == before and bare[len(bare) - len(after) :] == after:
                return bare[len(before) : len(bare) - len(after)]
        return bare

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text as a whole, without special tokens and without a limit."""
        prepared = [text.lower() for text in texts] if self.rules.lower_case else list(texts)
        encodings = self._unlimited.encode_batch_fast(prepared, add_special_tokens=False)
        return [len(encoding) for encoding in encodings]

    def added_tokens(self) -> list[str]:
        """Return the texts of the added tokens, as they were given and as they are looked for."""
        normalizer = self._unlimited.normalizer
        contents = [each.content for each in self._unlimited.get_added_tokens_decoder().values()]
        sought = [] if normalizer is None else map(normalizer.normalize_str, contents)
        return list(dict.fromkeys([*contents, *sought]))

    def _cutting(self, direction: str) -> tokenizers.Tokenizer:
        """Return the library's tokenizer with truncation at the side that `direction` names."""
        cutting = tokenizers.Tokenizer.from_str(self._json)
        cutting.no_padding()
        cutting.enable_truncation(self.rules.max_tokens, direction=direction)
        return cutting

    def _that_keeps(self, keep: Kept) -> tokenizers.Tokenizer:
        return self._tokenizer if keep == "beginning" else self._from_the_end

    def _in_prompt(self, prompt: PairPrompt) -> PromptTemplate:
        with _clear_surrogates([prompt.instruction]):
            return PromptTemplate.of(self._read_piece, prompt, (self._before, self._after))

    @cached_property
    def _pair_template(self) -> Template:
        """How two texts are put together; made on demand, because only models of pairs need it."""
        if self.rules.pair_prompt is not None:
            return self._in_prompt(self.rules.pair_prompt)
        encoding = self._unlimited.encode(SAMPLE, SAMPLE)
        offset = self.rules.second_text_offset
        return PairTemplate.of(_typed_ids(encoding, offset), encoding.sequence_ids, offset)

    @cached_property
    def _from_the_end(self) -> tokenizers.Tokenizer:
        """The library's tokenizer that keeps a text's end; made on demand, because few need it."""
        return self._cutting("left")

    def _lost(self, text: str, n_kept: int) -> int:
        """Return how many tokens a text lost at its beginning; the maximum stands for more than that."""
        if len(self._excerpt_if_long(text, "end")) < len(text):
            return self.rules.max_tokens
        return len(self._unlimited.encode_batch_fast([text])[0]) - n_kept

    def _read_piece(self, text: str) -> list[int]:
        return list(self._unlimited.encode(text, add_special_tokens=False).ids)

    def _special_around(self) -> tuple[list[int], list[int]]:
        """Return the special tokens before and after a text."""
        plain, whole = self._read_piece("a"), self._unlimited.encode("a").ids
        for begin in range(len(whole)):
            if whole[begin : begin + len(plain)] == plain:
                return whole[:begin], whole[begin + len(plain) :]
        return [], []

    @cached_property
    def vocabulary_size(self) -> int:
        """The number of tokens; ids are 0 to less than this."""
        return self._unlimited.get_vocab_size()

    def _prepared(self, text: str, input_type: InputType) -> str:
        return self._plain(self._instructions[input_type] + text)

    def _plain(self, text: str) -> str:
        stripped = text.strip() if self.rules.strip else text
        return stripped.lower() if self.rules.lower_case else stripped

    def _first_characters(self, text: str, keep: Kept) -> str:
        most = self.rules.max_characters
        if most is None:
            return text
        return text[:most] if keep == "beginning" else text[-most:]

    def _without_dropped(self, row: list[int]) -> list[int]:
        dropped = self.rules.dropped_token
        return row if dropped is None else [token for token in row if token != dropped]

    def _excerpt_if_long(self, text: str, keep: Kept) -> str:
        """Return as much of a text as decides the tokens that are kept.

        A cut may change the tokens of the word it cuts, and no others; once two parts of the
        maximum's length have overflowed, that word is far from what is kept.
        """
        size, most = self._long, self._long * MOST_BEGINNINGS
        if len(text) <= size:
            return text
        tokenizer = self._that_keeps(keep)
        while size < min(most, len(text)):
            excerpt = text[:size] if keep == "beginning" else text[-size:]
            if len(tokenizer.encode_batch_fast([excerpt])[0].overflowing) >= 2:
                return excerpt
            size *= 4
        return text[:most] if keep == "beginning" else text[-most:]


def check_known(ids: Sequence[Ids]) -> None:
    """Refuse a text of no tokens, which has no vector: raises EmptyInput.

    Where special tokens stand around every text there is no such text.
    """
    for index, row in enumerate(ids):
        if not len(row):
            raise EmptyInput(
                f"text {index} has no token that the model knows, so it has no vector; send a text with at"
                " least one word of the model's vocabulary",
                index=index,
            )


@contextmanager
def _clear_surrogates(texts: Iterable[str]) -> Iterator[None]:
    """Raise Python's own error for a lone surrogate, which is clear; the library's is a TypeError."""
    try:
        yield
    except TypeError:
        "".join(texts).encode()
        raise


def _typed_ids(encoding: tokenizers.Encoding, offset: int) -> list[int]:
    """Return the ids of a pair; those of the second text have the offset added."""
    return [
        token + offset * (kind > 0)
        for token, kind in zip(encoding.ids, encoding.type_ids, strict=True)
    ]


def places_of(text: str, rules: TextRules) -> Sequence[int]:
    """Return the place in the given text of each character of the prepared one, and of its end."""
    begin = len(text) - len(text.lstrip()) if rules.strip else 0
    stripped = text.strip() if rules.strip else text
    end = begin + len(stripped)
    if not rules.lower_case or len(stripped.lower()) == len(stripped):
        return range(begin, end + 1)
    # subtle: a capital I with a dot becomes two characters.
    return [*(begin + at for at, one in enumerate(stripped) for _ in one.lower()), end]


def _tokens(text: str, encoding: tokenizers.Encoding, places: Sequence[int]) -> list[Token]:
    found = []
    for token, name, special, (start, stop) in zip(
        encoding.ids, encoding.tokens, encoding.special_tokens_mask, encoding.offsets, strict=True
    ):
        if special:
            found.append(Token(token, name, True, None, None))
            continue
        begin = places[start]
        end = places[stop - 1] + 1 if stop > start else begin
        found.append(Token(token, text[begin:end], False, begin, end))
    return found
