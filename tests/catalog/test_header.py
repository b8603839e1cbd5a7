"""Headers of .safetensors files: the valid are read exactly, the hostile are refused quickly and by name."""

from __future__ import annotations

import json
import os
import socket
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedded import EMBEDDED_CHECKPOINT
from model_files import header_json, write_entries, write_model, write_raw
from safetensors import safe_open
from safetensors.numpy import save_file

from webui.catalog.header import MAX_METADATA_SIZE, MAX_TENSORS, read_header
from webui.errors import BadModelFile, ModelNotFound


def tensor(start: int = 0, end: int = 4, dtype: Any = "F16", shape: Any = (2,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def refused(path: Path, words: str) -> str:
    """The one sentence with which the file is refused; it must hold `words`, and no path of this machine."""
    with pytest.raises(BadModelFile, match=words) as caught:
        read_header(path)
    assert str(path.parent) not in str(caught.value)
    return caught.value.message


def peak_memory(work: Callable[[], object]) -> int:
    """The most memory that Python objects took meanwhile, in bytes."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# What is valid -----------------------------------------------------------------------------------------------------


def test_the_embedded_checkpoint_is_read_as_the_safetensors_library_reads_it():
    header = read_header(EMBEDDED_CHECKPOINT)
    with safe_open(EMBEDDED_CHECKPOINT, "np") as library:
        assert set(header.tensors) == set(library.keys())
        assert header.metadata == library.metadata()
        for name in ("alphas_cumprod", "first_stage_model.decoder.conv_in.bias", "model.diffusion_model.out.2.weight"):
            values = library.get_tensor(name)
            start, end = header.byte_range(name)
            with EMBEDDED_CHECKPOINT.open("rb") as file:
                file.seek(start)
                assert file.read(end - start) == values.tobytes()
            assert header.tensors[name].shape == values.shape


def test_every_type_that_numpy_has_is_read(path: Path):
    types = ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32")
    arrays = {name: np.ones((2, 3), name) for name in (*types, "float64")}
    arrays |= {"scalar": np.array(7.0, "float32"), "empty": np.zeros((0, 4), "float32")}
    save_file(arrays, path, metadata={"title": 'ü " \\ \n'})
    header = read_header(path)
    assert {name: info.shape for name, info in header.tensors.items()} == {n: a.shape for n, a in arrays.items()}
    assert header.metadata == {"title": 'ü " \\ \n'}
    assert header.file_size == path.stat().st_size


def test_a_header_padded_with_blanks_or_laid_out_on_lines_is_read(path: Path):
    text = json.dumps({"a": tensor(), "__metadata__": {}, "b": tensor(4, 8)}, indent=2).encode() + b"   "
    header = read_header(write_raw(path, text, 8))
    assert header.byte_range("b") == (8 + len(text) + 4, 8 + len(text) + 8)


def test_a_file_without_tensors_is_valid(path: Path):
    assert read_header(write_raw(path, b"{}")).tensors == {}


def test_as_many_tensors_as_the_limit_are_read_and_one_more_is_not(path: Path):
    shapes = {f"t{i}": (0,) for i in range(MAX_TENSORS)}
    assert len(read_header(write_model(path, shapes)).tensors) == MAX_TENSORS
    refused(write_model(path, {**shapes, "more": (0,)}), "more than 50,000 tensors")


# What is hostile or broken -----------------------------------------------------------------------------------------


def test_H001_an_empty_file_is_refused(path: Path):
    path.touch()
    refused(path, "empty")


def test_H002_seven_bytes_are_refused(path: Path):
    path.write_bytes(b"\x10" + b"\0" * 6)
    refused(path, "incomplete")


@pytest.mark.parametrize("claim", [2**63, 2**64 - 1, 101 * 2**20, 32 * 2**20 + 1, 0, 1])
def test_H003_H004_a_header_of_impossible_length_is_refused_without_reading_it(path: Path, claim: int):
    write_raw(path, b"{}", 100, length=claim)
    assert peak_memory(lambda: refused(path, "header")) < 2**20


def test_H005_a_header_longer_than_the_file_is_an_incomplete_download(path: Path):
    refused(write_raw(path, b'{"a":', length=1000), "incomplete")


@pytest.mark.parametrize(
    "text",
    ["nonsense!", '{"a":', '{"a" {}}', '{"a":{}', "{,}", '{"__metadata__":{"a":"b",}}', '{"a\n":1}', '{"a":{"dtype"}}'],
)
def test_H006_a_header_that_is_not_json_is_refused(path: Path, text: str):
    refused(write_raw(path, text.encode()), "not a valid")


def test_H006_json_after_the_json_is_refused(path: Path):
    refused(write_raw(path, b"{} {}"), "something follows")


@pytest.mark.parametrize("nest", ['{"a":' * 100_000, '{"a":{"dtype":' + "[" * 2000 + "}", '{"__metadata__":' * 1000])
def test_H006_nesting_is_refused_without_recursion(path: Path, nest: str):
    refused(write_raw(path, nest.encode()), "not a valid")


def test_H007_a_header_that_is_not_utf8_is_refused(path: Path):
    refused(write_raw(path, b'{"\xff\xfe":{}}'), "UTF-8")


@pytest.mark.parametrize("text", [b"[]", b"null", b'"a"', b"12", b" {}"])
def test_H008_a_header_that_is_no_object_is_refused(path: Path, text: bytes):
    refused(write_raw(path, text), "not a JSON object")


def test_H009_overlapping_tensors_are_refused(path: Path):
    refused(write_entries(path, {"a": tensor(0, 4), "b": tensor(2, 6)}, 6), "overlaps")


def test_H010_a_hole_between_tensors_is_refused(path: Path):
    refused(write_entries(path, {"a": tensor(0, 4), "b": tensor(6, 10)}, 10), "hole")
    refused(write_entries(path, {"a": tensor(2, 6)}, 6), "hole")


def test_H011_a_tensor_given_twice_is_refused(path: Path):
    twice = f'{{"a":{json.dumps(tensor(0, 4))},"a":{json.dumps(tensor(4, 8))}}}'
    refused(write_entries(path, twice, 8), "twice")


def test_H012_a_tensor_given_twice_in_the_same_place_with_another_type_is_refused(path: Path):
    twice = f'{{"a":{json.dumps(tensor())},"a":{json.dumps(tensor(dtype="I16"))}}}'
    refused(write_entries(path, twice, 4), "twice")


def test_H012_keys_given_twice_inside_are_refused(path: Path):
    inner = '{"a":{"dtype":"F16","dtype":"F16","shape":[2],"data_offsets":[0,4]}}'
    refused(write_entries(path, inner, 4), "not dtype, shape")
    refused(write_entries(path, '{"__metadata__":{"a":"1","a":"2"}}'), "twice")
    refused(write_entries(path, '{"__metadata__":{},"__metadata__":{}}'), "two metadata")


@pytest.mark.parametrize("offsets", [(-4, 0), (4, 0), (0, 4, 8), (0,), (0.0, 4.0), (0, "4"), (False, True), (0, 2**64)])
def test_H013_H014_offsets_that_are_no_range_are_refused(path: Path, offsets: tuple[Any, ...]):
    entry = {"dtype": "F16", "shape": [2], "data_offsets": list(offsets)}
    refused(write_entries(path, {"a": entry}, 16), "not a range|disagree")


def test_H015_a_tensor_past_the_end_is_an_incomplete_download(path: Path):
    refused(write_entries(path, {"a": tensor(0, 4)}, 3), "incomplete")


def test_H016_bytes_after_the_last_tensor_are_refused(path: Path):
    refused(write_entries(path, {"a": tensor(0, 4)}, 5), "follow its last tensor")


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F6_E3M2", "F8_E8M0", "C64", "Q4", "f16", "", 16, None, [], {}])
def test_H017_types_that_are_not_on_the_list_are_refused(path: Path, dtype: Any):
    refused(write_entries(path, {"a": tensor(dtype=dtype)}, 4), "type|does not|not dtype|not valid JSON")


def test_H018_a_shape_that_does_not_match_its_bytes_is_refused(path: Path):
    refused(write_entries(path, {"a": tensor(shape=(3,))}, 4), "disagree")
    refused(write_entries(path, {"a": tensor(shape=(0,))}, 4), "disagree")
    refused(write_entries(path, {"a": tensor(0, 0, shape=(1,))}, 0), "disagree")


@pytest.mark.parametrize("shape", [(2**40, 2**40), (2**62, 2), (2**63,), (10**4000,), (2**32, 2**32, 2)])
def test_H019_a_shape_whose_product_overflows_is_refused(path: Path, shape: tuple[int, ...]):
    refused(write_entries(path, {"a": tensor(shape=shape)}, 4), "large|not a list of sizes|does not end")


@pytest.mark.parametrize("shape", [(2.0,), (-2,), ("2",), (True, 2), (None,), (float("nan"),), ([2],), (1,) * 17])
def test_H020_a_shape_that_is_no_list_of_sizes_is_refused(path: Path, shape: tuple[Any, ...]):
    refused(write_entries(path, {"a": tensor(shape=shape)}, 4), "not a list of sizes")


def test_H020_a_shape_that_is_no_list_is_refused(path: Path):
    entry = {"dtype": "F16", "shape": {"0": 2}, "data_offsets": [0, 4]}
    refused(write_entries(path, {"a": entry}, 4), "not a list|not valid JSON")


def test_H021_a_million_empty_tensors_are_refused_before_the_header_is_read(path: Path):
    entries = ",".join(f'"{i}":{{"dtype":"F16","shape":[0],"data_offsets":[0,0]}}' for i in range(1_000_000))
    write_raw(path, f"{{{entries}}}".encode())
    assert peak_memory(lambda: refused(path, "claims a header of 5")) < 2**20


def test_H021_a_header_within_its_size_is_refused_at_the_first_tensor_too_many(path: Path):
    entries = ",".join(f'"{i}":{{"dtype":"F16","shape":[0],"data_offsets":[0,0]}}' for i in range(MAX_TENSORS + 1))
    write_raw(path, f"{{{entries},and then no JSON".encode() + b"x" * 20 * 2**20)
    refused(path, "more than 50,000 tensors")


def test_H022_metadata_of_50_mb_is_refused_before_it_is_read(path: Path):
    write_raw(path, b'{"__metadata__":{"a":"' + b"x" * (50 * 2**20) + b'"}}')
    assert peak_memory(lambda: refused(path, "claims a header")) < 2**20


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'"a":"' + b"x" * (20 * 2**20) + b'"', "larger than 16 MB"),
        (b",".join(b'"%d":""' % i for i in range(10**5 + 1)), "more than 100,000 entries"),
    ],
)
def test_H022_metadata_above_its_limit_is_refused_where_the_limit_is(path: Path, text: bytes, words: str):
    refused(write_raw(path, b'{"__metadata__":{' + text + b" and so on"), words)


def test_H022_metadata_just_below_the_limit_is_read(path: Path):
    header = read_header(write_raw(path, b'{"__metadata__":{"a":"' + b"x" * (MAX_METADATA_SIZE - 100) + b'"}}'))
    assert len(header.metadata["a"]) == MAX_METADATA_SIZE - 100


@pytest.mark.parametrize(
    "metadata", [tensor(0, 0, shape=(0,)), {"a": 1}, {"a": None}, {"a": {"b": "c"}}, {"a": ["b"]}, [], "text", None, 1]
)
def test_H023_metadata_that_is_not_a_mapping_of_texts_is_refused(path: Path, metadata: Any):
    refused(write_entries(path, {"__metadata__": metadata}), "not valid JSON|other than texts")


def test_H024_markup_in_metadata_is_handed_on_as_the_text_it_is(path: Path):
    hostile = {
        "modelspec.title": "<img src=x onerror=alert(1)>",
        "ss_output_name": "'\"><script>",
        "a": "\u0000\u001b[2J",
    }
    assert read_header(write_model(path, {"a": (1,)}, hostile)).metadata == hostile


@pytest.mark.parametrize("name", ["../../etc/passwd", "__class__.__init__.__globals__", "a b", "model/weight", "Größe"])
def test_H025_odd_tensor_names_are_names_and_nothing_else(path: Path, name: str):
    assert set(read_header(write_model(path, {name: (1,)})).tensors) == {name}


@pytest.mark.parametrize(
    "name", ["a" * 2**20, "a" * 513, "", "a\0b", "a\nb", "\x1b[2J", "\u202egnp", "a\u200bb", "\ud800"]
)
def test_H025_tensor_names_that_are_long_or_invisible_are_refused(path: Path, name: str):
    refused(write_model(path, {name: (1,)}), "tensor name")


def test_H032_a_pipe_is_refused_without_waiting_for_its_other_end(path: Path):
    os.mkfifo(path)
    refused(path, "not a regular file")


def test_H032_a_socket_is_refused(path: Path):
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.bind(str(path))
        except OSError:
            pytest.skip("the temporary folder's path is too long for a socket")
        refused(path, "not a regular file")


def test_H032_a_device_is_refused(path: Path):
    path.symlink_to("/dev/zero")
    refused(path, "not a regular file")


def test_H032_a_folder_is_refused(path: Path):
    path.mkdir()
    refused(path, "folder")


def test_H032_a_link_that_leads_nowhere_is_reported_as_missing(path: Path):
    path.symlink_to(path.with_name("gone.safetensors"))
    with pytest.raises(ModelNotFound, match="leads nowhere"):
        read_header(path)


def test_H032_a_loop_of_links_is_refused(path: Path):
    path.symlink_to(path)
    refused(path, "cannot be opened")


def test_H032_a_link_to_a_file_elsewhere_is_followed(path: Path, tmp_path: Path):
    write_model(tmp_path / "elsewhere" / "real.bin", {"a": (1,)})
    path.symlink_to(tmp_path / "elsewhere" / "real.bin")
    assert set(read_header(path).tensors) == {"a"}


def test_a_file_that_is_not_there_is_reported_as_missing(path: Path):
    with pytest.raises(ModelNotFound, match="does not exist"):
        read_header(path)


def test_H039_H050_files_of_another_kind_are_called_by_their_name(path: Path):
    for content, words in (
        (b"<!DOCTYPE html><html>Please log in</html>", "web page"),
        (b"\n <html>", "web page"),
        (b"PK\x03\x04" + b"\0" * 60, "pickle"),
        (b"\x80\x02}q\x00X\x05\x00\x00\x00state", "pickle"),
        (b"GGUF\x03\0\0\0" + b"\0" * 60, "GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS"),
    ):
        path.write_bytes(content)
        refused(path, words)


def test_every_truncation_of_a_valid_file_is_refused(path: Path):
    text, size = header_json({"a": (3,), "b": (2, 2)}, {"title": "x"})
    whole = len(text) + 8 + size
    for length in range(whole):
        write_raw(path, text, size)
        os.truncate(path, length)
        refused(path, "incomplete|empty")
    write_raw(path, text, size)
    read_header(path)


def test_every_single_byte_change_is_read_or_refused_but_never_a_crash(path: Path):
    text, size = header_json({"a": (3,), "b": (2, 2)}, {"t": "x"})
    original = len(text).to_bytes(8, "little") + text + b"\0" * size
    outcomes = set()
    for position in range(8 + len(text)):
        for value in (0, 0x22, 0x2D, 0x7B, 0x7D, 0xFF):
            path.write_bytes(original[:position] + bytes([value]) + original[position + 1 :])
            try:
                read_header(path)
                outcomes.add("read")
            except BadModelFile:
                outcomes.add("refused")
    assert outcomes == {"read", "refused"}
