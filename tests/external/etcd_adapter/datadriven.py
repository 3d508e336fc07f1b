"""The file format of cockroachdb/datadriven: directives, input, and the output they must give.

A case is a directive line `cmd arg key=val key=(a,b c)` (`\\` continues it), optional input lines, a line
`----`, and the expected output up to the next blank line. Output that contains blank lines is put between
two lines `----` at its head and two at its end. Blank lines and `#` comments between cases mean nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

_ARGUMENT = re.compile(r"(?P<key>[^\s=()]+)(?:=(?:\((?P<list>[^)]*)\)|(?P<value>[^\s]*)))?")


@dataclass
class Argument:
    key: str
    values: list[str] = field(default_factory=list)


@dataclass
class Case:
    line: int
    command: str
    arguments: list[Argument]
    input: str
    expected: str

    @property
    def where(self) -> str:
        return f"line {self.line}: {self.command}"


def parse_line(text: str) -> tuple[str, list[Argument]]:
    """Split a directive into its command and its arguments."""
    arguments = []
    for match in _ARGUMENT.finditer(text):
        values: list[str] = []
        if match["list"] is not None:
            values = [value for value in re.split(r"[,\s]+", match["list"].strip()) if value]
        elif match["value"]:
            values = [value for value in match["value"].split(",") if value]
        arguments.append(Argument(match["key"], values))
    command, *rest = arguments
    return command.key, rest


def parse_file(path: Path) -> list[Case]:
    """Return the cases of a file, in order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    cases: list[Case] = []
    position = 0
    while position < len(lines):
        line = lines[position].strip()
        position += 1
        if not line or line.startswith("#"):
            continue
        start = position
        while line.endswith("\\"):
            line = line[:-1].rstrip() + " " + lines[position].strip()
            position += 1
        given = []
        while lines[position] != "----":
            given.append(lines[position])
            position += 1
        position += 1
        expected: list[str] = []
        if position < len(lines) and lines[position] == "----":
            position += 1
            while not (lines[position] == "----" and lines[position + 1 : position + 2] == ["----"]):
                expected.append(lines[position])
                position += 1
            position += 2
        else:
            while position < len(lines) and lines[position].strip():
                expected.append(lines[position])
                position += 1
        command, arguments = parse_line(line)
        cases.append(
            Case(start, command, arguments, "\n".join(given), "".join(line + "\n" for line in expected))
        )
    return cases
