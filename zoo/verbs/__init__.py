"""One verb of the command line per file; a new file is a new verb (`dry_run.py` is typed `dry-run`).

A verb file defines
    ABOUT: str                    one sentence, shown by `python -m zoo --help`
    EXAMPLES: str                 real commands, one a line, shown by `python -m zoo VERB --help`
    add_arguments(parser) -> None
    run(args) -> int | None       the exit code; None is 0
and imports neither torch nor anything that does at module level: what is slow is imported inside `run`.

Words that shell completion understands in a `metavar`, in either case: NAME (models of the catalogue), RUN (run folders
and `latest`), KEY=VALUE (configuration groups and their values). Anything else completes file names.

Errors: raise `zoo.errors.UserError` and its kin. A ValueError that the zoo's own code raises counts as a user's mistake
(exit 2), every other exception as a failed run (exit 1). A verb that keeps a log tells the command line where by
`error.add_note(f"log: {path}")`.
"""
