"""`eval`: what a trained model is worth on its data, or on others with the same classes."""

import argparse

ABOUT = "Measure a trained model, and what its concepts are worth, on its test split or on other data."
EXAMPLES = """
python -m zoo eval latest
python -m zoo eval latest --split val --json
python -m zoo eval latest data.domain=shifted
python -m zoo eval latest data=folder data.root=photos
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="RUN", help="a run's folder, latest, or a catalogue model with weights")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="data=NAME and data.key=value: data with the same classes"
    )
    parser.add_argument("--split", choices=["test", "val"], default="test", help="which images (default test)")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> None:
    from functools import partial

    from zoo.evaluate import evaluate
    from zoo.results import rows
    from zoo.terminal import print_json, print_table
    from zoo.trained import check_data_words, data_of, learned_before, open_checked, training_data

    trained, datamodule, _ = open_checked(
        args.source, partial(data_of, words=args.overrides), partial(check_data_words, args.overrides)
    )
    datamodule.setup("test")
    trained_on = training_data(trained, args.overrides)
    metrics, _ = evaluate(trained.model, datamodule, args.split, trained_on=trained_on)
    learned = learned_before(datamodule, args.split, trained_on)
    named = [word.partition("=")[2] for word in args.overrides if word.startswith("data=")]
    data = [trained.info.data, *named][-1]
    if args.json:
        result = {"model": trained.info.name, "data": data, "split": args.split, "source": str(trained)}
        print_json(result | {"learned_before": learned, "metrics": metrics})
        return
    title = f"{trained.info.name} on {data} ({metrics['samples']} images of split {args.split})"
    print_table(["measure", "value"], rows(metrics), title=title)
    if learned:
        print(f"\n{learned} of these {metrics['samples']} items were learned from: nothing here tells of new ones")
