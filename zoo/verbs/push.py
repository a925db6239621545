"""`push`: a run's model to the Hugging Face Hub, with its card.

Uploaded are the weights, model.json, result.json (without its path) and the card. Configuration, logs and the report
stay here: they may hold paths and pictures of yours.
"""

import argparse
import json
from pathlib import Path

ABOUT = "Upload a run's model and card to the Hugging Face Hub."
EXAMPLES = """
python -m zoo push latest my-name/my-model --dry-run
python -m zoo push latest my-name/my-model --private
"""
FILES = ("model.safetensors", "model.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="RUN", help="a run's folder, or latest")
    parser.add_argument("repo", metavar="REPO", help="org/name on the Hub")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--dry-run", action="store_true", help="print the card and the files, upload nothing")


def run(args: argparse.Namespace) -> None:
    _check_repo(args.repo)
    contents = _contents(_folder(args.source), args.repo)
    if not args.dry_run:
        print(_upload(args.repo, contents, private=args.private))
        return
    card = contents["README.md"]
    assert isinstance(card, bytes)
    print(card.decode())
    print(f"would upload to https://huggingface.co/{args.repo}:")
    for name, content in contents.items():
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        print(f"  {name}  {size:,} bytes")


def _check_repo(repo: str) -> None:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    from zoo.errors import UserError

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"REPO: {' '.join(str(error).split())}") from None
    if repo.count("/") != 1:
        raise UserError(f"REPO: {repo!r}: expected org/name, for example my-name/{repo}")


def _folder(source: str) -> Path:
    from zoo.runs import find_run

    path = Path(source).expanduser()
    return path if (path / "model.safetensors").is_file() else find_run(source).folder


def _contents(folder: Path, repo: str) -> dict[str, bytes | Path]:
    """What is uploaded, by name on the Hub."""
    from zoo.card import card_of
    from zoo.errors import UserError

    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(*(f"{folder}: there is no {name}: finish the training first" for name in missing))
    contents: dict[str, bytes | Path] = {name: folder / name for name in FILES}
    if (folder / "result.json").is_file():
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        result.pop("run", None)
        contents["result.json"] = json.dumps(result, indent=2).encode()
    return contents | {"README.md": card_of(folder, repo=repo).encode()}


def _upload(repo: str, contents: dict[str, bytes | Path], *, private: bool) -> str:
    """One commit with everything; returns its address."""
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError

    from zoo.checkpoints import offline
    from zoo.errors import UserError, ZooError

    if offline():
        raise UserError("push needs the network, and ZOO_OFFLINE or HF_HUB_OFFLINE is set: unset it")
    if get_token() is None:
        raise UserError("no Hub token: run `hf auth login`, or set HF_TOKEN to a token that may write")
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=data) for name, data in contents.items()]
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        return api.create_commit(repo, operations, commit_message="Upload by the Bottleneck Zoo").commit_url
    except (HfHubHTTPError, OSError) as error:
        raise ZooError(f"the Hub refused {repo}: {' '.join(str(error).split())[:300]}") from None
