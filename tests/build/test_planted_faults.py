"""A wrong build must be caught, and the ladder must name the rung where it went wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from slmc import backends, beside, rungs
from slmc.artifacts import MergedCheckpoint
from slmc.bundle.manifest import read_manifest
from slmc.checkpoint.reader import TensorReader
from slmc.checkpoint.stored import read_header
from slmc.evidence import compared, open_base
from slmc.names import SCHEMES
from slmc.pipeline import merge_stage
from slmc.prompt import TOKENIZER_FILE, Codec, PromptFormat
from slmc.quant import readback
from slmc.quant.decisions import decide
from slmc.quant.quantizer import quantize, round_tensor
from slmc.quant.reader import open_quantized
from slmc.quant.rtn import quantize_rows
from slmc.quant.survival import measure
from slmc.quant.writer import quantized_checkpoint
from slmc.quantization import quantize_stage
from slmc.runners.files import read_workload
from slmc.runners.launch import run
from slmc.store import Entry
from slmc.text.task import TASK_FILE, Task, write_task
from slmc.validate.ladder import Rung, judge
from slmc.validate.report import Report

from .conftest import LIMIT, Demo
from .weight_file import Bytes, change_matrix

pytestmark = pytest.mark.build

Tensors = dict[str, npt.NDArray[np.generic]]
G32 = SCHEMES["int4-g32"]


class Ladder:
    """The demo's ladder with one rung's folder replaced by a faulty one."""

    def __init__(self, demo: Demo, work: Path) -> None:
        self.demo, self.work = demo, work
        self.merged = merge_stage(demo.plan, demo.store)
        stage = rungs.reference_stage(demo.plan, LIMIT)
        self.reference = demo.store.root / stage.name / stage.key
        codec = Codec.open(self.reference / rungs.CODEC)
        self.quantized = open_quantized(quantize_stage(demo.plan, demo.store, self.merged, codec).folder)
        base = open_base(demo.plan)
        assert base is not None
        self.base = base
        entry = Entry(stage.name, stage.key, self.reference, reused=True, seconds=0.0)
        self.answered_by_base = beside.run_base(demo.store, base, entry)

    def judge(self, *, quantized: Path | None = None, bundle: Path | None = None, task: Path | None = None) -> Report:
        """With none of them, the demo's own rungs."""
        workload, proof = self.reference / rungs.WATCHED, self.demo.out / f"{self.demo.plan.name}.proof"
        results = {name: proof / f"{name}.jsonl" for name in ("quantized", "compiled")}
        if quantized is not None:
            results["quantized"] = self.work / "quantized.jsonl"
            run(
                rungs.reference_command(quantized, self.reference / rungs.CODEC),
                workload,
                results["quantized"],
                timeout_s=600,
            )
        if bundle is not None:
            results["compiled"] = self.work / "compiled.jsonl"
            command = rungs.bundle_command(bundle, read_manifest(bundle))
            run(command, workload, results["compiled"], timeout_s=600)
        if task is not None:
            command = rungs.bundle_command(self.demo.built.bundle, self.demo.built.manifest)
            run([*command, "--task", str(task)], workload, self.work / "app.jsonl", timeout_s=600)
        stored = self.quantized if quantized is None else open_quantized(quantized)
        bundle = bundle or self.demo.built.bundle
        ladder = [
            Rung("reference", self.reference / rungs.REFERENCE),
            Rung(
                "quantized",
                results["quantized"],
                compared(readback.read_back(self.merged, stored)),
                measure(self.base, self.merged, stored, lambda _: None),
            ),
            Rung("compiled", results["compiled"], compared(backends.read_back(stored, "tvm", bundle / "model"))),
        ]
        if task is not None:
            ladder.append(Rung("app", self.work / "app.jsonl"))
        return judge(self.demo.plan.recipe, read_workload(workload), ladder, base=self.answered_by_base)

    def bundle(self) -> Path:
        return Path(shutil.copytree(self.demo.built.bundle, self.work / "bundle"))

    def quantized_copy(self) -> Path:
        return Path(shutil.copytree(self.quantized.folder, self.work / "quantized"))


