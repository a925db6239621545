"""`train`: fit a model, test its best weights, and leave a run folder."""

import argparse
import json
import subprocess
import sys
from contextlib import nullcontext, redirect_stdout
from typing import Any

from zoo.errors import DONE, INTERRUPTED, UserError, ZooError

ABOUT = "Train a model, test its best weights, and write a run folder with a report."
EXAMPLES = """
python -m zoo train
python -m zoo train model=vib data=shapes trainer.max_epochs=10
python -m zoo train model=cbm data=folder data.root=photos backbone=timm:resnet18
python -m zoo train -m task.lr=1e-3,3e-3 seed=0,1,2
python -m zoo train -m experiment=few_shot_labo data.shots=1,2,4,8,16,null
python -m zoo train resume=latest
python -m zoo train model=cbm --cfg job
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings, such as model=cbm data=folder data.root=photos; resume=RUN goes on with a run",
    )
    parser.add_argument(
        "-m",
        "--multirun",
        action="store_true",
        help="run every combination of comma-separated values; a table and a plot go to OUTPUT_DIR/sweeps",
    )
    parser.add_argument("--cfg", choices=["job"], help="print the composed configuration and stop")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, nothing else on stdout")


def run(args: argparse.Namespace) -> int:
    from zoo.config import compose_config, sweep, to_yaml
    from zoo.terminal import print_json

    words = [word for word in args.overrides if not word.startswith("resume=")]
    resume = [word.partition("=")[2] for word in args.overrides if word.startswith("resume=")]
    if resume and not args.cfg:
        return _resume(resume[-1], words, args)
    jobs = sweep(words) if args.multirun else [words]
    if args.cfg:
        configs = [compose_config(job) for job in jobs]
        print_json(configs if args.multirun else configs[0]) if args.json else print(
            "---\n".join(map(to_yaml, configs)), end=""
        )
        return DONE
    if len(jobs) > 1:
        return _sweep(jobs, as_json=args.json)
    _show(_train(compose_config(words), words, quiet=args.json), args.json)
    return DONE


def _checked(jobs: list[list[str]]) -> list[dict[str, Any]]:
    """The configurations of all jobs.

    Raises:
        UserError: with the mistakes of all of them, before the first one starts.
    """
    from zoo.build import build_datamodule
    from zoo.config import compose_config
    from zoo.preflight import preflight

    configs: list[dict[str, Any]] = []
    wrong: dict[str, list[str]] = {}
    for job in jobs:
        try:
            configs.append(compose_config(job))
            preflight(configs[-1], build_datamodule(configs[-1]))
        except (UserError, ValueError) as error:
            for line in str(error).splitlines():
                wrong.setdefault(line, []).append(" ".join(job))
    if wrong:
        raise UserError(*(line if len(at) == len(jobs) else f"{line} (in {at[0]})" for line, at in wrong.items()))
    return configs


def _train(config: dict[str, Any], words: list[str], *, quiet: bool, resume: Any = None) -> dict[str, Any]:
    """Train with progress on stdout, or, where stdout is for a machine, on stderr."""
    from zoo.train import train

    with redirect_stdout(sys.stderr) if quiet else nullcontext():
        return train(config, words, resume=resume) or {}


def _sweep(jobs: list[list[str]], *, as_json: bool) -> int:
    """Run the jobs one after another; one that fails is told and leaves the others theirs. The first failure's code."""
    from zoo.failures import describe
    from zoo.sweep import Sweep
    from zoo.terminal import print_json

    configs = _checked(jobs)
    sweep, code = Sweep(configs[0]["output_dir"], jobs), DONE
    try:
        for job, config in zip(jobs, configs):
            try:
                result = _run_job(job, config, quiet=as_json)
            except Exception as error:
                lines, failed = describe(error, "train")
                print(*lines, sep="\n", file=sys.stderr)
                code, result = code or failed, {"error": "; ".join(lines)}
            sweep.add(result)
    finally:
        drawn = sweep.draw()
        if as_json:
            print_json([{"overrides": job, **result} for job, result in zip(jobs, sweep.results)])
        else:
            sweep.print()
        where = sys.stderr if as_json else sys.stdout
        print(f"\ntable    {sweep.table}", *([f"plot     {sweep.plot}"] if drawn else []), sep="\n", file=where)
    return code


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
        if done.returncode == INTERRUPTED:
            raise KeyboardInterrupt
        if done.returncode:
            raise ZooError(f"{' '.join(job)}: ended with code {done.returncode}, the reason stands above")
        result = json.loads(done.stdout)
    if not quiet:
        _show(result, False)
    return result


def _resume(name: str, words: list[str], args: argparse.Namespace) -> int:
    from zoo.config import apply_to
    from zoo.derived import is_derived
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
    if is_derived(found):
        raise UserError(f"{found}: edit or adapt changed its model, which a training would undo: start a new run")
    config = apply_to(found.config(), words)
    _show(_train(config, found.overrides(), quiet=args.json, resume=found), args.json)
    return 0


def _show(result: dict[str, Any], as_json: bool) -> None:
    from zoo.results import show_result
    from zoo.terminal import print_json

    if result:
        print_json(result) if as_json else show_result(result)
