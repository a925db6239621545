"""The scenes: concepts agree with pixels, and each planted fault is there and only there."""

import numpy as np
import pytest

from zoo.data.errors import DataError
from zoo.data.folder import FolderDataModule
from zoo.data.scenes import ATTRIBUTES, BACKGROUNDS, COLOURS, CONCEPTS
from zoo.data.shapes import ShapesDataModule

SMALL = {"train_size": 240, "val_size": 40, "test_size": 240}


@pytest.fixture(scope="module")
def data():
    module = ShapesDataModule(**SMALL)
    module.setup()
    return module


def column(module, split, attribute):
    return module.scenes(split)[0][:, list(ATTRIBUTES).index(attribute)]


def pictures(module, split):
    return np.stack([module.raw(split, index) for index in range(module.sizes[split])]).astype(float)


def object_masks(images):
    """Pixels that differ clearly from the picture's border."""
    border = np.median(images[:, 0], axis=1)
    return np.abs(images - border[:, None, None]).max(axis=3) > 45


def test_facts(data):
    facts = data.facts
    assert facts.num_outputs == 12
    assert list(facts.class_names) == sorted(facts.class_names)
    assert facts.concept_names == CONCEPTS
    assert sorted(index for _, members in facts.concept_groups for index in members) == list(range(len(CONCEPTS)))
    for _, members in facts.concept_groups:
        assert (data.train_set.concepts[:, list(members)].sum(1) == 1).all()


def test_background_and_colour_show(data):
    images = pictures(data, "train")
    border = np.median(images[:, 0], axis=1)
    nearest = ((border[:, None] - BACKGROUNDS) ** 2).sum(2).argmin(1)
    assert (nearest == column(data, "train", "background")).all()
    masks = object_masks(images)
    paint = np.stack([np.quantile(image[mask], 0.8, axis=0) for image, mask in zip(images, masks)])
    hue = paint / np.linalg.norm(paint, axis=1, keepdims=True)
    wanted = COLOURS / np.linalg.norm(COLOURS, axis=1, keepdims=True)
    assert ((hue @ wanted.T).argmax(1) == column(data, "train", "colour")).mean() > 0.97


def test_position_and_size_show(data):
    masks = object_masks(pictures(data, "train"))
    axis = np.arange(masks.shape[2])
    centre = (masks * axis).sum((1, 2)) / masks.sum((1, 2))
    assert ((centre > 31.5) == (column(data, "train", "position") == 1)).all()
    width = np.array([np.ptp(axis[mask.any(0)]) for mask in masks])
    assert ((width < 24) == (column(data, "train", "size") == 1)).all()
    assert not masks[:, [0, -1]].any()
    assert not masks[:, :, [0, -1]].any()


def test_fill_shows(data):
    images, fill = pictures(data, "train"), column(data, "train", "fill")
    masks = object_masks(images)
    variation = np.array([image[mask].std(0).max() for image, mask in zip(images, masks)])
    striped, solid = (variation[fill == ATTRIBUTES["fill"].index(name)] for name in ("striped", "solid"))
    assert np.median(striped) > 2 * np.median(solid)
    middle = np.array([mask[tuple(np.argwhere(mask).mean(0).round().astype(int))] for mask in masks])
    assert not middle[fill == 0].any()
    assert middle[fill == 1].all()


def test_shapes_have_their_areas(data):
    """Area over the square of the width separates the solid shapes: triangle < cross < circle < square."""
    masks = object_masks(pictures(data, "train"))
    chosen = column(data, "train", "fill") == 1
    height = np.array([np.ptp(np.flatnonzero(mask.any(1))) + 1 for mask in masks])
    ratio = masks.sum((1, 2)) / height**2
    shape = column(data, "train", "shape")
    means = {name: ratio[chosen & (shape == kind)].mean() for kind, name in enumerate(ATTRIBUTES["shape"])}
    assert means["cross"] < means["circle"] < means["square"]
    assert means["triangle"] < means["circle"]


def test_label_is_the_rule_and_the_caption_names_everything(data):
    for index in range(20):
        item, caption = data.train_set[index], data.caption("train", index)
        for word in data.facts.class_names[item["label"]].split():
            assert word in caption
        assert caption == data.captions("train")[index]
        present = [name.split("::")[1] for name, value in zip(CONCEPTS, item["concepts"]) if value]
        assert all(word in caption for word in present)


def test_the_same_again_and_a_beginning_of_more(data):
    again = ShapesDataModule(**{**SMALL, "train_size": 100})
    other = ShapesDataModule(**SMALL, seed=1)
    for index in (0, 70, 99):
        assert np.array_equal(again.raw("train", index), data.raw("train", index))
        assert not np.array_equal(other.raw("train", index), data.raw("train", index))


@pytest.mark.parametrize("spurious", [0.0, 0.5, 1.0])
def test_spurious_background_follows_the_class_in_training_only(spurious):
    module = ShapesDataModule(train_size=2000, val_size=2000, test_size=2000, spurious=spurious)
    for split in ("train", "val", "test"):
        values, _ = module.scenes(split)
        share = (module.labels_of(values) % 4 == column(module, split, "background")).mean()
        expected = 0.25 + 0.75 * (spurious if split != "test" else 0)
        assert abs(share - expected) < 0.04, split


def test_shifted_domain_has_the_same_scenes_in_other_pixels(data):
    shifted = ShapesDataModule(**SMALL, domain="shifted")
    assert np.array_equal(shifted.scenes("train")[0], data.scenes("train")[0])
    source, target = pictures(data, "train"), pictures(shifted, "train")
    assert target.std() < 0.75 * source.std()
    assert target[..., 0].mean() > target[..., 2].mean() + 30


@pytest.mark.parametrize("held_out", [1, 4, 12])
def test_held_out_pairs_are_in_the_test_only(held_out):
    module = ShapesDataModule(train_size=800, val_size=100, test_size=800, held_out=held_out)
    train, val, test = (
        {tuple(row[:2]) for row in module.scenes(split)[0].tolist()} for split in ("train", "val", "test")
    )
    assert (len(train), len(test)) == (16 - held_out, held_out)
    assert not (train | val) & test
    for position in (0, 1):
        assert {pair[position] for pair in train} == {0, 1, 2, 3}


def test_export_reads_back_as_a_folder(tmp_path, data):
    module = ShapesDataModule(train_size=60, val_size=12, test_size=12, label_from=["colour"])
    module.export_png(tmp_path)
    folder = FolderDataModule(root=str(tmp_path), preprocessing=module.preprocessing)
    assert folder.check() == []
    assert folder.facts == module.facts
    folder.setup()
    for split in ("train", "val", "test"):
        items = getattr(folder, f"{split}_set")
        for position, name in enumerate(items.names):
            index = int(name.split("/")[1].split(".")[0])
            assert np.array_equal(folder.raw(split, position), module.raw(split, index))
            ours, theirs = getattr(module, f"{split}_set")[index], items[position]
            assert ours["label"] == theirs["label"]
            assert ours["concepts"].equal(theirs["concepts"])
    lines = (tmp_path / "captions.csv").read_text().splitlines()
    assert len(lines) == 85
    assert module.caption("train", 0) in lines[1].replace('"', "")


def test_mistakes_are_found_together():
    module = ShapesDataModule(label_from=["colour", "hue"], spurious=2.0, domain="moon", held_out=16, test_size=0)
    problems = module.check()
    assert len(problems) == 5
    assert all(line.startswith("data.") for line in problems)
    with pytest.raises(DataError):
        _ = module.facts
    assert ShapesDataModule(label_from=["background"], spurious=0.5).check()
