"""Files, folders, patterns and standard input as documents, one after the other.

No file is held in memory whole unless it is one document. `formats` says what each format holds; in
a folder each .txt and .md file is one document.
"""

import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from server.errors import BadSettings
from server.messages.message import Message
from server.sources.decoding import check_encoding, escaped, reading, shown_name
from server.sources.folders import Choice, Listed, Unlisted, list_folder
from server.sources.following import marked
from server.sources.formats import documents_of
from server.sources.notes import Notes
from server.sources.office.formats import advice
from server.sources.office.section import UnreadableFile
from server.sources.patterns import Pattern
from server.sources.problems import Problems, Stopped
from server.sources.replacements import Replacements
from server.sources.source import (
    FORMATS,
    OF_ROWS,
    OF_SUFFIX,
    TABLES,
    InFolder,
    Options,
    Read,
    Source,
)
from server.store.passages.noise import noise_length

STDIN = "-"


def find_sources(
    names: Sequence[str],
    options: Options,
    notes: Notes | None = None,
    problems: Problems | None = None,
) -> list[Source]:
    """Find files, folders, patterns, and standard input, which is "-"; each name is a source.

    A folder's files are read at any depth, in the order of their paths, without hidden files, those of
    every format. A pattern stands for the files that fit, each as if it had been named. Raises BadSettings
    for what is missing, empty or unknown.
    """
    check_encoding(options.encoding)
    notes, problems = notes or Notes(), problems or Problems()
    found = [_find(name, options, notes, problems) for name in names]
    if len(found) > 1:
        _check_ids(found)
    return found


def find_source(name: str, options: Options | None = None) -> Source:
    """Find one source, see `find_sources`."""
    (found,) = find_sources([name], options or Options())
    return found


def read_documents(*sources: Source) -> Iterator[Read]:
    """Yield documents in order, each with the number of bytes read so far, of all files.

    Raises BadSettings at what cannot be read or decoded or is not a document, after yielding what
    came before it; see `Problems` for what happens where reading goes on.
    """
    n_before, replacements = 0, Replacements()
    for source in sources:
        for file in source.files:
            n_read, before = 0, source.problems.number
            try:
                for read, n_read in documents_of(file, source):
                    document, is_other = replacements.settle(read)
                    if is_other:
                        source.notes.replaced[shown_name(file)] += 1
                    if left_out := noise_length(document.text):
                        source.notes.noise[shown_name(file)] += left_out
                    yield marked(document, source, file), n_before + n_read
            except Stopped:
                raise
            except BadSettings as error:
                alone = len(source.files) == len(sources) == 1
                if alone and not source.problems.keep_going:
                    raise
                apart = isinstance(error, UnreadableFile) and not alone
                source.problems.add(error, of_one_file=apart)
            if file is not None and source.problems.number != before:
                source.problems.files.add((source.name, escaped(source.path_of(file))))
            n_before += n_read


def _find(name: str, options: Options, notes: Notes, problems: Problems) -> Source:
    if name == STDIN:
        _check_format(name, "", options)
        return Source(name, (None,), Path(), 0, options, notes=notes, problems=problems)
    path = Path(name)
    pattern = Pattern.of(name)
    if pattern is not None and not path.exists():
        return _of_pattern(name, pattern, options, notes, problems)
    with reading(name):
        status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        return _of_folder(path, options, notes, problems)
    _check_format(name, path.suffix, options)
    return Source(
        name, (path,), path.parent, status.st_size, options, notes=notes, problems=problems
    )


def _check_format(name: str, suffix: str, options: Options) -> None:
    given = options.format
    found = OF_SUFFIX.get(suffix.lower(), "" if suffix else "txt") if given is None else given
    what = advice(suffix) if given is None else None
    if what is not None:
        raise BadSettings("{name}: {why}", name=name, why=what)
    if found not in FORMATS:
        wrong = (
            Message("--format {given} is unknown", given=given)
            if given is not None
            else Message(
                "{name}: the suffix {suffix} is not a known format", name=name, suffix=suffix
            )
        )
        raise BadSettings("{wrong}; give --format, one of {formats}", wrong=wrong, formats=FORMATS)
    if options.names_columns and found not in TABLES:
        raise BadSettings(
            "--types, --text-column, --title-column and --id-column are for {tables}, and {name} is read "
            "as {format}",
            tables=TABLES,
            name=name,
            format=found,
        )


# --- folders and patterns -----------------------------------------------------------------------------


def _of_folder(folder: Path, options: Options, notes: Notes, problems: Problems) -> Source:
    name = str(folder)
    if options.format is not None:
        raise BadSettings(
            "{name} is a folder: each of its files has the format of its suffix; --format {format} is for "
            "files and patterns",
            name=name,
            format=options.format,
        )
    chosen = options.selection
    choice = Choice(_is_known, chosen.takes, chosen.leaves_out)
    listed = list_folder(folder, choice, notes, _unlisted(name, folder, problems))
    return _source(name, folder, listed, options, notes, problems, is_folder=True)


def _of_pattern(
    name: str, pattern: Pattern, options: Options, notes: Notes, problems: Problems
) -> Source:
    chosen = options.selection

    def takes(path: str) -> bool:
        return pattern.fits(path) and chosen.takes(path)

    def known(path: str) -> bool:
        return options.format is not None or _is_known(path)

    def prunes(path: str) -> bool:
        return chosen.leaves_out(path) or not pattern.reaches(path)

    choice = Choice(known, takes, prunes)
    listed = list_folder(pattern.folder, choice, notes, _unlisted(name, pattern.folder, problems))
    for file in listed.names[:1]:
        _check_format(name, PurePosixPath(file).suffix, options)
    return _source(name, pattern.folder, listed, options, notes, problems, is_folder=False)


def _unlisted(name: str, folder: Path, problems: Problems) -> Unlisted:
    """Return what happens with a folder of a source that cannot be listed: its documents stay."""

    def unlisted(path: str, error: OSError) -> None:
        where = shown_name(folder / path)
        problems.add(
            BadSettings("{where} cannot be read: {strerror}", where=where, strerror=error.strerror)
        )
        problems.files.add((name, path))

    return unlisted


def _source(
    name: str,
    folder: Path,
    listed: Listed,
    options: Options,
    notes: Notes,
    problems: Problems,
    *,
    is_folder: bool,
) -> Source:
    if not listed.names and not options.allow_empty:
        raise BadSettings(
            "{name} has no files that are read; formats are {formats}",
            name=name,
            formats=tuple(OF_SUFFIX),
        )
    files = InFolder(folder, listed.names)
    return Source(
        name,
        files,
        folder,
        listed.n_bytes,
        options,
        is_folder=is_folder,
        notes=notes,
        problems=problems,
    )


def _is_known(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in OF_SUFFIX


def _check_ids(sources: Sequence[Source]) -> None:
    """Refuse files of several sources that would be the same document."""
    of_path = dict[str, Path]()
    for source in sources:
        for file in source.files:
            if file is None or source.format_of(file) in OF_ROWS and not source.is_folder:
                continue
            other = of_path.setdefault(escaped(source.path_of(file)), file)
            if other != file:
                raise BadSettings(
                    "{one} and {other} would both be the document {id}; index the folder that holds both, "
                    "with --include for the files to read",
                    one=shown_name(other),
                    other=shown_name(file),
                    id=escaped(source.path_of(file)),
                )
