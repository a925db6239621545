"""The concepts of a picture on the page: what the model saw, what each says for the answer, and how to correct it."""

from collections.abc import Awaitable, Callable

from nicegui import ui

from zoo.serve.session import Picture, Session
from zoo.serve.widgets import ShareBar, SignedBar, box, percent, press, signed, text

SHOWN = 40
"""Beyond so many concepts, those that matter most for the answer are shown, and a search finds the others."""


class ConceptRow:
    """One concept: name, how present the model takes it to be, its contribution, and the correction."""

    def __init__(self, name: str, shown: str, rows: "ConceptList"):
        self.name, self.rows = name, rows
        with box("concept", data_concept=name) as self.element:
            text(shown, "name", title=name)
            with box("seen"):
                self.bar = ShareBar()
                self.seen = text("", "number", data_test="seen")
            with box("says"):
                self.signed = SignedBar()
                self.says = text("", "number", data_test="contribution")
            with box("correct"):
                press("absent", lambda: rows.choose(name, False), "absent", aria_label=f"{name} is absent")
                self.slider = ui.slider(min=0, max=1, step=0.01).props("dense")
                self.slider.props["aria-label"] = name
                self.slider.on("update:model-value", self._moved, throttle=0.05, leading_events=True)
                press("present", lambda: rows.choose(name, True), "present", aria_label=f"{name} is present")
                self.undo = press("undo", lambda: rows.undo(name), "undo", aria_label=f"undo the correction of {name}")

    def show(self, picture: Picture, largest: float) -> None:
        seen, value = picture.seen[self.name], picture.found.contributions[self.name]
        self.bar.show(seen)
        self.seen.set_content(percent(seen))
        self.signed.show(value, largest)
        self.says.set_content(signed(value))
        corrected = picture.corrections.get(self.name)
        self.element.classes(add="corrected") if corrected is not None else self.element.classes(remove="corrected")
        self.slider.set_value(round(seen if corrected is None else corrected, 2))

    async def _moved(self, event) -> None:
        await self.rows.move(self.name, float(event.args))


class ConceptList:
    """The rows, in groups; `changed` is called after every correction."""

    def __init__(self, session: Session, changed: Callable[[], Awaitable[None]]):
        self.session, self.changed = session, changed
        self.picture: Picture | None = None
        self.rows: list[ConceptRow] = []
        self.many = len(session.info.concept_names) > SHOWN
        with box("columns"):
            text("concept")
            text("the model saw")
            self.about = text("", data_test="about")
            text("your correction")
        if self.many:
            total = len(session.info.concept_names)
            search = ui.input(placeholder=f"search all {total} concepts", on_change=lambda: self._fill())
            self.search = search.props("dense outlined clearable debounce=200").classes("search")
            self.note = text("", "note")
        self.container = box("concepts")

    def open(self, picture: Picture) -> None:
        """Show another picture's concepts, those that matter most first."""
        self.picture = picture
        if self.many:
            self.search.set_value("")
        self._fill()

    def show(self) -> None:
        """Bring the rows up to date; their order stays, so that nothing jumps below the person's hand."""
        if self.picture is None:
            return
        target = self.picture.found.about
        regression = self.session.info.task == "regression"
        self.about.set_content(f"less ← → more {target}" if regression else f"against ← → for “{target}”")
        self.about.props["title"] = self.picture.found.method
        largest = max(map(abs, self.picture.found.contributions.values()), default=0.0)
        for row in self.rows:
            row.show(self.picture, largest)

    async def choose(self, name: str, present: bool) -> None:
        if self.picture:
            self.session.choose(self.picture, name, present)
            await self.changed()

    async def move(self, name: str, value: float) -> None:
        if self.picture:
            self.session.set(self.picture, name, value)
            await self.changed()

    async def undo(self, name: str) -> None:
        if self.picture and self.picture.corrections.pop(name, None) is not None:
            await self.changed()

    def _fill(self) -> None:
        if self.picture is None:
            return
        self.container.clear()
        self.rows = []
        with self.container:
            for names in self._blocks(self._chosen(self.picture)):
                group = self.session.groups.get(names[0])
                with box("group" if group else "single"):
                    if group:
                        prefix = common_prefix(group)
                        text(f"{readable(prefix) or 'group'}: one of these", "title")
                    for name in names:
                        shown = readable(name.removeprefix(prefix) if group else name)
                        self.rows.append(ConceptRow(name, shown, self))
        self.show()

    def _chosen(self, picture: Picture) -> list[str]:
        """The names to show, what matters most for the answer first."""
        weights = picture.found.contributions
        order = sorted(weights, key=lambda name: (name not in picture.corrections, -abs(weights[name])))
        if not self.many:
            return order
        words = (self.search.value or "").lower().split()
        matching = [name for name in order if all(word in readable(name).lower() for word in words)]
        self.note.set_content(
            f"{len(matching)} found" if len(matching) <= SHOWN else f"the {SHOWN} that matter most of {len(matching)}"
        )
        return matching[:SHOWN]

    def _blocks(self, names: list[str]) -> list[list[str]]:
        """The names of a group together, where its most important member stands."""
        blocks: dict[str, list[str]] = {}
        for name in names:
            group = self.session.groups.get(name)
            blocks.setdefault(group[0] if group else name, []).append(name)
        return list(blocks.values())


def readable(name: str) -> str:
    """A concept's name for a person.

    >>> readable("shape::round_top")
    'shape round top'
    """
    return " ".join(name.replace("::", " ").replace("_", " ").split())


def common_prefix(names: list[str]) -> str:
    """What the names of a group begin with, up to `::` or `_`.

    >>> common_prefix(["shape::circle", "shape::cross"]), common_prefix(["upper_stem", "upper_open_top"])
    ('shape::', 'upper_')
    >>> common_prefix(["red", "blue"])
    ''
    """
    if len({name.split("::")[0] for name in names}) == 1 and all("::" in name for name in names):
        return names[0].split("::")[0] + "::"
    first = names[0].split("_")[0] + "_"
    return first if all(name.startswith(first) and len(name) > len(first) for name in names) else ""
