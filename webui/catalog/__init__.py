"""What model files exist, what each of them is, and which one a name means. No torch."""

from webui.catalog.catalog import Catalog
from webui.catalog.completion import can_run
from webui.catalog.families import Family
from webui.catalog.header import Header, TensorInfo, read_header
from webui.catalog.models import ModelFile, VaeChoice
from webui.catalog.sidecar import Sidecar, TextDims, UnetDims, UserNotes, VaeDims
from webui.catalog.snapshot import Snapshot

__all__ = [
    "Catalog",
    "Family",
    "Header",
    "ModelFile",
    "Sidecar",
    "Snapshot",
    "TensorInfo",
    "TextDims",
    "UnetDims",
    "UserNotes",
    "VaeChoice",
    "VaeDims",
    "can_run",
    "read_header",
]
