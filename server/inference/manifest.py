"""The manifest of an artifact: what the server must know about a model and never guess.

An artifact is a folder with `model.onnx`, `tokenizer.json` and `manifest.json`, and `model.onnx.data` where
the graph is too large for one file. `export` writes it, `read_manifest` checks it: every file must have
the hash that the manifest states.
"""

import codecs
import hashlib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from server.errors import BadArtifact
from server.inference.results import UNPOOLED, ResultForm
from server.system.regular_file import FileTooLarge, open_regular, read_limited
from server.types import Packing, Task

FORMAT_VERSION = 1
MODEL_FILE, TOKENIZER_FILE, MANIFEST_FILE = "model.onnx", "tokenizer.json", "manifest.json"
# Keys of earlier manifests that no reader needs: `inputs` named one of the graph's six inputs.
RETIRED = ("inputs",)
# One takes some 60 KB. The bounds refuse a damaged or foreign manifest before it costs memory or time.
MOST_BYTES = 16 * 1024 * 1024
MOST_TOKENS, MOST_DIMENSIONS, MOST_GROUPS, MOST_SELF_TESTS = 1_000_000, 65_536, 1_024, 64
# Words of the largest vocabularies: 256,000 and more.
MOST_WORDS = 4_000_000
MOST_TOKEN_IDS, MOST_SKIPPED = 2**31 - 1, 16
# A name of a file in the folder itself.
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")

# What turns the number that a graph gives a pair into its score.
Activation = Literal["identity", "sigmoid"]
# How vectors are meant to be compared, by sentence-transformers' names.
Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
Dimension = Annotated[int, msgspec.Meta(ge=1, le=MOST_DIMENSIONS)]


class PairPrompt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The prompt in which a language model reads a pair of texts and is asked whether they match.

    Three parts are tokenised apart: `before`, the body, and `after`. The body is one text: the labels and,
    behind each, the instruction, the first and the second text. Only the body is cut, at its end.
    """

    before: str
    instruction_label: str
    instruction: str
    first_label: str
    second_label: str
    after: str

    def body(self, first: str, second: str) -> str:
        """Return the body of a pair."""
        return f"{self.instruction_label}{self.instruction}{self.first_label}{first}{self.second_label}{second}"


def cosine_orders(similarity: Similarity, *, normalized: bool) -> bool:
    """Return whether the cosine puts vectors in the order of `similarity`."""
    return similarity == "cosine" or (normalized and similarity in ("dot", "euclidean"))


class TextRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rules by which sentence-transformers prepares a text for this model.

    White space at both ends is stripped where `strip` says so, then the text is lower-cased where
    `lower_case` says so, then cut to `max_tokens`, special tokens included. Instructions are put before the
    text unchanged.
    A text of a pair is not stripped and gets no instruction.
    second_text_offset: added to the token ids of a pair's second text, for a network that tells the two
    apart: the rows of its word table. 0 for other networks. instruction_offset: the same for the tokens of an
    instruction, for a network whose pooling leaves them out.
    pair_prompt: what a pair is read in; None where the tokenizer's own special tokens join two texts.
    max_characters: a text is cut to so many before it is tokenised; None for any number.
    dropped_token: the id that is taken out of a text after the cut to `max_tokens`; None for no id.
    """

    lower_case: bool
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=MOST_TOKENS)]
    query_instruction: str = ""
    document_instruction: str = ""
    second_text_offset: Annotated[int, msgspec.Meta(ge=0, le=MOST_TOKEN_IDS)] = 0
    pair_prompt: PairPrompt | None = None
    instruction_offset: Annotated[int, msgspec.Meta(ge=0, le=MOST_TOKEN_IDS)] = 0
    strip: bool = True
    max_characters: Annotated[int, msgspec.Meta(ge=1)] | None = None
    dropped_token: Annotated[int, msgspec.Meta(ge=0, le=MOST_TOKEN_IDS)] | None = None


class Agreement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The agreement of this artifact's results with the float32 model's, on `texts` texts.

    The measure is that of the task (`server/inference/comparison.py`): the cosine, of vectors.
    """

    mean: float
    minimum: float
    texts: int


class OrderAgreement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far this artifact puts the candidates of each of `queries` in the order of the float32 model.

    Kendall's tau: 1 for the same order, 0 for orders that have nothing to do with each other.
    """

    mean: float
    minimum: float
    queries: int


