"""Every model of the concept family on the same data and the same backbone, in one table.

    python benchmarks/concept_family.py                     # trains them all, each for seconds
    python benchmarks/concept_family.py --models cem labo   # trains these; the others keep their rows
    python benchmarks/concept_family.py --table             # trains none

Writes concept_family.csv beside this file and the table between the markers of README.md. A model that needs what the
backbone lacks (a text tower) has a row that says so.
"""

import argparse
import csv
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from zoo.catalogue import models

README = Path(__file__).resolve().parent.parent / "README.md"
FIGURES = Path(__file__).with_suffix(".csv")
BEGIN, END = "<!-- concept-family:begin -->", "<!-- concept-family:end -->"
SHARED = ("trainer.accelerator=cpu", "logger=csv")
OWN = {
    "pcbm_h": ("task.lr=0.01",),
    "labo": ("model.normalise=true", "task.lr=0.01"),
    "label_free_cbm": ("model.clip_cutoff=0",),
    "dkvb": ("model.codebooks=64", "model.pairs=256"),
    "ecbm": ("trainer.max_epochs=5",),
    "apt": ("trainer.max_epochs=3",),
    "heba": ("trainer.max_epochs=3",),
}
"""What a model needs here beside its defaults: another learning rate where its own scale asks for it, a cut-off that is
meant for another CLIP, a size that fits small data, fewer epochs where each is slow."""
SKIPPED = {"cirevl": "no classes, it finds images"}
MEASURES = {
    "acc": "accuracy",
    "acc_nec5": "at NEC 5",
    "acc_nec5_random": "random control",
    "concept_acc": "concept accuracy",
    "correction_gain": "correction gain",
    "acc_all_wrong": "all wrong",
    "seconds": "training (s)",
}
HOW_TO_READ = """\
*At NEC 5*: every model gets the same sparse head on its concept scores, five weights a class; *random control*: that
head on as many random directions of the backbone's features. *Correction gain*: points of accuracy when a person sets
all concepts to the truth; *all wrong*: accuracy when all are set to the opposite, which should be low.
`label_free_cbm` and `sparse_cbm` learn without labels of concepts: their scores need not mean what a person means by
the words, and corrections tell. Training is with the frozen backbone's features in the cache, on a machine with other
work. Less than a point is chance."""
FIELDS = ("model", "setting", "own", *MEASURES, "note", "machine", "date")


def main() -> None:
    names = [entry.name for entry in models() if entry.family == "concept"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=names, metavar="MODEL", help=f"of {', '.join(names)}")
    parser.add_argument("--setting", nargs="+", metavar="KEY=VALUE", help="for all models; default: that of the CSV")
    parser.add_argument("--table", action="store_true", help="only write README's table again")
    options = parser.parse_args()
    rows = read()
    setting = options.setting or next(iter(rows.values()))["setting"].split()
    rows = {name: row for name, row in rows.items() if row["setting"] == " ".join(setting)}
    for name in [] if options.table else options.models or names:
        rows[name] = measure(name, setting)
        print(f"{name:24}", {key: rows[name][key] for key in (*MEASURES, "note") if rows[name][key]}, flush=True)
        rows = {each: rows[each] for each in names if each in rows}
        write(rows.values())
    README.write_text(with_table(README.read_text(encoding="utf-8"), table(rows.values())), encoding="utf-8")


def measure(name: str, setting: Sequence[str]) -> dict[str, str]:
    """Train one model; its row."""
    own = OWN.get(name, ())
    row = dict.fromkeys(FIELDS, "") | {
        "model": name,
        "setting": " ".join(setting),
        "own": " ".join(own),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "date": datetime.date.today().isoformat(),
    }
    if name in SKIPPED:
        return row | {"note": SKIPPED[name]}
    with tempfile.TemporaryDirectory() as folder:
        words = [f"model={name}", *setting, *own, *SHARED]
        command = [sys.executable, "-m", "zoo", "train", *words, "--json"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        return row | {"note": reason(done.stderr)}
    result = json.loads(done.stdout)
    found = result["metrics"] | {"seconds": result["seconds"]}
    note = (
        ""
        if "concept_acc" in found
        else "no labels for the chosen words"
        if "acc_nec5" in found
        else "no named concepts"
    )
    return row | {name: f"{found[name]:.4g}" for name in MEASURES if name in found} | {"note": note}


def reason(stderr: str) -> str:
    """The last line of an error: what is wrong, without where and what to do."""
    lines = stderr.strip().splitlines() or ["no message"]
    return lines[-1].removeprefix("error: ").removeprefix("model: ").split(": ")[0][:120]


def read() -> dict[str, dict[str, str]]:
    with FIGURES.open(newline="", encoding="utf-8") as file:
        return {row["model"]: row for row in csv.DictReader(file)}


def write(rows: Iterable[dict[str, str]]) -> None:
    with FIGURES.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def table(rows: Iterable[dict[str, str]]) -> str:
    """Markdown: what all rows share, a row for each model with a figure, how to read it, and why others have none."""
    rows = list(rows)
    lines = [
        f"The concept family side by side, all on `{rows[0]['setting']}`",
        f"(one seed, {rows[0]['machine']}, {rows[0]['date']}; `python benchmarks/concept_family.py` makes the table):",
        "",
        "| model | " + " | ".join(MEASURES.values()) + " |",
        "|---|" + "--:|" * len(MEASURES),
    ]
    for row in rows:
        if any(row[name] for name in MEASURES):
            cells = [cell(name, row[name]) for name in MEASURES]
            lines.append(f"| `{row['model']}` | " + " | ".join(cells) + " |")
    lines += ["", HOW_TO_READ]
    if own := [f"`{row['model']}` with `{row['own']}`" for row in rows if row["own"]]:
        lines += ["", f"Beside the defaults: {', '.join(own)}."]
    for note in dict.fromkeys(row["note"] for row in rows if row["note"]):
        named = [f"`{row['model']}`" for row in rows if row["note"] == note]
        lines += ["", f"{', '.join(named)}: {note}."]
    return "\n".join(lines) + "\n"


def cell(name: str, value: str) -> str:
    """A figure as the table shows it."""
    if not value:
        return "-"
    if name == "seconds":
        return value
    return f"{100 * float(value):+.1f}" if name == "correction_gain" else f"{100 * float(value):.1f} %"


def with_table(text: str, new: str) -> str:
    """README's text with the table between its markers.

    Raises:
        ValueError: a marker is absent.
    """
    if BEGIN not in text or END not in text:
        raise ValueError(f"no place for the table: the markers {BEGIN} and {END} are absent")
    before, after = text.split(BEGIN, 1)[0], text.split(END, 1)[1]
    return f"{before}{BEGIN}\n{new}{END}{after}"


if __name__ == "__main__":
    main()
