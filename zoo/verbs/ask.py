"""`ask`: conditional probabilities of concepts and classes, from an energy-based concept model."""

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.models.concept.ecbm_queries import Query
    from zoo.trained import Described

ABOUT = "Ask an energy-based concept model for conditional probabilities."
EXAMPLES = """
python -m zoo ask latest "p(lower_loop | class=8)"
python -m zoo ask latest "p(class=7 | top_bar, lower_stem)" "p(class=7 | top_bar=0)" --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="RUN", help="a run of ecbm")
    parser.add_argument(
        "queries",
        nargs="+",
        metavar="QUERY",
        help="p(wanted | given), each a concept, concept=0 or class=NAME, with commas",
    )
    parser.add_argument(
        "--estimator",
        choices=["enumerate", "sample", "empirical"],
        help="all configurations of the concepts (default up to 12 concepts), sampled ones, or predicted pairs",
    )
    parser.add_argument(
        "--images", type=int, default=256, metavar="N", help="how many of the test split to average over (default 256)"
    )
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> None:
    from functools import partial

    from zoo.errors import together
    from zoo.models.concept.ecbm_queries import MAX_CONCEPTS
    from zoo.terminal import print_json, print_table
    from zoo.trained import open_checked

    trained, queries, _ = open_checked(
        args.source, partial(_asked, args.queries, args.estimator), partial(_check_count, args.images)
    )
    few = len(trained.info.concept_names) <= MAX_CONCEPTS
    estimator = args.estimator or ("enumerate" if few else "sample")
    joint, count = _joint(trained, estimator, args.images)
    answers = dict(zip(args.queries, together(partial(joint.ask, query) for query in queries)))
    if args.json:
        print_json({"estimator": estimator, "images": count, "answers": answers})
        return
    print_table(["query", "probability"], list(answers.items()), title=f"over {count} test images, by {estimator}")


def _check_count(images: int) -> None:
    from zoo.errors import UserError

    if images < 1:
        raise UserError(f"--images {images}: give at least 1")


def _asked(texts: list[str], estimator: str | None, described: "Described") -> "list[Query]":
    """The questions, as read."""
    from functools import partial

    from zoo.build import network_class
    from zoo.errors import UserError, together
    from zoo.models.concept.ecbm import ECBM
    from zoo.models.concept.ecbm_queries import MAX_CONCEPTS, parse_query

    info = described.info
    if not issubclass(network_class(info.recipe["target"]), ECBM):
        raise UserError(f"{info.name} has no joint energy to ask: train model=ecbm on these data")
    read = partial(parse_query, concept_names=info.concept_names, class_names=info.class_names)

    def check_estimator() -> None:
        if estimator == "enumerate" and len(info.concept_names) > MAX_CONCEPTS:
            count = f"{len(info.concept_names)} concepts are too many (limit {MAX_CONCEPTS})"
            raise UserError(f"--estimator enumerate: {count}: take sample or empirical")

    return together([*(partial(read, text) for text in texts), check_estimator])[:-1]


def _joint(trained: Any, estimator: str, images: int) -> tuple[Any, int]:
    """The table of probabilities, and over how many images."""
    import torch

    from zoo.errors import UserError
    from zoo.export.images import real_images
    from zoo.models.concept.ecbm_queries import Joint

    model, given = trained.model, real_images(trained, [], test=images, train=0)
    if given.labels is None:
        raise UserError(f"ask averages over images of the run's data, and there are only {given.source}")
    found = given.test
    with torch.no_grad():
        features = torch.cat([model.backbone(chunk) for chunk in found.split(64)])
    if estimator == "enumerate":
        return Joint.enumerate(model, features), len(found)
    if estimator == "sample":
        return Joint.sample(model, features, draws=256), len(found)
    with torch.no_grad():
        output = model.forward_features(features)
    classes = output.prediction.argmax(-1)
    return Joint.empirical(output.concepts, classes, num_classes=len(trained.info.class_names)), len(found)
