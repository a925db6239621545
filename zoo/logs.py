"""Where a training's lines go: train.log, and a terminal or pipe."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Lines of `zoo` and Lightning, and warnings, go to train.log; the zoo's own also to stdout, where a bar runs only
    its warnings, and of a longer message the first line."""
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    console = _Console(sys.stdout)
    console.addFilter(lambda record: record.name == "zoo" or record.name.startswith(("zoo.data.", "zoo.models.")))
    console.setLevel(logging.WARNING if sys.stdout.isatty() else logging.INFO)
    loggers = [logging.getLogger(name) for name in ("zoo", "pytorch_lightning", "lightning", "py.warnings")]
    kept = [(logger, logger.level, logger.propagate, logger.handlers) for logger in loggers]
    first = int(os.environ.get("LOCAL_RANK", 0)) == 0
    for logger in loggers:
        logger.handlers, logger.propagate = [handler, console] if first else [], False
        logger.setLevel(logging.INFO if logger.name == "zoo" else logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*LeafSpec", module="pytorch_lightning")
        warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
        logging.captureWarnings(True)
        try:
            yield
        finally:
            logging.captureWarnings(False)
            for logger, level, propagate, handlers in kept:
                logger.setLevel(level)
                logger.propagate, logger.handlers = propagate, handlers
            with suppress(OSError):  # a full disk
                handler.close()


class _Quiet(logging.StreamHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """On a full disk, or where a pipe's reader has left, the training's own failure is what counts."""


class _LogFile(_Quiet, logging.FileHandler):
    pass


class _Console(_Quiet):
    def format(self, record: logging.LogRecord) -> str:
        first, newline, _ = super().format(record).partition("\n")
        return f"{first.rstrip(':')} (more in train.log)" if newline else first
