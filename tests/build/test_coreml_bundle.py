"""The demo recipe as an iOS bundle, which is Core ML's by default: judged by the simulator, and said to be."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from slmc.bundle.manifest import NOT_RUN
from slmc.cli.main import cli
from slmc.pipeline import Built, build
from slmc.plan import resolve
from slmc.target import load_target

from .conftest import LIMIT, Demo

pytestmark = [pytest.mark.build, pytest.mark.filterwarnings("ignore")]  # deprecations in the libraries


@pytest.fixture(scope="module")
def ios(demo: Demo) -> Built:
    return build(resolve(demo.plan.recipe, load_target("ios")), demo.store, demo.out, limit=LIMIT)


def test_the_simulated_rung_is_within_a_point_of_the_quantized_one(ios: Built) -> None:
    assert ios.report is not None
    quantized, compiled = ios.report.rung("quantized").answers, ios.report.rung("compiled").answers
    assert quantized is not None
    assert compiled is not None
    assert abs(quantized.accuracy.share - compiled.accuracy.share) < 0.01
    assert compiled.against_previous is not None
    assert compiled.against_previous.agreement is not None
    assert compiled.against_previous.agreement.share > 0.995


def test_the_report_and_the_manifest_call_it_simulated(ios: Built) -> None:
    assert ios.report is not None
    rung = ios.report.rung("compiled")
    assert rung.adds == "the backend's arithmetic, simulated"
    assert rung.answers is not None
    assert rung.answers.environment.simulated
    validation = ios.manifest.validation
    assert validation is not None
    assert [run.runtime for run in validation.runs if run.rung == "compiled"] == ["coreml-sim simulated"]
    assert (ios.manifest.backend, ios.manifest.delegate, ios.manifest.device) == ("coreml", "gpu", NOT_RUN)


def test_no_speed_is_read_off_a_simulation(ios: Built) -> None:
    done = CliRunner().invoke(cli, ["bench", str(ios.bundle), "--rounds", "3"])
    assert "the times of a simulation are no speed" in str(done.exception)


def test_slmc_run_asks_it(ios: Built) -> None:
    done = CliRunner().invoke(cli, ["run", str(ios.bundle), "what is the weather in Paris", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["label"] == "weather"
