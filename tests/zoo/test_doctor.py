"""doctor: what this machine can run, as text and as JSON; problems end in exit code 4."""

import json

import torch

from zoo.verbs import doctor


def test_json(zoo_command):
    code, out, err = zoo_command("doctor", "--json")
    assert not err
    found = json.loads(out)
    assert found["versions"]["torch"] == torch.__version__.split("+")[0]
    assert found["devices"][0].startswith("cpu")
    assert found["kernels"].keys() >= {"attention"}
    assert found["kernels"]["attention"]["cpu"] in ("ATen", "Triton's interpreter")
    assert (found["kernels"]["attention"]["gpu"] is None) == (not torch.cuda.is_available())
    assert all(free > 0 for free in found["disk_free"].values())
    assert code == (4 if found["problems"] else 0)


def test_text(zoo_command, monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(doctor, "LOW_DISK", 0)
    code, out, _ = zoo_command("doctor")
    assert code == 0
    assert f"cache     {tmp_path / 'cache'}" in out
    assert "nothing is wrong" in out
    assert not (tmp_path / "cache").exists()


def test_problems(zoo_command, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(doctor, "LOW_DISK", 1 << 60)
    monkeypatch.setattr(doctor, "ALTERED", (doctor._installed("pytorch-lightning"),))
    code, out, _ = zoo_command("doctor")
    assert code == 4
    problems = [line for line in out.splitlines() if line.startswith("problem ")]
    assert len(problems) == 4
    assert "altered by a third party" in problems[0]
    assert "set ZOO_HOME to another one" in problems[1]
    assert "are free" in problems[2]


def test_a_gpu(monkeypatch):
    properties = type("Properties", (), {"name": "H100", "major": 9, "minor": 0, "total_memory": 80 << 30})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "H100")
    assert doctor._accelerators() == ["cuda:0 H100, sm_90, 81,920 MiB"]
    assert doctor._kernels()["attention"]["gpu"].startswith(("Triton", "ATen ("))
