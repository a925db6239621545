"""The page: a picture on the left with the answer, its concepts on the right, the corrections below."""

from importlib.resources import files

from nicegui import app, events, run, ui

from zoo.data.errors import ImageError
from zoo.explanation import levels_sent, size_sent
from zoo.serve.concept_list import ConceptList, readable
from zoo.serve.session import CLASSES, Picture, Session
from zoo.serve.uploads import MAX_BYTES
from zoo.serve.widgets import ShareBar, box, percent, press, text
from zoo.trained import Trained

MAX_PICTURES = 500
FILE = "corrections.csv"


class Page:
    """One tab of a browser; its session survives a reload."""

    session: Session
    concepts: ConceptList

    def __init__(self, trained: Trained, *, local: bool):
        self.trained, self.local = trained, local
        self.picture: Picture | None = None
        self.busy = False
        self.waiting: list[Picture] = []

    async def build(self) -> None:
        ui.add_css(files("zoo").joinpath("assets/serve.css").read_text(encoding="utf-8"))
        ui.colors(primary="#2a6f97")
        await ui.context.client.connected()
        tab = app.storage.tab
        if "session" not in tab:
            tab["session"] = Session(self.trained)
        self.session = tab["session"]
        info = self.trained.info
        with box("page"):
            with box("head", tag="header"):
                text("Why does the model say that?", tag="h1")
                text(f"{info.name} trained on {info.data}: {len(info.class_names)} answers from "
                     f"{len(info.concept_names)} concepts that you can read and correct.", "lead")  # fmt: skip
            with box("main"):
                with box("left"):
                    self._drop_zone()
                    self._answer()
                    self._sent()
                with box("card right", tag="section"):
                    with box("row"):
                        text("What it saw", tag="h2")
                        self.reset = press("Undo all corrections", self._reset, data_test="reset")
                    self.hint = self._steps()
                    with box("") as self.list:
                        self.concepts = ConceptList(self.session, self._refresh)
            self._corrections()
        if self.session.pictures:
            self._open(self.session.pictures[-1])
        self._show()

    def _steps(self) -> ui.element:
        with box("steps", tag="ol") as steps:
            text("Drop a picture. The model names it, and shows the concepts it saw in it.", tag="li")
            text("See what each concept says for the answer, and what against it.", tag="li")
            text("Where a concept is wrong, correct it, and watch the answer change.", tag="li")
            text("Take your corrections along as a table that the next training learns from.", tag="li")
        return steps

    def _drop_zone(self) -> None:
        upload = ui.upload(multiple=True, auto_upload=True, max_file_size=MAX_BYTES, on_upload=self._uploaded)
        refused = f"Only pictures of up to {MAX_BYTES / 1e6:.0f} MB are taken: drop another file"
        upload.on_rejected(lambda: self._complain(refused))
        upload.props("accept=image/*").classes("uploader")
        uploader = f"getElement({upload.id}).$refs.qRef"
        with box("card drop", tag="section", tabindex="0", role="button", data_test="drop") as zone:
            self.image = box("picture", tag="img", alt="the picture")
            text("Drop a picture here, or click to choose one", "call")
            where = "It stays on this computer." if self.local else "It goes to the computer that serves this page."
            text(f"JPEG, PNG, WebP, GIF, TIFF or BMP, up to {MAX_BYTES / 1e6:.0f} MB. {where}", "note")
            self.problem = text("", "problem", role="alert", data_test="problem")
        zone.on("click", js_handler=f"() => {uploader}.pickFiles()")
        zone.on("keydown.enter", js_handler=f"() => {uploader}.pickFiles()")
        zone.on("dragover", js_handler="(e) => { e.preventDefault(); e.currentTarget.classList.add('over') }")
        zone.on("dragleave", js_handler="(e) => e.currentTarget.classList.remove('over')")
        drop = (
            f"e.preventDefault(); e.currentTarget.classList.remove('over'); {uploader}.addFiles(e.dataTransfer.files)"
        )
        zone.on("drop", js_handler=f"(e) => {{ {drop} }}")

    def _answer(self) -> None:
        with box("card answer", tag="section") as self.answer:
            text("The model says", "note")
            self.says = text("", "says-class", data_test="prediction")
            self.before = text("", "note", data_test="before")
            self.bars: list[tuple] = []
            for _ in range(min(CLASSES, len(self.trained.info.class_names))):
                with box("class") as row:
                    self.bars.append((row, text("", "name"), ShareBar(), text("", "number")))
            if self.trained.info.task == "classification":
                label = ui.select(self.trained.info.class_names, label="What is it really?", with_input=True)
                label.props("dense outlined clearable hide-bottom-space").classes("label")
                self.label = label.on_value_change(self._labelled)

    def _sent(self) -> None:
        """What left the device, of a model whose concepts cross a link."""
        with box("card", tag="section") as self.link:
            text("What left the device", "note")
            self.bytes = text("", "call", data_test="sent")
            text(
                "They hold a level of each concept, 0 where it is absent. Your corrections are made behind the link.",
                "note",
            )
            self.levels = box("chips", data_test="levels")

    def _corrections(self) -> None:
        with box("card", tag="section"):
            with box("row"):
                text("Your corrections", tag="h2")
                self.download = press("Download as a table", self._download, "strong", data_test="download")
            self.summary = text("", "note", data_test="summary")
            self.clash = text("", "problem", role="alert")
            self.table = box("done")
            self.how = text(f"Learn from them: {self.session.command(FILE)}", "note code")

    async def _uploaded(self, event: events.UploadEventArguments) -> None:
        self.problem.set_content("")
        if len(self.session.pictures) >= MAX_PICTURES:
            self._complain(f"{MAX_PICTURES} pictures are open: download the corrections and open the page anew")
            return
        content = await event.file.read()
        try:
            picture = await run.io_bound(self.session.add, event.file.name, content)
        except ImageError as error:
            self._complain(str(error))
            return
        if picture is None:  # the server is being stopped
            return
        self._open(picture)
        self._show()

    def _complain(self, line: str) -> None:
        self.problem.set_content(line)

    def _open(self, picture: Picture) -> None:
        self.picture = picture
        self.image.props["src"] = picture.shown
        self.image.classes(add="pixels") if picture.small else self.image.classes(remove="pixels")
        self.concepts.open(picture)
        if self.trained.info.task == "classification":
            self.label.set_value(picture.label)

    def _labelled(self, event: events.ValueChangeEventArguments) -> None:
        if self.picture and self.picture.label != event.value:
            self.picture.label = event.value
            self._show()

    async def _reset(self) -> None:
        if self.picture:
            self.picture.corrections.clear()
            await self._refresh()

    async def _refresh(self) -> None:
        """Ask the model again; while it thinks, further corrections are gathered into one more question."""
        if self.picture and self.picture not in self.waiting:
            self.waiting.append(self.picture)
        if self.busy:
            return
        self.busy = True
        try:
            while self.waiting:
                await run.io_bound(self.session.explain, self.waiting.pop(0))
        finally:
            self.busy = False
        self._show()

    def _show(self) -> None:
        picture = self.picture
        for element in (self.image, self.answer, self.list):
            element.set_visibility(picture is not None)
        self.link.set_visibility(picture is not None and bool(picture.found.sent))
        self.hint.set_visibility(picture is None)
        self.reset.set_visibility(picture is not None and bool(picture.corrections))
        if picture:
            self._show_answer(picture)
            self._show_sent(picture)
            self.concepts.show()
        self._show_corrections()

    def _show_answer(self, picture: Picture) -> None:
        now, before = picture.answer, picture.found.answer
        shares = now.get("classes") or now["values"]
        if "class" in now:
            self.says.set_content(f"{now['class']}")
            said = f"{before['class']} ({percent(before['probability'])})"
        else:
            self.says.set_content(", ".join(f"{value:.4g}" for value in shares.values()))
            said = ", ".join(f"{value:.4g}" for value in before["values"].values())
        self.before.set_content(f"before your corrections: {said}" if picture.corrections else "")
        rows = list(shares.items()) if "class" in now else []
        for index, (row, name, bar, number) in enumerate(self.bars):
            row.set_visibility(index < len(rows))
            if index < len(rows):
                name.set_content(rows[index][0])
                bar.show(rows[index][1])
                number.set_content(percent(rows[index][1]))

    def _show_sent(self, picture: Picture) -> None:
        if picture.found.sent:
            self.bytes.set_content(size_sent(picture.found.sent))
            self.levels.clear()
            with self.levels:
                for level in levels_sent(picture.found.sent, readable):
                    text(level, "chip")

    def _show_corrections(self) -> None:
        corrected, clashes = self.session.corrected(), self.session.namesakes()
        self.summary.set_content(
            f"{len(corrected)} of {len(self.session.pictures)} pictures corrected or named"
            if corrected
            else "None yet: move a concept, or say what the picture really is."
        )
        advice = "say what each really is, or rename one, so that the table can tell them apart"
        self.clash.set_content(f"Several pictures are called {', '.join(clashes)}: {advice}" if clashes else "")
        for element in (self.download, self.how):
            element.set_visibility(bool(corrected))
        self.table.clear()
        with self.table:
            for picture in self.session.pictures:
                self._thumbnail(picture)

    def _thumbnail(self, picture: Picture) -> None:
        def open_it() -> None:
            self._open(picture)
            self._show()

        with box("thumbnail" + (" current" if picture is self.picture else ""), tag="button", type="button") as button:
            box("small", tag="img", src=picture.shown, alt=picture.file)
            with box(""):
                text(picture.file, "name")
                text(changes(picture) or ("named" if picture.label else "as the model saw it"), "note")
        button.on("click", open_it, args=[])

    def _download(self) -> None:
        ui.download.content(self.session.table(), FILE, "text/csv")


def changes(picture: Picture, *, shown: int = 4) -> str:
    """The corrections of a picture in words: what is there comes first."""
    order = sorted(picture.corrections.items(), key=lambda item: -item[1])
    words = {1.0: "{}", 0.0: "no {}"}
    said = [words.get(value, f"{{}} {percent(value)}").format(readable(name)) for name, value in order]
    return ", ".join(said[:shown]) + (f" and {len(said) - shown} more" if len(said) > shown else "")
