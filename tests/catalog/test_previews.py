"""Pictures beside models: a preview is never written over the model that it shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_files import folders, kohya_lora, write_model

from webui.catalog import Catalog
from webui.catalog.previews import preview_of, write_preview


@pytest.mark.parametrize("name", ["glow.png", "glow.webp", "glow.jxl"])
def test_the_preview_of_an_embedding_that_is_a_picture_is_a_file_of_its_own(tmp_path: Path, name: str):
    paths = folders(tmp_path)
    file = paths.embeddings[0] / name
    file.write_bytes(b"the embedding")
    catalog = Catalog(paths)
    (model,) = catalog.embeddings
    assert preview_of(model) == (None if name == "glow.jxl" else file)  # a picture shows itself, where it can be shown
    written = write_preview(model, b"a picture")
    catalog.refresh()
    assert file.read_bytes() == b"the embedding"
    assert preview_of(model) == written == file.with_name("glow.preview.png")
    assert [m.name for m in catalog.embeddings] == [name]


def test_the_preview_of_any_other_model_has_its_name(tmp_path: Path):
    paths = folders(tmp_path)
    write_model(paths.loras[0] / "film.safetensors", kohya_lora())
    (model,) = Catalog(paths).loras
    assert preview_of(model) is None
    assert write_preview(model, b"a picture") == paths.loras[0] / "film.png" == preview_of(model)
