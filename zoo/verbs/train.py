"""`train`: fit a model, test its best weights, and leave a run folder."""

import argparse
import json
import subprocess
import sys
from contextlib import nullcontext, redirect_stdout
from typing import Any

from zoo.errors import UserError

ABOUT = "Train a model, test its best weights, and write a run folder with a report."
EXAMPLES = """
python -m zoo train
python -m zoo train model=vib data=shapes trainer.max_epochs=10
python -m zoo train model=cbm data=folder data.root=photos backbone=timm:resnet18
python -m zoo train -m task.lr=1e-3,3e-3 seed=0,1,2
python -m zoo train resume=latest
python -m zoo train model=cbm --cfg job
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="Hydra overrides; resume=RUN goes on with a run"
    )
    parser.add_argument("-m", "--multirun", action="store_true", help="run every combination of comma-separated values")
    parser.add_argument("--cfg", choices=["job"], help="print the composed configuration and stop")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, nothing else on stdout")


def run(args: argparse.Namespace) -> int:
    from zoo.config import compose_config, sweep, to_yaml

    words = [word for word in args.overrides if not word.startswith("resume=")]
    resume = [word.partition("=")[2] for word in args.overrides if word.startswith("resume=")]
    if args.cfg:
        print(to_yaml(compose_config(words)), end="")
        return 0
    if resume:
        return _resume(resume[-1], words, args)
    jobs = sweep(words) if args.multirun else [words]
    configs = [compose_config(job) for job in jobs]
    if len(jobs) > 1:
        results = [_run_job(job, config, quiet=args.json) for job, config in zip(jobs, configs)]
        _table_of_jobs(jobs, results, args.json)
        return 0
    _show(_train(configs[0], jobs[0], quiet=args.json), args.json)
    return 0


def _train(config: dict[str, Any], words: list[str], *, quiet: bool, resume: Any = None) -> dict[str, Any]:
    """Train with progress on stdout, or, where stdout is for a machine, on stderr."""
    from zoo.train import train

    with redirect_stdout(sys.stderr) if quiet else nullcontext():
        return train(config, words, resume=resume) or {}


def _run_job(job: list[str], config: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """One job of a sweep; on several devices as a command of its own, because Lightning starts this command again for
    every further device and would start the whole sweep."""
    if not quiet:
        print(f"-- {' '.join(job)}", flush=True)
    if config["trainer"].get("devices", 1) == 1:
        result = _train(config, job, quiet=quiet)
    else:
        done = subprocess.run(
            [sys.executable, "-m", "zoo", "train", *job, "--json"], stdout=subprocess.PIPE, check=False
        )
        if done.returncode:
            raise SystemExit(done.returncode)
        result = json.loads(done.stdout)
    if not quiet:
        _show(result, False)
    return result


def _resume(name: str, words: list[str], args: argparse.Namespace) -> int:
    from zoo.config import apply_to
    from zoo.runs import find_run

    refused = [word for word in words if not word.lstrip("+").startswith("trainer.")]
    if refused:
        raise UserError(
            *(
                f"{word}: a resumed run keeps its settings (only trainer.* may change): start a new run"
                for word in refused
            )
        )
    found = find_run(name)
    config = apply_to(found.config(), words)
    _show(_train(config, found.overrides(), quiet=args.json, resume=found), args.json)
    return 0


def _show(result: dict[str, Any], as_json: bool) -> None:
    from zoo.results import show_result
    from zoo.terminal import print_json

    if result:
        print_json(result) if as_json else show_result(result)


def _table_of_jobs(jobs: list[list[str]], results: list[dict[str, Any]], as_json: bool) -> None:
    from zoo.results import headline
    from zoo.terminal import print_json, print_table

    if as_json:
        print_json([{"overrides": job, **result} for job, result in zip(jobs, results)])
        return
    rows = [
        [" ".join(job), *headline(result), result["metrics"].get("acc_all_wrong"), result["run"]]
        for job, result in zip(jobs, results)
    ]
    columns = ["overrides", "measure", "value", "all concepts wrong", "run"]
    if all(row[3] is None for row in rows):
        columns, rows = columns[:3] + columns[4:], [row[:3] + row[4:] for row in rows]
    print_table(columns, rows, title="sweep")
