"""Trainings through the real command line, left alone or killed, and what they leave."""

import csv
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path


def zoo(*words: str, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "zoo", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def train(cwd: Path, *words: str) -> dict:
    done = zoo("train", *words, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return outcome(cwd)


def outcome(cwd: Path) -> dict:
    """Metrics without timings, and the rows of metrics.csv."""
    run = cwd / "outputs" / "latest"
    result = json.loads((run / "result.json").read_text())
    timing = ("latency_ms",)
    metrics = {name: value for name, value in result["metrics"].items() if name not in timing}
    with (run / "metrics.csv").open() as file:
        return {
            "metrics": metrics,
            "rows": list(csv.DictReader(file)),
            "weights": (run / "model.safetensors").read_bytes(),
        }


def killed(cwd: Path, *words: str, times: int) -> dict:
    """What a training leaves that is killed so often, each time a little after an epoch, and resumed."""
    chance = random.Random(0)
    command = [sys.executable, "-m", "zoo", "train", *words]
    for _ in range(times):
        process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_an_epoch(cwd, process)
        time.sleep(chance.uniform(0, 0.6))
        process.send_signal(signal.SIGKILL)
        process.wait()
        command = [sys.executable, "-m", "zoo", "train", "resume=latest"]
    return train(cwd, "resume=latest")


def wait_for_an_epoch(cwd: Path, process: subprocess.Popen, limit_s: float = 120) -> None:
    """Until this process has written metrics.csv, or has ended."""
    metrics = cwd / "outputs" / "latest" / "metrics.csv"
    begin, before = time.time(), metrics.stat().st_mtime_ns if metrics.is_file() else 0
    while time.time() - begin < limit_s and process.poll() is None:
        if metrics.is_file() and metrics.stat().st_mtime_ns != before:
            return
        time.sleep(0.02)
