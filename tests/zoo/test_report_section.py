"""Pictures of a run's test images, and what a page does without them."""

import base64
import io

import numpy as np
from PIL import Image

from zoo.report_section import Section, data_of_run, picture
from zoo.runs import Run


def test_a_picture_is_the_image_of_the_test_split(trained_run):
    run = Run(trained_run)
    address = picture(run, 3)
    kind, content = address.split(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        wanted = data_of_run(run).raw("test", 3).squeeze(-1)
        assert np.array_equal(np.asarray(image), wanted)


def test_data_are_opened_once(trained_run):
    assert data_of_run(Run(trained_run)) is data_of_run(Run(trained_run))


def test_without_data_a_section_has_no_pictures(tmp_path):
    (tmp_path / "config.yaml").write_text(
        f"data: {{_target_: zoo.data.folder.FolderDataModule, root: {tmp_path}/gone}}\n"
    )
    section = Section("Answers", "Some images.")
    section.add_picture(Run(tmp_path), 0, "caption")
    assert section.pictures == []
