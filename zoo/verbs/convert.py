"""`convert`: the authors' released checkpoint as one of ours."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.artifact import ModelInfo
    from zoo.models.contract import ZooModel
    from zoo.upstream import Match

ABOUT = "Turn a reference implementation's checkpoint into model.safetensors."
EXAMPLES = """
python -m zoo convert litv2 litv2_s.pth
python -m zoo convert cbm upstream.pth --out mine backbone=timm:inception_v3 num_outputs=200 concept_names=names.txt
"""
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
SHOWN_KEYS = 20
PREPROCESSING = ("mean", "std", "crop_pct", "interpolation")
COUNTED = ("num_outputs", "concept_names", "concept_groups")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="NAME", help="a model of `list`")
    parser.add_argument("file", metavar="UPSTREAM_FILE", type=Path, help=".safetensors, .pth, .pt, .ckpt or .bin")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE",
        help="data=, backbone=, constructor arguments (num_outputs=200), class_names=FILE and concept_names=FILE "
        "(a name a line), mean=, std=, crop_pct=, interpolation=",
    )  # fmt: skip
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="default: converted/NAME")
    parser.add_argument("--partial", action="store_true", help="write although some of our tensors stay untrained")
    parser.add_argument("--force", action="store_true", help="overwrite a model that is there")


def run(args: argparse.Namespace) -> None:
    from zoo.artifact import save_model
    from zoo.catalogue import entry
    from zoo.errors import UserError

    entry(args.model)
    settings = _settings(args.overrides)
    out = _destination(args.out or Path("converted") / args.model, force=args.force)
    from zoo.upstream import match, read_state

    upstream = read_state(args.file)
    model, info = _build(args.model, settings)
    info.extra["converted_from"] = args.file.name
    found = match(model, upstream)
    _report(found)
    if found.mismatched:
        raise UserError(*found.mismatched)
    if not found.state:
        raise UserError(f"{args.file}: no tensor fits {args.model}: is it a checkpoint of this model?")
    if found.missing and not args.partial:
        raise UserError(
            f"{len(found.missing)} tensors of {args.model} would stay untrained, the first is {found.missing[0]}: "
            "adapt the overrides, or write it anyway with --partial"
        )
    model.load_state_dict(found.state, strict=False)
    try:
        out.mkdir(parents=True, exist_ok=True)
        path = save_model(model, info, out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror or error}") from None
    print(f"wrote {path} and model.json: {len(found.state)} tensors; try python -m zoo eval {out} data=...")


def _settings(words: list[str]) -> dict[str, Any]:
    """`key=value` words as YAML values; a text file given for names is read, one a line."""
    import yaml

    from zoo.errors import UserError

    wrong = [f"{word!r}: write KEY=VALUE, for example num_outputs=200" for word in words if "=" not in word]
    settings = {}
    for word in words:
        key, _, text = word.removeprefix("model.").partition("=")
        try:
            settings[key] = yaml.safe_load(text)
        except yaml.YAMLError:
            wrong.append(f"{word!r}: {text!r} is no value")
    for key in ("class_names", "concept_names"):
        if isinstance(settings.get(key), str):
            file = Path(settings[key]).expanduser()
            if file.is_file():
                settings[key] = file.read_text(encoding="utf-8").splitlines()
            else:
                wrong.append(f"{key}={file}: there is no such file; it holds one name a line")
    if wrong:
        raise UserError(*wrong)
    return settings


def _destination(out: Path, *, force: bool) -> Path:
    from zoo.errors import UserError

    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file, expected a folder")
    if (out / "model.safetensors").exists() and not force:
        raise UserError(f"{out} holds a model already: choose another --out, or overwrite it with --force")
    return out


def _build(name: str, settings: dict[str, Any]) -> "tuple[ZooModel, ModelInfo]":
    """The untrained model and its description; what the settings leave out comes from `data=`, where that is given."""
    from zoo.artifact import ModelInfo
    from zoo.build import build_datamodule, create_model, facts_as_arguments
    from zoo.config import compose_config

    steps = {key: settings.pop(key) for key in PREPROCESSING if key in settings}
    facts: dict[str, Any] = {"task": "classification", "in_channels": 3, "image_size": [224, 224], "class_names": []}
    own = None
    if data := settings.pop("data", None):
        datamodule = build_datamodule(compose_config([f"model={name}", f"data={data}"]))
        facts |= facts_as_arguments(datamodule)
        own = datamodule.preprocessing.to_dict()
    facts |= {key: settings.pop(key) for key in list(settings) if key in (*facts, *COUNTED)}
    if "num_outputs" not in facts and facts["class_names"]:
        facts["num_outputs"] = len(facts["class_names"])
    model = create_model(name, **settings, **facts)
    own = getattr(getattr(model, "backbone", None), "preprocessing", None) or own
    recipe: dict[str, Any] = dict(model.recipe)
    recipe["arguments"] = recipe["arguments"] | model.fitted_arguments()
    return model, ModelInfo(
        name=name,
        recipe=recipe,
        task=facts["task"],
        class_names=list(facts["class_names"]) or [str(index) for index in range(facts.get("num_outputs", 0))],
        concept_names=list(model.concept_names),
        concept_groups=[[group, list(indices)] for group, indices in facts.get("concept_groups", ())],
        preprocessing=_preprocessing(own, steps, facts),
    )


def _preprocessing(own: dict[str, Any] | None, steps: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """The backbone's or the data's, changed by what was given; for colour images ImageNet's where nothing is known."""
    from zoo.data.contract import Preprocessing
    from zoo.errors import UserError

    channels = facts["in_channels"]
    if own is None and not {"mean", "std"} <= steps.keys():
        if channels != 3:
            raise UserError(f"the preprocessing of {channels}-channel images is not known: give mean= and std=")
        own = {"image_size": facts["image_size"], **IMAGENET}
        print(f"preprocessing assumed: {own | steps}; change it with {'=, '.join(PREPROCESSING)}=")
    values = {"image_size": facts["image_size"]} | (own or {}) | steps
    wrong = {key: values[key] for key in ("mean", "std") if not _is_list(values[key], channels)}
    if wrong:
        raise UserError(*(f"{key}={given}: expected {channels} numbers, one a channel" for key, given in wrong.items()))
    return Preprocessing.from_dict(values).to_dict()


def _is_list(value: Any, length: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == length


def _report(found: "Match") -> None:
    print(f"{len(found.state)} tensors match")
    for label, keys in (("only upstream", found.unused), ("only in ours", found.missing)):
        for key in keys[:SHOWN_KEYS]:
            print(f"{label}: {key}")
        if len(keys) > SHOWN_KEYS:
            print(f"{label}: ... {len(keys) - SHOWN_KEYS} more")
