"""Tables are plain text in a pipe; colours only on terminals that want them."""

import io
import re
import sys

import pytest

from zoo.terminal import print_json, print_table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(monkeypatch, stream: io.StringIO) -> str:
    monkeypatch.setattr(sys, "stdout", stream)
    print_table(["name", "value"], [("a[b]", 1.23456), ("cc", None)], title="figures")
    return stream.getvalue()


def test_plain_in_a_pipe(monkeypatch):
    assert printed(monkeypatch, io.StringIO()) == "figures\nname  value\na[b]  1.235\ncc    -\n"


def test_a_row_is_a_line_whatever_a_file_is_called(capsys):
    print_table(["image"], [["new\nline.png"], ["ünï\x1b.png"]])
    assert capsys.readouterr().out.splitlines() == ["image", "new\\nline.png", "ünï\\x1b.png"]


def test_numbers_are_aligned_to_the_right(capsys):
    print_table(["n"], [(1,), (100,)])
    assert capsys.readouterr().out == "  n\n  1\n100\n"


@pytest.mark.parametrize("no_color", [False, True])
def test_terminal(monkeypatch, no_color):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    text = printed(monkeypatch, Terminal())
    assert "a[b]" in text
    assert "━" in text
    colours = re.findall(r"\x1b\[(?:\d;)*(?:[34][0-8]|9[0-7])[;m]", text)
    assert not colours or not no_color


def test_json(capsys, tmp_path):
    print_json({"path": tmp_path, "text": "ä"})
    assert capsys.readouterr().out == f'{{\n  "path": "{tmp_path}",\n  "text": "ä"\n}}\n'
