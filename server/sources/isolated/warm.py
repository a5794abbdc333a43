"""Loads what Python loads late: once the process has no rights, its files may be out of reach."""

import codecs
import email
import email.policy
import encodings
import pkgutil
from email.utils import parsedate_to_datetime

MAIL = (
    b"Subject: =?utf-8?b?eA==?=\nDate: Mon, 2 Jan 2023 10:00:00 +0800\nTo: =?gbk?q?x?= <a@b>\n\nx"
)


def load() -> None:
    """Load every codec, and the parts of the mail parser."""
    for module in pkgutil.iter_modules(encodings.__path__):
        try:
            codecs.lookup(module.name)
        except LookupError:
            continue
    mail = email.message_from_bytes(MAIL, policy=email.policy.default)
    body = mail.get_body() if hasattr(mail, "get_body") else None
    [str(value) for value in mail.values()], body and body.get_content()
    parsedate_to_datetime(str(mail["date"]))
