"""Mails in .eml files: subject, sender, date and text."""

import email
import email.policy
from collections.abc import Iterator
from email.errors import MessageError
from email.message import EmailMessage, MIMEPart
from email.utils import parsedate_to_datetime

from server.messages.message import Message
from server.sources.office.given import Given
from server.sources.office.html import decoded, outlined, parsed
from server.sources.office.outline import Outline
from server.sources.office.section import Section, Unreadable, clean, one_line
from server.sources.place import HEADING

HEADERS = {"from": "from", "to": "to", "cc": "cc"}
LONGEST_HEADER = 1_000


def sections(given: Given) -> Iterator[Section]:
    """Yield the mail as one section; its attachments are noted."""
    try:
        mail = email.message_from_bytes(given.data, policy=email.policy.default)
        assert isinstance(mail, EmailMessage)
        text = _text(mail)
        attached = [_name(part) for part in mail.iter_attachments()]
        place = _place(mail)
        subject = one_line(str(mail.get("subject", "")))
    except (MessageError, LookupError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise Unreadable("it is not a mail that can be read: {error}", error=error) from None
    if not mail.keys():
        raise Unreadable("it has no headers, so it is not a mail")
    if attached:
        given.note(Message("attachments left out: {names}", names=tuple(attached[:20])))
    if text or subject:
        yield Section(text or subject, subject or given.stem, "mail", place)


def _text(mail: EmailMessage) -> str:
    """Return the plain text of a mail, or that of its HTML."""
    body = mail.get_body(("plain", "html"))
    if body is None:
        return ""
    if body.get_content_type() != "text/html":
        return clean(str(body.get_content())).strip()
    page = parsed(_html(body))
    if page is None:
        return ""
    outline, lines = Outline(""), list[str]()
    for found in (*outlined(page, outline), *outline.end()):
        heading = str(found.place.get(HEADING, "")).rpartition(" > ")[2]
        lines += [heading, found.text] if heading and heading != found.text else [found.text]
    return "\n".join(lines)


def _html(body: MIMEPart) -> str:
    if body.get_content_charset():
        return str(body.get_content())
    raw = body.get_payload(decode=True)
    return decoded(raw if isinstance(raw, bytes) else b"")[0]


def _name(part: EmailMessage) -> str:
    return one_line(part.get_filename() or part.get_content_type())[:200]


def _place(mail: EmailMessage) -> dict[str, object]:
    """Return the headers that become metadata."""
    place: dict[str, object] = {}
    for header, key in HEADERS.items():
        if value := one_line(str(mail.get(header, ""))):
            place[key] = value[:LONGEST_HEADER]
    try:
        sent = parsedate_to_datetime(str(mail.get("date", "")))
        place["date"] = sent.isoformat()
    except (ValueError, TypeError, IndexError):
        pass
    return place