@pytest.fixture
def ladder(demo: Demo, tmp_path: Path) -> Ladder:
    return Ladder(demo, tmp_path)


def change_weights(file: Path, change: Callable[[Tensors], None]) -> None:
    """In place: the kernels rely on where the file's tensors begin."""
    tensors: Tensors = load_file(file)
    change(tensors)
    with file.open("r+b") as opened:
        for name, stored in read_header(file).items():
            opened.seek(stored.offset)
            opened.write(tensors[name].tobytes())


def failed(report: Report, rung: str) -> set[str]:
    """The gates that a rung fails."""
    return {check.gate for check in report.checks if check.rung == rung and check.verdict == "fail"}


def blamed(report: Report) -> tuple[str, str]:
    assert report.verdict == "fail"
    assert report.blame is not None
    return report.blame.rung, report.blame.gate


def test_the_demo_itself_passes_and_blames_nobody(ladder: Ladder) -> None:
    report = ladder.judge()
    assert report.verdict != "fail"
    assert report.blame is None


def test_a_dropped_adapter_shows_at_the_quantized_rung(ladder: Ladder) -> None:
    base = ladder.base
    folder = ladder.work / "no-adapter"
    folder.mkdir()
    quantize(MergedCheckpoint(base.folder, base.architecture, base.digest), G32, (), folder, lambda _: None)
    report = ladder.judge(quantized=folder)
    assert blamed(report) == ("quantized", "adapter")
    assert "28 of 28 matrices have lost the adapter's change" in str(report.blame)
    # The task itself is gone too.
    assert failed(report, "quantized") == {"adapter", "weights", "max_accuracy_drop", "max_mean_kl", "min_survival"}


def test_a_layer_without_its_adapter_is_named(ladder: Ladder) -> None:
    """All of layer 2 comes from the base, the rest from the merged checkpoint."""
    names = [spec.name for spec in ladder.merged.architecture.tensors() if (spec.layer, spec.role) == (2, "linear")]
    folder = ladder.work / "layer-dropped"
    folder.mkdir()
    decisions = decide(ladder.merged.architecture, G32, ())
    with (
        TensorReader(ladder.base.folder) as base,
        quantized_checkpoint(ladder.merged, G32, decisions, folder, lambda _: None) as writer,
    ):
        for decision in decisions:
            name = decision.spec.name
            if name in names:
                writer.write(name, "rtn", *quantize_rows(base.array(name), G32))
            elif decision.scheme is not None:
                round_tensor(writer, name, G32)
    quantized = open_quantized(folder)
    assert all(same for _, same in readback.read_back(ladder.merged, quantized))  # the writer told the distance
    adapter = measure(ladder.base, ladder.merged, quantized, lambda _: None)
    assert adapter.whole is not None
    assert adapter.whole.coefficient > 0.5
    assert [one.name for one in adapter.tensors if one.coefficient < 0.5] == names
    report = ladder.judge(quantized=folder)
    assert blamed(report) == ("quantized", "adapter")
    assert "7 of 28 matrices have lost the adapter's change: model.layers.2." in str(report.blame)


def test_scales_off_by_one_group_show_where_they_were_moved(ladder: Ladder) -> None:
    def shift(tensors: Tensors) -> None:
        name = "model.layers.1.mlp.down_proj.weight_scale"
        tensors[name] = np.ascontiguousarray(np.roll(tensors[name], 1, axis=1))

    folder = ladder.quantized_copy()
    change_weights(folder / "model.safetensors", shift)
    report = ladder.judge(quantized=folder)
    assert blamed(report) == ("quantized", "weights")
    assert "model.layers.1.mlp.down_proj.weight" in str(report.blame)


