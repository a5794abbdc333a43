"""The errors of an export; every message exists in English and Chinese.

ExportError
├── NoSuchModel              the folder, file or hub model does not exist
├── DownloadFailed           the hub answered with an error, or with other bytes than announced
├── UnsupportedModel         readable, but not a network this exporter writes
├── CorruptFile              a file that cannot be parsed or is truncated
├── ShapeMismatch            a tensor is missing or has another shape than config.json says
├── BadTexts                 calibration or verification texts that cannot be used
├── MissingPackage           an optional package is needed for what was asked
├── DisagreesWithCheckpoint  verification failed: the artifact is not written
└── CannotWrite              disk full, or no permission
"""

from server.messages.message import SentenceError


class ExportError(SentenceError):
    """Raised where an export cannot go on; nothing is written."""


class NoSuchModel(ExportError):
    pass


class DownloadFailed(ExportError):
    pass


class UnsupportedModel(ExportError):
    pass


class CorruptFile(ExportError):
    pass


class ShapeMismatch(ExportError):
    pass


class BadTexts(ExportError):
    pass


class MissingPackage(ExportError):
    pass


class DisagreesWithCheckpoint(ExportError):
    pass


class CannotWrite(ExportError):
    pass
