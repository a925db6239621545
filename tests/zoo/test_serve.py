"""serve: what it refuses before it serves anything; the page is driven by tests/journeys/test_serve.py."""

import importlib.util

import pytest


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_bad_port(zoo_command, port):
    code, _, err = zoo_command("serve", "latest", f"--port={port}")
    assert (code, len(err)) == (2, 1)
    assert "is no port: give 0 to 65535" in err[0]


def test_missing_library_is_one_line_that_installs_it(zoo_command, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "nicegui" else real(name))
    code, _, err = zoo_command("serve", "latest")
    assert (code, err) == (3, ["error: serve needs the package nicegui: pip install 'bottleneck-zoo[demo]'"])


def test_model_without_concepts(zoo_command, split_run):
    pytest.importorskip("nicegui", reason="needs the extra demo: pip install 'bottleneck-zoo[demo]'")
    code, _, err = zoo_command("serve", str(split_run), "--no-browser")
    assert (code, len(err)) == (2, 1)
    assert "no named concepts to correct: python -m zoo explain shows where" in err[0]


def test_an_address_that_cannot_be_is_told_with_the_other_mistakes(zoo_command, split_run):
    pytest.importorskip("nicegui", reason="needs the extra demo: pip install 'bottleneck-zoo[demo]'")
    for source, other in {str(split_run): "no named concepts", "nope": "'nope' is neither a run nor"}.items():
        code, _, err = zoo_command("serve", source, "--host", "192.0.2.1", "--no-browser")
        assert (code, len(err)) == (2, 2)
        assert other in err[0]
        assert "--host 192.0.2.1 --port 0: " in err[1]