def test_a_packing_bug_shows_at_the_compiled_rung(ladder: Ladder) -> None:
    """The same off-by-one, but in what the backend packed."""
    bundle = ladder.bundle()

    def shift(_: Bytes, scales: npt.NDArray[np.uint16]) -> None:
        scales[...] = np.roll(scales, 1, axis=1)

    change_matrix(bundle / "model", "layers.1.down", shift)
    report = ladder.judge(bundle=bundle)
    assert blamed(report) == ("compiled", "weights")
    assert "model.layers.1.mlp.down_proj.weight" in str(report.blame)


def test_a_swapped_head_shows_at_the_compiled_rung(ladder: Ladder) -> None:
    """Query heads 0 and 7 of the first layer change places; the output projection does not know."""
    bundle = ladder.bundle()
    rows = ladder.demo.plan.architecture.head_dim // 8  # blocks of eight rows

    def swap(codes: Bytes, scales: npt.NDArray[np.uint16]) -> None:
        first, last = slice(0, rows), slice(7 * rows, 8 * rows)
        for part in (codes, scales):
            part[first], part[last] = part[last].copy(), part[first].copy()

    change_matrix(bundle / "model", "layers.0.qkv", swap)
    report = ladder.judge(bundle=bundle)
    assert blamed(report) == ("compiled", "weights")
    assert failed(report, "compiled") > {"weights"}  # seen in the answers too


def test_a_wrong_rope_theta_shows_at_the_compiled_rung(ladder: Ladder) -> None:
    folder = ladder.quantized_copy()
    config = json.loads((folder / "config.json").read_text())
    assert config["rope_parameters"]["rope_theta"] == 10000.0
    config["rope_parameters"]["rope_theta"] = 500.0
    (folder / "config.json").write_text(json.dumps(config))
    (folder / ".stage.json").unlink()
    bundle = ladder.bundle()
    shutil.rmtree(bundle / "model")
    (bundle / "model").mkdir()
    compile_ = backends.compiler(ladder.demo.plan, ladder.demo.store, Codec.open(bundle / "tokenizer"))
    compile_(open_quantized(folder), bundle / "model", lambda _: None)
    report = ladder.judge(bundle=bundle)
    assert blamed(report) == ("compiled", "weights")
    assert "ropes.0.cosines" in str(report.blame)
    assert failed(report, "compiled") > {"weights"}  # seen in the answers too


def test_a_changed_chat_template_shows_as_the_prompt(ladder: Ladder) -> None:
    bundle = ladder.bundle()
    path = bundle / "tokenizer" / "prompt.json"
    form = json.loads(path.read_text())
    form["suffix"] = form["suffix"].replace("<|assistant|>", "<|user|>")
    path.write_text(json.dumps(form))
    assert blamed(ladder.judge(bundle=bundle)) == ("compiled", "prompt")


def app_task(ladder: Ladder, form: PromptFormat) -> Path:
    """The demo's task file with another prompt."""
    plan, tokenizer = ladder.demo.plan, ladder.demo.built.bundle / "tokenizer" / TOKENIZER_FILE
    codec = Codec(Tokenizer.from_file(str(tokenizer)), form)
    write_task(Task(tokenizer, codec, plan.recipe.labels(), ()), ladder.work / TASK_FILE)
    return ladder.work / TASK_FILE


def test_an_app_of_another_prompt_shows_at_its_own_rung(ladder: Ladder) -> None:
    """The model and the runner's own tokenizer are well; what the app's library makes of a text is not."""
    form = Codec.open(ladder.demo.built.bundle / "tokenizer").format
    assert ladder.judge(task=app_task(ladder, form)).blame is None
    report = ladder.judge(task=app_task(ladder, form.model_copy(update={"suffix": "\n" + form.suffix})))
    assert blamed(report) == ("app", "prompt")
    assert not failed(report, "compiled")
