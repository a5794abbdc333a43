"""Files inside a zip archive and XML in them, within limits that hold before anything is unpacked."""

import io
import posixpath
import re
import zipfile

from lxml import etree

from server.sources.office.section import Unreadable

MOST_ENTRIES = 20_000
# Bytes of all entries together, and of each byte in the archive. XML of tables is compressed to a
# thirtieth; a bomb of zeros to a thousandth.
MOST_BYTES = 1 << 30
MOST_ENTRY_BYTES = 1 << 28
MOST_RATIO, SMALL_BYTES = 200, 1 << 23
PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")
COMPOUND = bytes.fromhex("d0cf11e0a1b11ae1")
ENCRYPTED = "EncryptedPackage".encode("utf-16-le")


class Archive:
    """A zip archive in memory whose sizes have been checked."""

    def __init__(self, data: bytes) -> None:
        """Open the archive; raises Unreadable for what is encrypted, damaged or too large."""
        check_not_encrypted(data)
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError):
            raise Unreadable("it is damaged or of another format than its suffix says") from None
        self._infos = {info.filename: info for info in self._zip.infolist()}
        self._check()

    def _check(self) -> None:
        infos = self._zip.infolist()
        if len(infos) > MOST_ENTRIES:
            raise Unreadable(
                "it has {found:,} files inside, at most {most:,} are read",
                found=len(infos),
                most=MOST_ENTRIES,
            )
        if any(info.flag_bits & 1 for info in infos):
            raise Unreadable("it is encrypted; save a copy without a password")
        packed = sum(info.compress_size for info in infos)
        size = sum(info.file_size for info in infos)
        if size > MOST_BYTES or size > SMALL_BYTES and size > MOST_RATIO * packed:
            raise Unreadable(
                "it would be unpacked from {packed:,} to {size:,} bytes, which looks like a zip bomb",
                packed=packed,
                size=size,
            )

    def __contains__(self, name: str) -> bool:
        return name in self._infos

    def names(self) -> list[str]:
        return list(self._infos)

    def read(self, name: str) -> bytes:
        """Return an entry; raises Unreadable if it is missing, damaged or larger than it says."""
        info = self._infos.get(name)
        if info is None:
            raise Unreadable("its part {name} is missing, so it is damaged", name=name)
        if info.file_size > MOST_ENTRY_BYTES:
            raise Unreadable(
                "its part {name} has {size:,} bytes, at most {most:,} are read",
                name=name,
                size=info.file_size,
                most=MOST_ENTRY_BYTES,
            )
        try:
            with self._zip.open(info) as entry:
                # subtle: the directory of the archive may state a smaller size than there is.
                data = entry.read(info.file_size + 1)
        except (
            zipfile.BadZipFile,
            NotImplementedError,
            EOFError,
            OSError,
            ValueError,
            RuntimeError,
        ):
            data = None
        except Exception as error:
            if type(error).__module__ not in ("zlib", "_lzma"):
                raise
            data = None
        if data is None or len(data) != info.file_size:
            raise Unreadable("its part {name} is damaged", name=name)
        return data

    def xml(self, name: str) -> etree._Element:
        """Return the root of an entry that is XML."""
        return parsed(self.read(name), name)

    def relations(self, name: str) -> dict[str, tuple[str, str]]:
        """Return what a part of an office file refers to inside: its kind and name, by id."""
        folder, file = posixpath.split(name)
        path = f"{folder}/_rels/{file}.rels".lstrip("/")
        if path not in self._infos:
            return {}
        found = {}
        for each in self.xml(path):
            if isinstance(each.tag, str) and each.get("TargetMode") != "External":
                kind = each.get("Type", "").rpartition("/")[2]
                target = unquoted(each.get("Target", ""))
                found[each.get("Id", "")] = (kind, resolved(folder, target))
        return found


def resolved(folder: str, target: str) -> str:
    """Return the name of an entry that a part in a folder refers to."""
    return posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/")


def unquoted(text: str) -> str:
    """Return a part of a URL with the characters that its percent signs stand for."""
    plain = PERCENT.sub(lambda found: bytes.fromhex(found[1].decode()), text.encode())
    return plain.decode("utf-8", "replace")


def parsed(data: bytes, name: str) -> etree._Element:
    """Return the root of an XML text without following what it refers to; raises Unreadable."""
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        check_memory(error)
        raise Unreadable(
            "its part {name} is not valid XML: {error}", name=name, error=error
        ) from None
    table = root.getroottree().docinfo.internalDTD
    if table is not None and any(True for _ in table.iterentities()):
        raise Unreadable(
            "its part {name} defines entities, which no office program writes", name=name
        )
    return root


def check_memory(error: Exception) -> None:
    """Raise MemoryError where that is why lxml failed: it has no other error of its own for it."""
    if str(error).startswith("unknown error"):
        raise MemoryError from error


def check_not_encrypted(data: bytes, *, may_be_old: bool = False) -> None:
    """Raise Unreadable for an encrypted office file, or an old one, unless that may be read."""
    if not data.startswith(COMPOUND):
        return
    if ENCRYPTED in data:
        raise Unreadable("it is encrypted; save a copy without a password")
    if not may_be_old:
        raise Unreadable("it is of an old binary format; save it again as .docx, .xlsx or .pptx")


def core_title(archive: Archive) -> str:
    """Return the title in the properties of an office file; empty where it has none."""
    name = "docProps/core.xml"
    if name not in archive:
        return ""
    found = archive.xml(name).find("{http://purl.org/dc/elements/1.1/}title")
    return "" if found is None else (found.text or "").strip()
