"""The demo recipe as an Android bundle: what the official runner and ours make of it on this machine."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from slmc.bundle.golden import GoldenItem, read_golden
from slmc.bundle.manifest import NOT_RUN
from slmc.cli.main import cli
from slmc.pipeline import Built, build
from slmc.plan import resolve
from slmc.prompt import Codec
from slmc.target import load_target

from .conftest import LIMIT, Demo

pytestmark = [pytest.mark.build, pytest.mark.filterwarnings("ignore")]  # deprecations in the libraries


@pytest.fixture(scope="module")
def android(demo: Demo) -> Built:
    return build(resolve(demo.plan.recipe, load_target("android")), demo.store, demo.out, limit=LIMIT)


def test_the_compiled_rung_is_within_a_point_of_the_quantized_one(android: Built) -> None:
    assert android.report is not None
    quantized, compiled = android.report.rung("quantized").answers, android.report.rung("compiled").answers
    assert quantized is not None
    assert compiled is not None
    assert abs(quantized.accuracy.share - compiled.accuracy.share) < 0.01
    assert android.report.rung("compiled").adds == "activation quantization"


def test_the_manifest_says_what_the_delegate_took_over(android: Built) -> None:
    found = android.manifest.delegation
    assert found is not None
    assert (found.delegate, found.unexpected) == ("xnnpack", {})
    assert found.outside["llama::custom_sdpa"] == found.graphs - 2
    assert android.manifest.device == NOT_RUN


def answers(golden: list[GoldenItem]) -> list[str]:
    found = [item.reference for item in golden]
    return [one.answer for one in found if one is not None]


OWN_RUNNER = """
import json, sys
import executorch.kernels.quantized
from executorch.extension.llm.custom_ops import custom_ops
from executorch.extension.llm.runner import GenerationConfig, TextLLMRunner
program, tokenizer, prompts = json.load(sys.stdin)
runner = TextLLMRunner(program, tokenizer)
found = []
for prompt in prompts:
    pieces = []
    runner.generate(
        prompt, GenerationConfig(echo=False, max_new_tokens=32, temperature=0.0), pieces.append, lambda _: None
    )
    runner.reset()
    found.append("".join(pieces))
print(json.dumps(found))
"""


def test_executorch_s_own_runner_gives_the_golden_answers(android: Built) -> None:
    """In a process of its own, so that it has the operators that it loads itself."""
    manifest, golden = android.manifest, read_golden(android.bundle)
    program, tokenizer = android.bundle / manifest.artifact / "model.pte", android.bundle / manifest.tokenizer
    asked = json.dumps([str(program), str(tokenizer / "tokenizer.json"), [item.prompt for item in golden]])
    done = subprocess.run([sys.executable, "-c", OWN_RUNNER], input=asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    end = Codec.open(tokenizer).format.end_token
    assert [text.removesuffix(end) for text in json.loads(done.stdout.splitlines()[-1])] == answers(golden)


def test_slmc_run_gives_the_golden_answers(android: Built) -> None:
    golden = read_golden(android.bundle)[:8]
    found = []
    for item in golden:
        [text] = item.fields.values()
        done = CliRunner().invoke(cli, ["run", str(android.bundle), text, "--json"])
        assert done.exit_code == 0, done.output
        found.append(json.loads(done.stdout)["label"])
    assert found == answers(golden)
