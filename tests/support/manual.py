"""The builder of the manual, which is a script beside the documents and no package."""

import importlib.util
from functools import cache
from typing import Any

from tests.support.processes import ROOT

BUILD = ROOT / "docs/site/build.py"


@cache
def builder() -> Any:
    """Return the module of docs/site/build.py."""
    spec = importlib.util.spec_from_file_location("manual_builder", BUILD)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
