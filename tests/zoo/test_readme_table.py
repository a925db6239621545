"""README's table of models is the catalogue's; refresh it with `python -m zoo list --markdown`."""

from pathlib import Path

import pytest

from zoo import catalogue
from zoo.readme_table import BEGIN, END, between_markers, table

README = Path(__file__).resolve().parent.parent.parent / "README.md"


def test_readme_is_current():
    if not README.is_file():
        pytest.skip("this checkout has no README.md")
    assert between_markers(README.read_text(encoding="utf-8")) == table(catalogue.models())


def test_list_prints_the_table(small_catalogue, zoo_command):
    code, out, _ = zoo_command("list", "--markdown")
    assert code == 0
    assert out.splitlines()[2] == (
        "| `cbm` | concept | Concept bottleneck model | "
        "[Koh et al., Concept Bottleneck Models, ICML 2020](https://arxiv.org/abs/2007.04612) |"
    )
    assert between_markers(f"# Zoo\n{BEGIN}\n{out}{END}\n") == out


def test_absent_markers():
    with pytest.raises(ValueError, match="markers"):
        between_markers("# Zoo")
