"""The frame of the command line: fast, without torch, one line for each mistake, the right exit code."""

import os
import subprocess
import sys

import pytest

import zoo.verbs
from tests.journeys.conftest import TINY
from tests.zoo.conftest import zoo_process
from zoo.errors import MissingDependency, UserError
from zoo.parser import load_verb, verb_names

FAST = [
    [], ["--help"], ["--version"], ["list"], ["list", "--json"], ["list", "--help"], ["info", "--help"],
    ["no-such-verb"], ["list", "--no-such-option"], ["info", "no-such-model"], ["completion", "--line", "zoo tr"],
    ["completion", "bash"], ["train", "modle=x"], ["check", "model=no-such-model"], ["train", "--help"],
]  # fmt: skip


@pytest.mark.parametrize("words", FAST, ids=" ".join)
def test_answers_without_torch(words):
    """`benchmarks/startup.py` has the seconds."""
    code = f"import sys; from zoo.cli import main; main({words!r}); sys.exit('torch' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("name", verb_names())
def test_every_verb_documents_itself(name, zoo_command):
    verb = load_verb(name)
    assert "\n" not in verb.ABOUT
    assert verb.ABOUT.endswith(".")
    code, out, _ = zoo_command(name, "--help")
    assert code == 0
    examples = verb.EXAMPLES.strip().splitlines()
    assert examples
    for line in examples:
        assert line in out
        assert f"zoo {name}" in line or "zoo train" in line, "an example shows the verb, or what follows from it"


def test_help_lists_every_verb(zoo_command):
    code, out, err = zoo_command("--help")
    assert code == 0
    assert not err
    for name in verb_names():
        assert f"  {name} " in out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["lsit"], "error: unknown verb 'lsit': did you mean list?"),
        (["--verion"], "error: unknown option --verion: did you mean --version?"),
        (["list", "--jsn"], "unknown option --jsn: did you mean --json?"),
        (["list", "--family"], "argument --family: expected one argument"),
        (["list", "--family", "concpt"], "error: unknown family 'concpt': did you mean concept?"),
        (["list", "a", "b"], "unexpected argument 'b'"),
        (["list", "--json", "--markdown"], "not allowed with argument"),
        (["info"], "the following arguments are required: NAME"),
        (["cp", "cbm"], "the following arguments are required: DEST"),
    ],
)
def test_usage_errors_are_one_line(words, line, zoo_command):
    code, out, err = zoo_command(*words)
    assert code == 2
    assert not out
    assert len(err) == 1
    assert err[0].startswith("error: ")
    assert line in err[0]


def test_every_unknown_word_has_its_line(zoo_command):
    code, _, err = zoo_command("list", "--jsn", "--famly=concept")
    assert code == 2
    assert [line.split(": did")[0].rsplit(" ", 1)[-1] for line in err] == ["--jsn", "--famly"]


@pytest.fixture
def verb(monkeypatch, tmp_path):
    """Add a verb file to the command line: `verb(body of run)`; a verb needs no registration."""

    def add(body: str) -> None:
        text = (
            "ABOUT = 'A.'\nEXAMPLES = 'zoo try-it'\nfrom zoo.errors import *\n"
            "def add_arguments(parser): parser.add_argument('words', nargs='*'); parser.add_argument('--flag')\n"
            f"def run(args):\n    {body}\n"
        )
        (tmp_path / "try_it.py").write_text(text)

    monkeypatch.setattr(zoo.verbs, "__path__", [*zoo.verbs.__path__, str(tmp_path)])
    yield add
    sys.modules.pop("zoo.verbs.try_it", None)


@pytest.mark.parametrize(
    ("body", "code", "lines"),
    [
        ("return None", 0, []),
        ("return 4", 4, []),
        ("raise UserError('first', 'second')", 2, ["error: first", "error: second"]),
        ("raise CheckFailed('parity: 0.1')", 4, ["error: parity: 0.1"]),
        ("raise ValueError('weight=-1: give 0 or more')", 2, ["error: weight=-1: give 0 or more"]),
        ("raise KeyboardInterrupt", 130, ["interrupted"]),
        (
            "raise OSError(28, 'No space left on device')",
            1,
            [
                "zoo try-it failed: OSError: [Errno 28] No space left on device "
                "(run again with --debug for the traceback)"
            ],
        ),
        (
            "e = RuntimeError('two\\nlines'); e.add_note('log: run/train.log'); raise e",
            1,
            ["zoo try-it failed: RuntimeError: two lines (log: run/train.log)"],
        ),
        (
            "import base64; base64.b64decode('a')",
            1,
            [
                "zoo try-it failed: Error: Invalid base64-encoded string: number of data characters (1) cannot be 1 "
                "more than a multiple of 4 (run again with --debug for the traceback)"
            ],
        ),
        ("import sys; sys.exit(7)", 7, []),
    ],
)
def test_what_goes_wrong_becomes_lines_and_a_code(verb, zoo_command, body, code, lines):
    verb(body)
    assert zoo_command("try-it")[::2] == (code, lines)


def test_missing_dependency(verb, zoo_command):
    verb("raise MissingDependency('onnx', 'export', 'export to ONNX')")
    code, _, err = zoo_command("try-it")
    assert code == MissingDependency.exit_code == 3
    assert err == ["error: export to ONNX needs the package onnx: pip install 'bottleneck-zoo[export]'"]


def test_debug_shows_the_traceback(verb, zoo_command):
    verb("raise RuntimeError('deep')")
    for words in (["--debug", "try-it"], ["try-it", "--debug"]):
        code, _, err = zoo_command(*words)
        assert code == 1
        assert err[0] == "Traceback (most recent call last):"
        assert "RuntimeError: deep" in err


def test_options_and_words_in_any_order(verb, zoo_command):
    verb("print(args.words, args.flag)")
    assert zoo_command("try-it", "a=1", "--flag", "x", "b=-2", "~c")[1] == "['a=1', 'b=-2', '~c'] x\n"


def test_the_process_exits_with_the_code():
    finished = zoo_process("lsit")
    assert finished.returncode == 2
    assert finished.stderr == "error: unknown verb 'lsit': did you mean list?\n"
    assert "usage: python -m zoo VERB" in zoo_process().stdout


def test_a_reader_that_leaves_is_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "zoo", "--help"]
    finished = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert finished.stderr == ""
    assert finished.returncode == 1


@pytest.mark.parametrize("words", ["list", "list --json", "--help", "no-such-verb"])
@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_failure(words, closed):
    command = f"exec {sys.executable} -m zoo {words} {closed}"
    finished = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    wrong = words == "no-such-verb"
    assert finished.returncode == (2 if wrong else 0)
    assert len(finished.stderr.splitlines()) == (1 if wrong and closed == ">&-" else 0)


def test_a_current_folder_that_is_gone(zoo_command, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()
    code, _, err = zoo_command("check", "data=shapes")
    monkeypatch.chdir(tmp_path)
    assert (code, err) == (2, ["error: the current folder is gone: change to another one (cd)"])


def test_a_training_whose_reader_leaves_ends_without_a_traceback(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    words = [*TINY, f"output_dir={tmp_path}"]
    command = [sys.executable, "-m", "zoo", "train", *words]
    finished = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (finished.returncode, finished.stderr) == (1, "")
    assert (tmp_path / "latest" / "result.json").is_file()


def test_user_error_of_several_lines():
    assert UserError("a", "b").lines == ("a", "b")
