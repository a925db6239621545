"""report.html: one self-contained page about a run."""

from zoo.runs import Run


def write_report(run: Run) -> None:
    """Write report.html and MODEL_CARD.md from the files of a run."""
