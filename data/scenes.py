"""Scenes of one object, drawn from concepts: what `data=shapes` shows, as plain functions of arrays.

A scene is a row of values, one for each attribute of `ATTRIBUTES`, and a few continuous numbers (where exactly, how
large, turned how far, which shade, which noise). Every attribute shows in the pixels, and nothing else does.
"""

import numpy as np

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": ("circle", "cross", "square", "triangle"),
    "colour": ("blue", "green", "red", "yellow"),
    "fill": ("hollow", "solid", "striped"),
    "size": ("large", "small"),
    "position": ("left", "right"),
    "background": ("fog", "night", "sand", "snow"),
}
"""Attribute -> its values; exactly one value of each is present."""

CONCEPTS = tuple(f"{attribute}::{value}" for attribute, values in ATTRIBUTES.items() for value in values)

COLOURS = np.array([[40, 80, 220], [40, 160, 60], [215, 40, 40], [250, 215, 30]], dtype=np.float32)
BACKGROUNDS = np.array([[135, 140, 145], [18, 18, 40], [196, 164, 120], [238, 240, 245]], dtype=np.float32)
RADII = np.array([0.26, 0.16], dtype=np.float32)
CENTRES = np.array([0.33, 0.67], dtype=np.float32)
SHADE = np.float32(0.45)
"""Of every second stripe."""

JITTERS = 7
"""Continuous numbers in [0, 1) of a scene: x, y, radius, angle, shade of object and of background, noise level."""


def to_concepts(values: np.ndarray) -> np.ndarray:
    """(N, attributes) value numbers -> (N, K) float32, one-hot in each attribute."""
    counts = [len(names) for names in ATTRIBUTES.values()]
    columns = [values[:, [position]] == np.arange(count) for position, count in enumerate(counts)]
    return np.concatenate(columns, axis=1).astype(np.float32)


def in_words(values: np.ndarray) -> dict[str, str]:
    """One scene's values by attribute: {"shape": "cross", ...}."""
    return {attribute: names[value] for (attribute, names), value in zip(ATTRIBUTES.items(), values.tolist())}


def describe(values: np.ndarray) -> str:
    """One scene's values as a caption: "a small striped red cross on the left, against snow"."""
    return "a {size} {fill} {colour} {shape} on the {position}, against {background}".format(**in_words(values))


def render(values: np.ndarray, jitter: np.ndarray, noise: np.ndarray, *, shifted: bool = False) -> np.ndarray:
    """Draw N scenes.

    Args:
        values: (N, attributes) value numbers, in the order of `ATTRIBUTES`. jitter: (N, JITTERS) in [0, 1).
        noise: (N, size, size) standard normal.
        shifted: another camera: a warm cast, half the contrast and three times the noise.

    Returns:
        (N, size, size, 3) uint8.
    """
    shape, colour, fill, size, position, background = (column[:, None, None] for column in values.T)
    u = [column[:, None, None] for column in jitter.T.astype(np.float32)]
    pixels = noise.shape[-1]
    axis = (np.arange(pixels, dtype=np.float32) + 0.5) / pixels
    radius = RADII[size] * (0.92 + 0.16 * u[2])
    x = (axis[None, None, :] - CENTRES[position] - 0.03 * (2 * u[0] - 1)) / radius
    y = (axis[None, :, None] - 0.5 - 0.14 * (2 * u[1] - 1)) / radius
    angle = 0.5 * (u[3] - 0.5)
    x, y = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    distance = np.empty_like(x)
    for kind, outline in enumerate((_circle, _cross, _square, _triangle)):
        rows = shape[:, 0, 0] == kind
        distance[rows] = outline(x[rows], y[rows])
    inside = np.clip(0.5 - distance * (radius * pixels), 0, 1)
    inner = np.clip(0.5 - (distance + 0.17) * (radius * pixels), 0, 1)
    hollow, striped = (fill == ATTRIBUTES["fill"].index(name) for name in ("hollow", "striped"))
    cover = np.where(hollow, inside - inner, inside)
    dark = striped & (np.floor((x + y) * (radius * pixels / 4)) % 2 == 0)
    ground = BACKGROUNDS[background] + 16 * (u[5][..., None] - 0.5)
    picture = np.where(dark, SHADE, np.float32(1))[..., None] * (COLOURS[colour] * (0.9 + 0.2 * u[4][..., None]))
    picture -= ground
    picture *= cover[..., None]
    picture += ground
    if shifted:
        picture = 128 + 0.5 * (picture - 128) + np.array([24, 4, -24], dtype=np.float32)
    picture += ((3 + 3 * u[6]) * (3 if shifted else 1) * noise + 0.5)[..., None]
    return np.clip(picture, 0, 255, out=picture).astype(np.uint8)


def _circle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance to the outline, in radii, negative inside; so are the others."""
    return np.sqrt(x * x + y * y) - 0.9


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(abs(x), abs(y)) - 0.8


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(abs(x) * 0.866 - y * 0.5, y) - 0.5


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    level = np.maximum(abs(x) - 1.0, abs(y) - 0.36)
    upright = np.maximum(abs(x) - 0.36, abs(y) - 1.0)
    return np.minimum(level, upright)
