"""`push`: a run's model to the Hugging Face Hub, with its card.

Uploaded are the weights, model.json, result.json and the card. Configuration, logs and the report stay here: they may
hold paths and pictures of yours.
"""

import argparse
import json
from pathlib import Path

ABOUT = "Upload a run's model and card to the Hugging Face Hub."
EXAMPLES = """
python -m zoo push latest my-name/my-model --dry-run
python -m zoo push latest my-name/my-model --private
"""
FILES = ("model.safetensors", "model.json", "result.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="RUN", help="a run's folder, or latest")
    parser.add_argument("repo", metavar="REPO", help="org/name on the Hub")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--dry-run", action="store_true", help="print the card and the files, upload nothing")


def run(args: argparse.Namespace) -> None:
    from zoo.errors import UserError

    _check_repo(args.repo)
    folder = _folder(args.source)
    missing = [name for name in FILES[:2] if not (folder / name).is_file()]
    if missing:
        raise UserError(*(f"{folder}: there is no {name}: finish the training first" for name in missing))
    files = {name: folder / name for name in FILES if (folder / name).is_file()}
    card = _card(folder, args.repo)
    if args.dry_run:
        print(card)
        print(f"would upload to https://huggingface.co/{args.repo}:")
        for name, path in files.items():
            print(f"  {name}  {path.stat().st_size:,} bytes")
        print(f"  README.md  {len(card.encode()):,} bytes (the card above)")
        return
    print(_upload(args.repo, files, card, private=args.private))


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


def _card(folder: Path, repo: str) -> str:
    from zoo import catalogue
    from zoo.card import model_card

    info = json.loads((folder / "model.json").read_text())
    result_file = folder / "result.json"
    result = json.loads(result_file.read_text()) if result_file.is_file() else {}
    entry = catalogue.entry(info["name"]) if info["name"] in catalogue.names() else None
    return model_card(info, result, entry, repo=repo)


def _upload(repo: str, files: dict[str, Path], card: str, *, private: bool) -> str:
    """One commit with everything; returns its address."""
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError

    from zoo.checkpoints import offline
    from zoo.errors import UserError, ZooError

    if offline():
        raise UserError("push needs the network, and ZOO_OFFLINE or HF_HUB_OFFLINE is set: unset it")
    if get_token() is None:
        raise UserError("no Hub token: run `hf auth login`, or set HF_TOKEN to a token that may write")
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in files.items()]
    operations.append(CommitOperationAdd(path_in_repo="README.md", path_or_fileobj=card.encode()))
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        return api.create_commit(repo, operations, commit_message="Upload by the Bottleneck Zoo").commit_url
    except (HfHubHTTPError, OSError) as error:
        raise ZooError(f"the Hub refused {repo}: {' '.join(str(error).split())[:300]}") from None
