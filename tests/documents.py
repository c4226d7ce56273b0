"""The documents as the tests read them: fenced blocks, code in the text, and the commands in both."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from include.mltrading.configuration.settings import PROJECT_ROOT

DOCUMENTS = [*sorted(PROJECT_ROOT.glob("*.md")), *sorted((PROJECT_ROOT / "docs").rglob("*.md"))]
_ASSIGNMENT = re.compile(r"[A-Z_]+=")


def parts(path: Path) -> Iterator[tuple[str | None, str]]:
    """The text between fenced blocks with None, and each block with its language."""
    for index, part in enumerate(re.split(r"^\s*```", path.read_text(encoding="utf-8"), flags=re.MULTILINE)):
        language, _, block = part.partition("\n")
        yield (language.strip(), block) if index % 2 else (None, part)


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks in that language."""
    return [block for found, block in parts(path) if found == language]


def spans(path: Path) -> list[str]:
    """What stands between backticks in the text, each on one line."""
    texts = (text for language, text in parts(path) if language is None)
    return [" ".join(span.split()) for text in texts for span in re.findall(r"`([^`]+)`", text)]


def commands(script: str) -> Iterator[list[str]]:
    """The words of each simple command of a shell script, without variables that are set for it.

    Raises ValueError where a quotation does not end.
    """
    begun = ""
    for line in script.replace("\\\n", " ").splitlines():
        begun = f"{begun}\n{line}" if begun else line
        try:
            words = _words(begun)
        except ValueError:
            continue  # a quotation goes on in the next line
        begun = ""
        command: list[str] = []
        for word in [*words, ";"]:
            if word not in (";", "&&", "||", "|"):
                command.append(word)
            elif command:
                yield _without_assignments(command)
                command = []
    if begun:
        raise ValueError(f"a quotation does not end: {begun}")


def _words(text: str) -> list[str]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split = True
    return list(lexer)


def _without_assignments(command: list[str]) -> list[str]:
    while command and _ASSIGNMENT.match(command[0]):
        command = command[1:]
    return command


def typed(path: Path, programs: set[str]) -> Iterator[list[str]]:
    """The commands of the shell blocks, and those of the text that begin with one of the programs."""
    for block in blocks(path, "sh"):
        yield from (command for command in commands(block) if command)
    for span in spans(path):
        words = _without_assignments(span.split())
        if len(words) > 1 and words[0] in programs:
            yield from commands(span)