class Quantization(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The recipe of the int8 numbers; enough to make them again."""

    recipe: str
    weight_bits: int
    calibration_sha256: str
    calibration_texts: int


class SelfTest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A text and its result, without instruction, as the exporting machine computed it.

    vector: the numbers of the result, of which a score is one; of sparse weights and token vectors a summary
    (`server/inference/comparison.py`). second: the other text of a pair, for models that read pairs.
    """

    text: str
    vector: Annotated[list[float], msgspec.Meta(max_length=MOST_DIMENSIONS)]
    second: str | None = None


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that the server states about the model, and checks at start.

    fingerprint: identity of the vector space; two artifacts share it only if they give the same
    vectors. dimension: D, 1 for scores, the number of words for sparse weights. pooling: "none" where each
    token has a row. normalized: rows have unit L2 norm.
    groups: how many different lengths a batch may have. packed_tokens: of the longest text in a batch of
    several lengths; None for any.
    matryoshka_dimensions: sizes that the model was trained to be cut to.
    monotonous_agreement: on texts of one token, or of a few again and again; None in an artifact of
    an older exporter, which did not measure it.
    task: what the model gives for a text. skipped_tokens: at the beginning of a text, without a vector of
    their own; of token vectors.
    activation: of scores. The graph gives the number before it, and so do the results of the self-test.
    order: of scores, the agreement with the float32 model in how it orders candidates; None for vectors.
    similarity: by which the model was trained to compare vectors. Searches compare by the cosine.
    checkpoint_sha256, quantization, exported_with: the artifact's origin, for people who examine it.
    settings_sha256: of everything that decided what the artifact holds; the exporter compares it.
    """

    format_version: int
    model_id: str
    revision: str
    fingerprint: str
    family: str
    pooling: str
    normalized: bool
    dimension: Annotated[int, msgspec.Meta(ge=1, le=MOST_WORDS)]
    text: TextRules
    precision: str
    groups: Annotated[int, msgspec.Meta(ge=1, le=MOST_GROUPS)]
    matryoshka_dimensions: list[Dimension]
    files: dict[str, str]
    checkpoint_sha256: str
    quantization: Quantization | None
    agreement: Agreement
    instruction_set: str
    exported_with: dict[str, str]
    settings_sha256: str
    self_test: Annotated[list[SelfTest], msgspec.Meta(min_length=1, max_length=MOST_SELF_TESTS)]
    packed_tokens: Annotated[int, msgspec.Meta(ge=0, le=MOST_TOKENS)] | None = None
    monotonous_agreement: Agreement | None = None
    task: Task = "dense"
    activation: Activation = "identity"
    order: OrderAgreement | None = None
    skipped_tokens: Annotated[int, msgspec.Meta(ge=0, le=MOST_SKIPPED)] = 0
    similarity: Similarity = "cosine"

    def __post_init__(self) -> None:
        """Refuse what no range of one key shows; msgspec reports a ValueError with the place."""
        for name in self.files:
            if not PLAIN_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a file of an artifact")
        if self.task != "sparse" and self.dimension > MOST_DIMENSIONS:
            raise ValueError(f"the dimension {self.dimension} is above {MOST_DIMENSIONS}")
        for size in self.matryoshka_dimensions:
            if size > self.dimension:
                raise ValueError(
                    f"the shorter dimension {size} is above the dimension {self.dimension}"
                )

    @property
    def form(self) -> ResultForm:
        return ResultForm(self.task, self.pooling == UNPOOLED, self.skipped_tokens)

    @property
    def cosine_orders(self) -> bool:
        """Whether searches, which compare by the cosine, find the order that the model was trained for."""
        return cosine_orders(self.similarity, normalized=self.normalized)

    @property
    def packing(self) -> Packing:
        any_length = self.text.max_tokens
        return Packing(
            self.groups, any_length if self.packed_tokens is None else self.packed_tokens
        )


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest once every file has the hash that it states; raises BadArtifact."""
    path = folder / MANIFEST_FILE
    manifest = parse_manifest(path)
    for name in dict.fromkeys((MODEL_FILE, TOKENIZER_FILE, *manifest.files)):
        found, expected = file_sha256(folder / name), manifest.files.get(name)
        if found != expected:
            raise BadArtifact(
                "{path} is damaged: its sha256 is {found}, the manifest says {expected}; export the "
                "model again",
                path=folder / name,
                found=found,
                expected=expected,
            )
    return manifest


def parse_manifest(path: Path) -> Manifest:
    """Return the manifest without looking at the other files; raises BadArtifact."""
    try:
        content = read_limited(path, MOST_BYTES).removeprefix(codecs.BOM_UTF8)
        # First, because another format has other keys.
        version = msgspec.json.decode(content, type=_Version).format_version
        if version == FORMAT_VERSION:
            fields: dict[str, Any] = msgspec.json.decode(content)
            kept = {key: value for key, value in fields.items() if key not in RETIRED}
            return msgspec.convert(kept, Manifest)
    except FileNotFoundError:
        raise BadArtifact(
            "no artifact at {folder}: {name} is missing; run `make export` first",
            folder=path.parent,
            name=path.name,
        ) from None
    except FileTooLarge as error:
        raise BadArtifact(
            "{path} has more than {most:,} bytes and is no manifest; export the model again",
            path=path,
            most=error.most,
        ) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadArtifact(
            "{path} cannot be read: {error}; export the model again", path=path, error=reason
        ) from None
    raise BadArtifact(
        "{path} has format {version}, this server reads {expected}; export the model again",
        path=path,
        version=version,
        expected=FORMAT_VERSION,
    )


class _Version(msgspec.Struct):
    format_version: int


def file_sha256(path: Path) -> str:
    """Return the hash of a file in hexadecimal; raises BadArtifact."""
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadArtifact(
            "{path} cannot be read: {strerror}", path=path, strerror=error.strerror
        ) from None
