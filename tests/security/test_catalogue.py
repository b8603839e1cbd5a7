"""Every case H001-H118 of the hostile-input catalogue has a test with its number, and a row in docs/security.md.

`python tests/security/test_catalogue.py` writes the table's last column anew.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
DOCUMENT = TESTS.parent / "docs" / "security.md"
NUMBERS = tuple(f"H{number:03d}" for number in range(1, 119))
SHOWN = 3  # tests a row names; the number finds the others
_ROW = re.compile(r"^\| (H\d{3}) \| ([^|]+) \| ?([^|]*)\|$", re.MULTILINE)
_NAME = re.compile(r"`([\w/.]+)::(\w+)`")


def named_after() -> dict[str, list[str]]:
    """number -> `file::test` of every test function whose name holds it."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                for number in re.findall(r"(?<=_)H\d{3}(?=_)", node.name):
                    found.setdefault(number, []).append(f"{path.relative_to(TESTS).as_posix()}::{node.name}")
    return found


def table(text: str, found: dict[str, list[str]]) -> str:
    """The document with the last column of its table written anew."""

    def row(match: re.Match[str]) -> str:
        tests = found.get(match[1], [])
        more = f" and {len(tests) - SHOWN} more" if len(tests) > SHOWN else ""
        return f"| {match[1]} | {match[2]} | {', '.join(f'`{test}`' for test in tests[:SHOWN])}{more} |"

    return _ROW.sub(row, text)


def test_every_number_has_a_test_named_after_it() -> None:
    found = named_after()
    assert [number for number in NUMBERS if not found.get(number)] == []


def test_the_table_has_a_row_for_every_number_and_names_tests_that_exist() -> None:
    rows = {match[1]: match[3] for match in _ROW.finditer(DOCUMENT.read_text(encoding="utf-8"))}
    assert tuple(sorted(rows)) == NUMBERS
    found = named_after()
    wrong = []
    for number, tests in rows.items():
        named = [f"{path}::{name}" for path, name in _NAME.findall(tests)]
        if not named or not set(named) <= set(found.get(number, ())):
            wrong.append(f"{number}: {tests.strip() or 'no test'}")
    assert not wrong, "python tests/security/test_catalogue.py writes the table anew:\n" + "\n".join(wrong)


def test_a_number_without_a_test_is_seen() -> None:
    row = "| H001 | a case | |\n"
    assert table(row, {}) == "| H001 | a case |  |\n"
    assert "`a.py::test_H001_x`" in table(row, {"H001": ["a.py::test_H001_x"]})


if __name__ == "__main__":
    DOCUMENT.write_text(table(DOCUMENT.read_text(encoding="utf-8"), named_after()), encoding="utf-8")
