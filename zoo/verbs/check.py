"""`check`: compose and validate a configuration, without training."""

import argparse

ABOUT = "Compose and validate a configuration and print every mistake at once, without training."
EXAMPLES = """
python -m zoo check model=cbm data=folder data.root=photos
python -m zoo check model=litv2 task.lr=1e-3
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for train")


def run(args: argparse.Namespace) -> int:
    from zoo.artifact import with_weights_found
    from zoo.config import compose_config

    config = with_weights_found(compose_config(args.overrides))
    from zoo.build import build_datamodule
    from zoo.preflight import preflight

    datamodule = build_datamodule(config)
    preflight(config, datamodule)
    facts = datamodule.facts
    concepts = f", {len(facts.concept_names)} concepts" if facts.concept_names else ""
    size = (
        "x".join(map(str, (facts.in_channels, *facts.image_size)))
        if facts.image_size != (0, 0)
        else f"{facts.in_channels} columns"
    )
    print(f"ok: {config['model_name']} on {config['data_name']} ({facts.num_outputs} outputs{concepts}, {size})")
    return 0
