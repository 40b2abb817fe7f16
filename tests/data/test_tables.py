"""Captions and prompts as people and models write them."""

import json

import pytest

from moviegen_core.errors import UsageError
from moviegen_data.captions import caption_records
from moviegen_data.prompts import read_prompts
from moviegen_data.tables import read_table

ODD = "one\u2028two\u2029three\x85four\x0bfive\x0csix\x1cseven"  # `splitlines` breaks at each of these


@pytest.fixture
def written(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", json.dumps({"file": "a.mp4", "caption": ODD}, ensure_ascii=False) + "\r\n\n"),
        ("a.json", json.dumps({"a.mp4": ODD}, ensure_ascii=False)),
        ("a.csv", f"file,caption\na.mp4,{ODD}\n"),
        ("a.csv", f'file,caption\r\na.mp4,"{ODD}"\r\n'),
        ("a.csv", f"\ufefffile,caption\ra.mp4,{ODD}\r"),
        ("a.csv", f"file,caption\na.mp4,{ODD},, \n"),
    ],
)
def test_only_line_ends_end_lines(name, content, written):
    assert caption_records(written(name, content)) == [("a.mp4", {"caption": ODD})]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", f"{ODD}\n\nb\n"),
        ("a.csv", f"prompt\n{ODD}\nb\n"),
        ("a.jsonl", "\n".join(json.dumps({"prompt": text}, ensure_ascii=False) for text in (ODD, "b"))),
    ],
)
def test_prompts_likewise(name, content, written):
    assert [record["prompt"] for record in read_prompts(str(written(name, content)))] == [ODD, "b"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", "file,caption\na.mp4,caf\xe9\n".encode("latin-1"), "they are not UTF-8: byte 22 is 0xe9; save the file as UTF-8"),
        ("a.csv", "file,caption\na.mp4,a ball, red\n", "line 2 has more cells than the header; texts with commas are written in quotes"),
        ("a.csv", 'file,caption\na.mp4,"' + "no end " * 30_000, "they are not csv: field larger than field limit"),
        ("a.jsonl", '{"a": 1}\n{', "they are not jsonl"),
        ("a.json", f'[{{"n": {"1" * 5000}}}]', "they are not json: Exceeds the limit"),
        ("a.jsonl", f'{{"n": {"1" * 5000}}}', "they are not jsonl: Exceeds the limit"),
        ("a.json", "3", "they are not json: int, where a list or a mapping is wanted"),
        ("a.json", '"words"', "they are not json: str, where a list or a mapping is wanted"),
        ("a.json", "[" * 100_000, "they are not json"),
    ],
)
def test_files_that_are_something_else(name, content, told, written):
    with pytest.raises(UsageError, match=told):
        read_table(written(name, content), what="captions")


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "a.csv").symlink_to("/proc/self/mem")  # it can be opened, and reading its first byte is an error of the device
    with pytest.raises(UsageError, match="a.csv were given; they cannot be read: Input/output error; see to the file"):
        read_table(tmp_path / "a.csv", what="captions")
