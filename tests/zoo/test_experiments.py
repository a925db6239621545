"""Every experiment of the catalogue composes: its keys exist and its values have the right types."""

import pytest

from zoo import catalogue
from zoo.config import compose_config


@pytest.mark.parametrize("name", catalogue.groups()["experiment"])
def test_it_composes(name):
    needs_a_folder = name in ("sign_digits_cbm", "word_clip")
    config = compose_config([f"experiment={name}", *(["data.root=photos"] if needs_a_folder else [])])
    assert config["model"]["_target_"].startswith("zoo.models.")


def test_few_shots_may_be_swept_to_all():
    assert compose_config(["experiment=few_shot", "data.shots=null"])["data"]["shots"] is None
