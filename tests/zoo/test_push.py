"""push: the card and the files are shown before anything leaves the machine; every refusal is one line."""

import json

import pytest

INFO = {
    "name": "cbm",
    "task": "classification",
    "class_names": ["a", "b"],
    "concept_names": ["c"],
    "preprocessing": {},
    "data": "digits",
}


@pytest.fixture
def run_folder(tmp_path, small_catalogue):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"12345")
    (folder / "model.json").write_text(json.dumps(INFO))
    (folder / "result.json").write_text(json.dumps({"run": "/home/me/run", "metrics": {"acc": 0.9}}))
    (folder / "config.yaml").write_text("data: {root: /home/me/photos}")
    return folder


@pytest.fixture
def online(monkeypatch):
    for name in ("ZOO_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


def test_dry_run_prints_card_and_files(zoo_command, run_folder):
    code, out, err = zoo_command("push", str(run_folder), "org/name", "--dry-run")
    assert (code, err) == (0, [])
    assert out.startswith("---\ntags:")
    assert 'snapshot_download("org/name")' in out
    listed = out.split("would upload to https://huggingface.co/org/name:\n")[1].splitlines()
    assert [line.split()[0] for line in listed] == ["model.safetensors", "model.json", "result.json", "README.md"]
    assert listed[0] == "  model.safetensors  5 bytes"
    assert "/home/me" not in out


def test_without_a_token(zoo_command, run_folder, online, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    code, _, err = zoo_command("push", str(run_folder), "org/name")
    assert (code, len(err)) == (2, 1)
    assert "no Hub token" in err[0]


def test_offline(zoo_command, run_folder, monkeypatch):
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    code, _, err = zoo_command("push", str(run_folder), "org/name")
    assert (code, len(err)) == (2, 1)
    assert "unset it" in err[0]


class Hub:
    """Stands for huggingface_hub.HfApi."""

    sent: dict[str, bytes]

    def create_repo(self, repo, *, private, exist_ok):
        Hub.created = (repo, private, exist_ok)

    def create_commit(self, repo, operations, *, commit_message):
        Hub.sent = {}
        for operation in operations:
            with operation.as_file() as file:
                Hub.sent[operation.path_in_repo] = file.read()
        return type("Commit", (), {"commit_url": "https://huggingface.co/org/name/commit/1"})


def test_upload_is_one_commit_without_local_paths(zoo_command, run_folder, online, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "x")
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    code, out, err = zoo_command("push", str(run_folder), "org/name", "--private")
    assert (code, out, err) == (0, "https://huggingface.co/org/name/commit/1\n", [])
    assert Hub.created == ("org/name", True, True)
    assert Hub.sent.keys() == {"model.safetensors", "model.json", "result.json", "README.md"}
    assert json.loads(Hub.sent["result.json"]) == {"metrics": {"acc": 0.9}}
    assert not any(b"/home/me" in content for content in Hub.sent.values())


def test_the_hub_refuses(zoo_command, run_folder, online, monkeypatch):
    class Refusing(Hub):
        def create_repo(self, *_, **__):
            raise OSError("403 Forbidden:\nno right to write")

    monkeypatch.setattr("huggingface_hub.get_token", lambda: "x")
    monkeypatch.setattr("huggingface_hub.HfApi", Refusing)
    code, _, err = zoo_command("push", str(run_folder), "org/name")
    assert (code, err) == (1, ["error: the Hub refused org/name: 403 Forbidden: no right to write"])


@pytest.mark.parametrize("repo", ["name", "org/name/more", "org//name", "-/x", "org/na me"])
def test_bad_repo_names(zoo_command, run_folder, repo):
    code, _, err = zoo_command("push", "--dry-run", str(run_folder), "--", repo)
    assert (code, len(err)) == (2, 1), err
    assert err[0].startswith("error: REPO: ")


def test_an_unfinished_run_and_no_run(zoo_command, run_folder, tmp_path):
    for name in ("model.json", "model.safetensors"):
        (run_folder / name).unlink()
    code, _, err = zoo_command("push", str(run_folder), "org/name", "--dry-run")
    assert code == 2
    assert len(err) == 2
    assert all("finish the training first" in line for line in err)
    code, _, err = zoo_command("push", str(tmp_path / "absent"), "org/name", "--dry-run")
    assert (code, len(err)) == (2, 1)
    assert "there is no such folder" in err[0]
