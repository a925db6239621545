"""`check`: compose and validate a configuration, without training."""

import argparse
from typing import TYPE_CHECKING, Any

from zoo.errors import DONE

if TYPE_CHECKING:
    from zoo.data.contract import Facts

ABOUT = "Compose and validate a configuration and print every mistake at once, without training."
EXAMPLES = """
python -m zoo check model=cbm data=folder data.root=photos
python -m zoo check model=litv2 task.lr=1e-3
python -m zoo check model=cbm data=digits --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for train")
    parser.add_argument("--json", action="store_true", help="print what was found, or the mistakes, as JSON")


def run(args: argparse.Namespace) -> int:
    from zoo.failures import describe
    from zoo.terminal import print_json

    try:
        config, facts = _checked(args.overrides)
    except Exception as error:
        if not args.json:
            raise
        lines, code = describe(error, "check")
        print_json({"mistakes": [line.removeprefix("error: ") for line in lines]})
        return code
    image = list(facts.input_shape)
    if args.json:
        found = {"model": config["model_name"], "data": config["data_name"], "outputs": facts.num_outputs}
        print_json({"mistakes": [], **found, "concepts": list(facts.concept_names), "image": image})
        return DONE
    concepts = f", {len(facts.concept_names)} concepts" if facts.concept_names else ""
    size = "x".join(map(str, image)) if len(image) > 1 else f"{facts.in_channels} columns"
    print(f"ok: {config['model_name']} on {config['data_name']} ({facts.num_outputs} outputs{concepts}, {size})")
    return DONE


def _checked(overrides: list[str]) -> tuple[dict[str, Any], "Facts"]:
    from zoo.artifact import with_weights_found
    from zoo.config import compose_config

    config = with_weights_found(compose_config(overrides))
    from zoo.build import build_datamodule
    from zoo.preflight import preflight

    datamodule = build_datamodule(config)
    preflight(config, datamodule)
    return config, datamodule.facts
