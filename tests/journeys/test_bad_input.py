"""Bad input through the real command line: one line for each mistake, the right exit code, nothing lost.

Exit codes are those of `zoo.errors`. Every test compares what lay in the working folder before and after.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.journeys.conftest import FOLDER, TINY, VIB, contents
from zoo.cli import main

MISTAKES = {
    "unknown verb": (["trian"], ["unknown verb 'trian': did you mean train?"]),
    "unknown option": (["list", "--jsno"], ["did you mean --json?"]),
    "unknown model": (["train", "model=cbn"], ["unknown model 'cbn': did you mean cbm?"]),
    "unknown data": (["train", "data=digit"], ["unknown data 'digit': did you mean digits?"]),
    "unknown experiment": (["train", "experiment=nonesuch"], ["'nonesuch'"]),
    "unknown key": (["train", "modle=cbm"], ["unknown key 'modle': did you mean model?"]),
    "record of a choice": (["train", "model_name=cbm"], ["unknown key 'model_name': did you mean model?"]),
    "key of another model": (["train", "model.beta=1"], ["unknown key 'model.beta' in model"]),
    "key below a value": (["train", "seed.start=1"], ["seed is a value, it has no 'start'"]),
    "no key": (["train", "task.lr"], ["cannot read 'task.lr': write key=value"]),
    "type": (["train", "task.lr=fast"], ["task.lr=fast: expected a number"]),
    "type of a list": (["train", "backbone.widths=3"], ["backbone.widths=3: expected a list"]),
    "type for several nodes": (["train", "seed=x"], ["seed=x: expected a whole number"]),
    "choice": (["train", "task.optimizer=adma"], ["expected one of 'adamw', 'adam', 'sgd'"]),
    "missing value": (["train", "data=folder"], ["data.root must be given"]),
    "sweep without -m": (["train", "seed=0,1"], ["seed=0,1: several values need a sweep: add -m"]),
    "several at once": (
        ["train", "model=cbn", "data=digist", "task.lr=abc", "sed=3"],
        ["unknown model 'cbn'", "unknown data 'digist'", "unknown key 'sed'", "task.lr=abc"],
    ),
    "several at once, in check": (
        ["check", "model=cbn", "task.lr=abc"], ["unknown model 'cbn'", "task.lr=abc: expected a number"]
    ),
    "recipe file": (["train", "model=mine.yaml"], ["there is no file mine.yaml"]),
    "missing folder": (["train", "data=folder", "data.root=nowhere"], ["data.root=nowhere: no such folder"]),
    "folder without classes": (["train", "data=folder", "data.root=photos/cat"], ["0 class folders"]),
    "negative batch": (["train", "data.batch_size=-1"], ["data.batch_size=-1: give at least 1"]),
    "share": (["train", "data.val_fraction=0.9"], ["give a share above 0 and below 0.5"]),
    "image too small": (["train", "model=litv2", "data.image_size=2"], ["are too small: take 8x8 or more"]),
    "image of another size than the weights'": (
        ["check", "backbone=shapes_clip", "data=shapes", "data.image_size=48", "task.lr=-1", "trainer.max_epochs=0"],
        ["data.image_size=48: the model sees images of 64x64: leave it out", "trainer.max_epochs=0"],
    ),
    "image that does not align": (["train", "model=bottlefit", "data.image_size=9"], ["images of 9x9 do not align"]),
    "regression": (
        ["train", "data=tabular", "backbone=mlp", "model=bottlefit"], ["bottlefit classifies: it takes no regression"]
    ),
    "a table for a network of images": (["train", "data=tabular", "model=timm"], ["shapes: "]),
    "no concepts": (["train", *FOLDER, "model=cbm"], ["the data name no concepts"]),
    "unknown weights of CLIP": (
        ["check", "model=labo", "data=shapes", "backbone.pretrained=shape"],
        ["backbone: shapes_clip has no weights 'shape' and there is no such file: did you mean shapes?"],
    ),
    "unknown weights of open_clip": (
        ["train", "backbone=clip", "backbone.pretrained=opnai"],
        ["backbone: ViT-B-32 has no weights 'opnai' and there is no such file: did you mean openai?"],
    ),
    "unknown network of timm": (["train", "backbone=timm:resnt18"], ["did you mean resnet18"]),
    "no accelerator": (["train", "trainer.accelerator=warp"], ["trainer: ", ]),
    "no graphics card": (["train", "trainer.accelerator=cuda", "trainer.devices=99"], ["trainer: "]),
    "processes": (["train", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=9999"], ["processor cores"]),
    "epochs": (["train", "trainer.max_epochs=0"], ["trainer.max_epochs=0: give at least 1"]),
    "learning rate": (["train", "task.lr=-1"], ["task: lr=-1: give at least 0"]),
    "several values of the data": (
        ["check", "data.num_workers=-1", "data.image_size=-3", "data.batch_size=0"],
        ["data.batch_size=0: give at least 1", "data.num_workers=-1: give at least 0", "data.image_size=-3: give at"],
    ),
    "an image beyond memory": (["check", "data.image_size=100000000"], ["takes 40,000,000 GB, this machine has"]),
    "seed": (["train", "seed=-1"], ["seed=-1: give a whole number from 0 to 4294967295"]),
    "null": (["train", "seed=null"], ["seed=null: expected a whole number"]),
    "items of a list": (["check", "backbone.widths=[a,4]"], ["expected a list, each a whole number"]),
    "value of an item": (["check", "backbone.widths=[0]"], ["widths=[0]: give at least 1 channel"]),
    "narrowest link": (["check", "model=bottlefit", "model.bottleneck_channels=0"], ["bottleneck_channels=0: give at"]),
    "rate that is no number": (["check", "task.lr=nan"], ["lr=nan: give a finite number"]),
    "group taken away": (["check", "~model", "~seed"], ["~model: a model is needed", "~seed: seed is needed"]),
    "no output folder": (["train", "output_dir="], ["output_dir=: give a folder"]),
    "no length": (["check", "trainer.max_epochs=null"], ["trainer.max_epochs=null: give at least 1"]),
    "what the trainer is given anyway": (
        ["check", "trainer.callbacks=[x]", "trainer.enable_checkpointing=false", "trainer.limit_train_batches=0"],
        ["nothing would be learned", "trainer.callbacks: ", "trainer.enable_checkpointing=false: "],
    ),
    "sweep": (
        ["train", "-m", "model=cbm,cbn", "data.val_fraction=0.9,0.1", "task.lr=abc"],
        ["task.lr=abc: expected a number", "unknown model 'cbn': did you mean cbm? (in model=cbn data.val"],
    ),
    "resume without a name": (["train", "resume="], ["'' is no run: give the folder of one, or latest"]),
    "no name": (["predict", "", "digit.png"], ["'' is no run"]),
    "explain: run, image, picture": (
        ["explain", "nope", "no.png", "--out", "no/why.png"],
        ["'nope' is neither a run nor a model of the catalogue: give the folder", "no.png: cannot be", "--out no"],
    ),
    "predict: run, images": (
        ["predict", "cmb", "no.png", "text.png"], ["did you mean cem or cbm?", "no.png: there is no", "text.png: is"]
    ),
    "predict: run without weights, image": (["predict", "vib", "no.png"], ["vib has no released weights", "no.png: "]),
    "eval: run, data": (
        ["eval", "nowhere/latest", "data=digist", "model=vib"],
        ["'nowhere/latest' is neither", "model=vib: a trained model takes only data=NAME", "did you mean digits?"],
    ),
    "ask: run, images": (["ask", "nope", "p(a | class=b)", "--images", "0"], ["'nope' is neither", "--images 0: give"]),
    "edit: run, place": (
        ["edit", "nope", "--class", "8", "--concept", "a", "--out", "photos"], ["'nope' is neither", "--out photos: "]
    ),
    "adapt: run, images, place": (
        ["adapt", "nope", "--images", "no", "--out", "photos"], ["'nope' is", "no: there is no", "--out photos: "]
    ),
    "search: number, images, backbone": (
        ["search", "a dog", "no.png", "backbone=clp", "--top", "0"],
        ["--top 0: give at least 1", "no.png: there is no such", "unknown backbone 'clp': did you mean clip"],
    ),
    "bench: sizes, seconds, models": (
        ["bench", "cbn", "--batch", "0", "--budget", "-1", "--device", "cdua"],
        ["--batch 0: write positive", "--budget -1: give seconds", "--device cdua", "unknown model 'cbn'"],
    ),
    "export: run, data, tolerance": (
        ["export", "nope", "data=digist", "--tolerance", "-1", "--format", "pt2"],
        ["'nope' is neither", "--tolerance -1: give a", "did you mean digits?"],
    ),
    "required words": (["eval"], ["the following arguments are required: RUN (see"]),
    "root without a name": (["check", "data=folder", "data.root="], ["data.root=: give the folder"]),
    "named split": (["check", *FOLDER, *VIB, "data.train=learn"], ["data.train=learn: there is neither a folder nor"]),
    "absent corrections": (["check", *FOLDER, "data.concepts=nope.csv"], ["nope.csv: cannot be read (No such"]),
    "a text to convert": (["convert", "cbm", "file"], ["file: not a PyTorch checkpoint, or a truncated one"]),
    "time for a measurement": (["bench", "cbm", "--budget", "-1"], ["--budget -1: give seconds, at least 0"]),
    "unknown torchvision set": (["train", "data=torchvision", "data.name=CIFAR1"], ["CIFAR10, CIFAR100"]),
    "download not allowed": (["train", "data=torchvision", "data.name=MNIST", *VIB], ["set data.download=true"]),
    "file for a folder": (["train", "output_dir=file"], ["output_dir=file: Not a directory: give a folder"]),
    "init_from": (["train", "init_from=cmb"], ["'cmb' is neither a run nor a model of the catalogue"]),
    "init_from no weights": (["train", "init_from=text.png"], ["text.png"]),
    "resume nothing": (["train", "resume=latest"], ["there is no run below outputs yet"]),
    "resume nowhere": (["train", "resume=nowhere"], ["nowhere is no run: there is no such folder"]),
    "no run": (["eval", "latest"], ["there is no run below outputs yet"]),
    "no released weights": (["predict", "vib", "digit.png"], ["vib has no released weights"]),
    "export format": (["export", "latest", "--format", "onx"], ["invalid choice: 'onx'"]),
}  # fmt: skip


@pytest.mark.parametrize(("words", "lines"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_a_line_and_nothing_is_written(words, lines, refuse):
    refuse(words, 2, *lines)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a graphics card")
def test_settings_for_another_machine(refuse):
    refuse(["train", "trainer=gpu"], 2, "No supported gpu backend found")


def test_a_tracker_that_is_not_installed(refuse, monkeypatch):
    monkeypatch.setattr("zoo.preflight.find_spec", lambda name: None)
    refuse(["train", "logger=wandb"], 3, "logger=wandb needs the package wandb: pip install wandb")
    refuse(["train", "logger=tensorboard"], 3, "pip install 'bottleneck-zoo[tracking]'")


# data


def test_an_empty_class(refuse, here):
    (here / "photos" / "bird").mkdir()
    refuse(["train", *FOLDER, *VIB], 2, "class 'bird' has no image; add some or remove it")


def test_a_text_that_calls_itself_a_picture(refuse, here):
    shutil.copy("text.png", here / "photos" / "cat" / "x.png")
    refuse(["train", *FOLDER, *VIB], 2, "photos/cat/x.png: ", new_files=True)


def test_a_truncated_picture_can_be_skipped(refuse, here, capfd):
    whole = (here / "photos" / "dog" / "3.png").read_bytes()
    (here / "photos" / "dog" / "3.png").write_bytes(whole[: len(whole) // 2])
    refuse(["train", *FOLDER, *VIB], 2, "photos/dog/3.png: ", new_files=True)
    assert main(["train", *FOLDER, *VIB, "data.on_error=skip", "data.shots=20"]) == 0
    out = capfd.readouterr().out
    assert "data.shots=20: these classes have fewer items, all are taken: dog (7), cat (8)\n" in out
    log = (here / "outputs" / "latest" / "train.log").read_text()
    assert "1 of 20 images left out:" in log
    assert "1 of 20 images left out (more in train.log)" in out
    assert "photos/dog/3.png" in log


CONCEPTS = {
    "ragged": ("class_concepts.csv", "class_name,tail,bark\ncat,1\ndog,1,1\n", ["class_concepts.csv"]),
    "no number": ("class_concepts.csv", "class_name,tail,bark\ncat,1,no\ndog,1,1\n", ["class_concepts.csv"]),
    "unknown class": (
        "class_concepts.csv", "class_name,tail\ncat,1\ndog,0\nfish,1\n", ["class_name 'fish' is no class of the data"]
    ),
    "absent class": ("class_concepts.csv", "class_name,tail\ncat,1\n", ["class 'dog' has no row; add one"]),
    "absent images": ("concepts.csv", "file,tail\ncat/0.png,1\n", ["has no row"] * 5 + ["14 more like the last"]),
    "unknown image": (
        "concepts.csv",
        "file,tail\n" + "".join(f"{c}/{i}.png,1\n" for c in ("cat", "dog") for i in range(10)) + "cat/99.png,1\n",
        ["cat/99.png is no image here; remove the row"],
    ),
    "no concepts": ("class_concepts.csv", "class_name\ncat\ndog\n", ["no concept columns"]),
    "empty": ("concepts.csv", "", ["concepts.csv: is empty, no column file;"]),
    "semicolons": ("class_concepts.csv", "class_name;tail\ncat;1\n", ["columns are separated by ';'"]),
    "column without a name": ("class_concepts.csv", "class_name,tail,\ncat,1,1\n", ["column 3 has no name"]),
    "misnamed": ("class_concept.csv", "class_name,tail\ncat,1\ndog,0\n", ["rename it to class_concepts.csv"]),
    "no key": ("class_concepts.csv", "tail\n1\n0\n", ["has no column"]),
    "tabs": ("class_concepts.csv", "class_name\ttail\ncat\t1\n", ["columns are separated by tabs"]),
}  # fmt: skip


@pytest.mark.parametrize(("name", "text", "lines"), CONCEPTS.values(), ids=CONCEPTS)
def test_a_table_of_concepts(name, text, lines, refuse, here):
    (here / "photos" / name).write_text(text)
    refuse(["train", *FOLDER, "model=cbm"], 2, *lines)


def test_a_table_without_its_target(refuse, here):
    (here / "table.csv").write_text("a,b\n1,2\n3,4\n")
    refuse(["train", "data=tabular", "data.root=table.csv", "backbone=mlp", *VIB], 2, "target")


def test_corrections_that_cannot_be_used(refuse, here):
    (here / "photos" / "class_concepts.csv").write_text("class_name,tail\ncat,1\ndog,0\n")
    words = ["check", *FOLDER, "data.concepts=fixes.csv"]
    (here / "fixes.csv").write_text("file,tail\n")
    refuse(words, 2, "fixes.csv: has no row below its names")
    (here / "fixes.csv").write_text("file,tail\ncat/0.png,1\n", encoding="utf-16")
    refuse(words, 2, "fixes.csv: is not UTF-8 text; save it as comma-separated UTF-8 text")
    refuse(
        ["check", *VIB, "data=folder", "data.root=file"], 2, "file: is a file; give a folder with a folder of images"
    )


# training


def test_a_loss_that_is_not_finite(refuse, here):
    line = refuse(["train", *TINY, "task.lr=1e30", "data.batch_size=16"], 1, "the loss is not finite", new_files=True)
    assert "epoch 0, step " in line
    log = Path(line[line.index("(log: ") + len("(log: ") :].rstrip(")\n"))
    assert "FloatingPointError" in (here / log).read_text()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(refuse, here):
    (here / "outputs").mkdir(mode=0o500)
    refuse(["train", *TINY], 2, "output_dir=outputs: Permission denied: give a folder that can be written")


def test_one_job_of_a_sweep_fails_and_the_others_run(refuse, here, capfd):
    words = ["train", "-m", "task.lr=1e30,1e-3", *TINY, "data.batch_size=16", *VIB, "--json"]
    before = contents(here)
    assert main(words) == 1
    shown = capfd.readouterr()
    failed, done = json.loads(shown.out)
    assert "the loss is not finite" in failed["error"]
    assert "lower task.lr (now 1e+30)" in shown.err
    assert (here / done["run"] / "model.safetensors").is_file()
    assert contents(here) | before == contents(here)


def test_what_is_wrong_with_a_run_and_with_the_rest_is_told_together(refuse, trained):
    set_wrong = ["explain", trained, "no.png", "--set", "lower_lop=0"]
    refuse(set_wrong, 2, "--set lower_lop=0: unknown concept 'lower_lop': did you mean", "no.png: cannot be read")
    refuse(["ask", trained, "p(top_bar)", "--images", "0"], 2, "cbm has no joint energy to ask", "--images 0")
    edit = ["edit", trained, "--class", "8", "--concept", "top_bar", "--out", "photos"]
    refuse(edit, 2, "cbm cannot be edited", "--out photos: there is something already")
    adapt = ["adapt", trained, "--images", "photos", "--out", "photos"]
    refuse(adapt, 2, "photos/cat: no class of the model", "photos/dog: no class", "--out photos: there is something")
    export = ["export", trained, "data=shapes", "--out", "file", "--format", "pt2", "--tolerance", "-1"]
    refuse(export, 2, "--out file is a file", "data: 12 classes, the", "data: 19 concepts, the", "--tolerance -1")


def test_words_that_are_read_otherwise_than_meant(refuse, here, trained):
    shutil.copy("digit.png", "-x.png")
    refuse(["predict", trained, "-x.png"], 2, "-x.png looks like an option: for the file write ./-x.png")
    refuse(["explain", trained, "digit.png", "--set", "top_bar=1,lower_loop=0"], 2, "write --set once for each concept")


def test_a_folder_of_runs(refuse, trained):
    above = trained.parent
    refuse(["eval", above], 2, f"it holds runs: the newest of them is {above / 'latest'}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everywhere")
def test_a_run_that_cannot_be_read_or_written(refuse, damaged):
    damaged.chmod(0o500)
    refuse(["report", "run"], 2, "run: nothing can be written there")
    (damaged / "model.safetensors").chmod(0)
    refuse(["eval", "run"], 2, "model.safetensors: cannot be read: change its permissions")
    damaged.chmod(0o700)


def test_released_weights_are_not_fetched_for_a_mistake(refuse, monkeypatch):
    monkeypatch.setattr("zoo.catalogue.Entry.checkpoint", lambda self, tag: None)
    monkeypatch.setattr("zoo.checkpoints.fetch_checkpoint", lambda name, tag: pytest.fail("weights were fetched"))
    refuse(["explain", "cbm", "no.png"], 2, "no.png: cannot be read")


def test_weights_of_another_model(refuse, here, trained):
    refuse(["train", *VIB, "backbone=mlp", "backbone.hidden=[3]", f"init_from={trained}"], 2, "none of its ")


# as a user runs it


def zoo_process(*words: str, cwd: Path, **settings) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "zoo", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False, **settings)


@pytest.mark.slow
def test_a_failed_run_has_one_line_on_stderr(here):
    done = zoo_process("train", *TINY, "task.lr=1e30", "data.batch_size=16", cwd=here)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "the loss is not finite" in done.stderr


@pytest.mark.slow
def test_a_run_that_ends_well_says_nothing_on_stderr(here):
    done = zoo_process("train", *TINY, cwd=here)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_names_that_the_locale_cannot_write(here):
    (here / "photos" / "class_concepts.csv").write_text("class_name,名,b=1\ncat,1,0\ndog,0,1\n", encoding="utf-8")
    locale = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = zoo_process("train", *FOLDER, cwd=here, env=locale)
    assert (done.returncode, done.stderr) == (0, "")
    assert "concept \\u540d" in done.stdout
    assert "名" in (here / "outputs" / "latest" / "MODEL_CARD.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_full_disk(here, trained):
    """No file may grow beyond what a checkpoint needs: what a full disk does to a writer."""
    shutil.copytree(trained, here / "outputs" / "supervised" / "cbm-digits" / "earlier")
    before = contents(here)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = zoo_process("train", "trainer.max_epochs=1", "trainer.accelerator=cpu", cwd=here, preexec_fn=limit)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("zoo train failed: ")
    assert contents(here) | before == contents(here)
    assert not [path for path in here.rglob("*") if path.suffix == ".tmp"]
