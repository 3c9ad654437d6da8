"""States of saved ML programs, and the faults and damage that their interpreter must name."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slmc.errors import RunnerError
from slmc.mil.interpreter import Interpreter
from slmc.mil.package import Package
from slmc.mil.weights import Weights

from .mil_programs import (
    F16,
    I32,
    INT4,
    MODEL,
    RANDOM,
    WEIGHTS,
    Build,
    ct,
    edit,
    mb,
    operation,
    run,
    save,
    some,
    state,
    tensor,
    torch,
    types,
)

pytestmark = [pytest.mark.build, pytest.mark.filterwarnings("ignore")]  # deprecations in the libraries


SLOTS, WIDTH = 8, 4


def cache(tokens: int, touch: Callable[[Any], Any] = lambda found: found) -> Build:
    """Write rows `a` into the state `c` at the position `b`; the whole state plus one."""

    def build(a: Any, b: Any, c: Any) -> Any:
        zero = np.array([0], I32)
        end = mb.concat(values=[mb.add(x=b, y=np.int32(tokens)), np.array([WIDTH], I32)], axis=0)
        begin = mb.concat(values=[b, zero], axis=0)
        before = mb.read_state(input=c)
        new = mb.slice_update(x=before, update=a, begin=begin, end=end)
        found = mb.coreml_update_state(state=c, value=new)
        return touch((before, mb.add(x=found, y=F16(1))))

    return build


def cached(tokens: int) -> list[Any]:
    return [tensor(tokens, WIDTH), tensor(1, dtype=types.int32), state(SLOTS, WIDTH)]


def test_two_functions_over_one_state(tmp_path: Path) -> None:
    description = ct.utils.MultiFunctionDescriptor()
    for tokens, name in ((3, "prefill"), (1, "decode")):
        part = save(tmp_path, cached(tokens), cache(tokens, lambda found: found[1]), name)
        description.add_function(str(part), "main", name)
    description.default_function_name = "prefill"
    ct.utils.save_multifunction(description, str(tmp_path / "both.mlpackage"))
    package = Package(tmp_path / "both.mlpackage")
    prefill, decode = (Interpreter(package, name) for name in ("prefill", "decode"))
    kept, wanted = prefill.new_state(), np.zeros((SLOTS, WIDTH), F16)
    buffer = kept.buffers["c"]
    for interpreter, first, count in ((prefill, 0, 3), (decode, 3, 1), (decode, 4, 1), (prefill, 2, 3)):
        rows = some(count, WIDTH)
        wanted[first : first + count] = rows
        feeds = {"a": torch.from_numpy(rows), "b": torch.tensor([first], dtype=torch.int32)}
        [found] = interpreter.run(feeds, kept).values()
        np.testing.assert_array_equal(found.numpy(), wanted + F16(1))
        np.testing.assert_array_equal(kept.buffers["c"].numpy(), wanted)
    assert kept.buffers["c"] is buffer  # written in place
    with pytest.raises(RunnerError, match="slice_update"):  # beyond the last slot
        prefill.run({"a": torch.zeros(3, WIDTH).half(), "b": torch.tensor([6], dtype=torch.int32)}, kept)


def test_a_value_read_earlier_is_not_changed_by_an_update(tmp_path: Path) -> None:
    package = save(tmp_path, cached(1), cache(1, lambda found: (mb.identity(x=found[0]), found[1])))
    interpreter = Interpreter(Package(package))
    kept = interpreter.new_state()
    feeds = {"a": torch.ones(1, WIDTH).half(), "b": torch.tensor([2], dtype=torch.int32)}
    before, after = interpreter.run(feeds, kept).values()
    assert not before.any()
    assert after.sum() == SLOTS * WIDTH + WIDTH


def test_an_update_that_is_not_written_changes_no_state(tmp_path: Path) -> None:
    def build(a: Any, b: Any) -> Any:
        new = mb.slice_update(x=mb.read_state(input=b), update=a, begin=[0], end=[2])
        again = mb.coreml_update_state(state=b, value=mb.concat(values=[a, a], axis=0))
        return mb.add(x=new, y=again)

    interpreter = Interpreter(Package(save(tmp_path, [tensor(2), state(4)], build)))
    kept = interpreter.new_state()
    for wanted in ([6, 8, 3, 4], [6, 8, 6, 8]):
        [found] = interpreter.run({"a": torch.tensor([3, 4]).half()}, kept).values()
        assert found.tolist() == wanted
    assert kept.buffers["b"].tolist() == [3, 4, 3, 4]


def test_a_state_is_written_each_time(tmp_path: Path) -> None:
    """With a constant, and after the sum of it and what was there."""

    def build(a: Any, b: Any) -> Any:
        found = mb.add(x=a, y=mb.read_state(input=b))
        mb.coreml_update_state(state=b, value=np.array([5, 6], F16))
        return found

    interpreter = Interpreter(Package(save(tmp_path, [tensor(2), state(2)], build)))
    kept = interpreter.new_state()
    other = kept.copy()
    for held, wanted in ((kept, [1, 2]), (kept, [6, 8]), (other, [1, 2])):
        [found] = interpreter.run({"a": torch.tensor([1, 2]).half()}, held).values()
        assert found.tolist() == wanted
        assert held.buffers["b"].tolist() == [5, 6]


def test_equal_weights_of_two_functions_are_decoded_once(tmp_path: Path) -> None:
    weight, description = some(16, 8), ct.utils.MultiFunctionDescriptor()
    codes = RANDOM.integers(-8, 8, (16, 8)).astype(INT4)

    def build(a: Any) -> Any:
        dense = mb.constexpr_blockwise_shift_scale(data=codes, scale=weight[:, :1])
        return mb.add(x=mb.linear(x=a, weight=weight), y=mb.linear(x=a, weight=dense))

    for rows in (1, 2):
        part = save(tmp_path, [tensor(rows, 8)], build, f"rows{rows}")
        description.add_function(str(part), "main", f"rows{rows}")
    description.default_function_name = "rows1"
    ct.utils.save_multifunction(description, str(tmp_path / "both.mlpackage"))
    package = Package(tmp_path / "both.mlpackage")
    one, two = (Interpreter(package, name)._program.values for name in ("rows1", "rows2"))
    held = [{value.data_ptr() for value in values if value.shape == (16, 8)} for values in (one, two)]
    assert len(held[0]) == 2
    assert held[0] == held[1]
    assert Weights.of(package) is Weights.of(package)


# Planted faults


def test_a_dropped_write_is_named(tmp_path: Path) -> None:
    def drop(block: Any) -> None:
        places = [place for place, one in enumerate(block.operations) if one.type == "write_state"]
        del block.operations[places[0]]

    package = edit(save(tmp_path, cached(1), cache(1)), drop)
    with pytest.raises(RunnerError, match="state 'c' is never written"):
        Interpreter(Package(package))


def test_an_overflow_is_named_where_it_happens(tmp_path: Path) -> None:
    def build(a: Any) -> Any:
        mean = mb.reduce_mean(x=mb.mul(x=a, y=a, name="squared"), axes=[-1], keep_dims=True)
        return mb.mul(x=a, y=mb.rsqrt(x=mean, epsilon=F16(1e-5)))

    package = save(tmp_path, [tensor(1, 4)], build)
    assert np.isfinite(run(package, np.full((1, 4), 250, F16))[0]).all()
    with pytest.raises(RunnerError, match=r"mul 'squared': makes values beyond fp16; the largest .input. is 300"):
        run(package, np.array([[1, 2, -300, 3]], F16))


def test_infinities_of_a_mask_pass_and_numbers_that_are_none_do_not(tmp_path: Path) -> None:
    def build(a: Any, b: Any) -> Any:
        mask = mb.select(cond=mb.cast(x=b, dtype="bool"), a=np.zeros((1, 3), F16), b=F16(-np.inf))
        return mb.softmax(x=mb.add(x=a, y=mask), axis=-1, name="weights")

    package = save(tmp_path, [tensor(1, 3), tensor(1, 3, dtype=types.int32)], build)
    [found] = run(package, np.zeros((1, 3), F16), np.array([[1, 0, 1]], I32))
    assert found.tolist() == [[0.5, 0, 0.5]]
    with pytest.raises(RunnerError, match="softmax 'weights': makes values that are no numbers"):
        run(package, np.zeros((1, 3), F16), np.zeros((1, 3), I32))


def test_a_nan_may_be_chosen_and_not_computed_with(tmp_path: Path) -> None:
    nan = np.array([np.nan], F16)

    def choose(a: Any, b: Any) -> Any:
        return mb.exp(x=mb.select(cond=mb.cast(x=b, dtype="bool"), a=a, b=nan))

    package = save(tmp_path, [tensor(1), tensor(1, dtype=types.int32)], choose)
    assert run(package, np.zeros(1, F16), np.array([1], I32)) == [1]
    assert np.isnan(run(package, np.zeros(1, F16), np.array([0], I32))[0])
    with pytest.raises(RunnerError, match="mul 'scaled': computes with a constant that holds"):
        Interpreter(Package(save(tmp_path, [tensor(1)], lambda a: mb.mul(x=a, y=nan, name="scaled"), "other")))


def quantized(folder: Path) -> Path:
    codes, scales = RANDOM.integers(-8, 8, (6, 64)).astype(INT4), some(6, 2)

    def build(a: Any) -> Any:
        return mb.linear(x=a, weight=mb.constexpr_blockwise_shift_scale(data=codes, scale=scales, name="codes"))

    return save(folder, [tensor(1, 64)], build)


def test_scales_along_another_axis_are_named(tmp_path: Path) -> None:
    def turn(block: Any) -> None:
        value = operation(block, "constexpr_blockwise_shift_scale").inputs["scale"].arguments[0].value
        rows, columns = value.type.tensorType.dimensions
        rows.constant.size, columns.constant.size = columns.constant.size, rows.constant.size

    package = edit(quantized(tmp_path), turn)
    with pytest.raises(RunnerError, match=r"blockwise_shift_scale 'codes': scales \[2, 6\] do not divide \[6, 64\]"):
        Interpreter(Package(package))


def test_a_damaged_weight_file_is_named(tmp_path: Path) -> None:
    package = quantized(tmp_path)
    path = package / WEIGHTS
    whole = path.read_bytes()
    for damaged, said in (
        (whole[:-64], "bytes at|no blob can begin"),
        (whole[:32], "not a file of weights"),
        (b"", "can't map the weights"),
        (whole.replace(b"\xef\xbe\xad\xde", b"\xef\xbe\xad\xdf"), "header begins with 0xdfadbeef"),
        (whole[:4] + b"\x07" + whole[5:], "not a file of weights"),
        (whole[:68] + b"\x63" + whole[69:], "a blob of type 99"),
        (whole[:72] + b"\x63" + whole[73:], "bytes"),
        (whole[:80] + b"\xff" * 7 + whole[87:], "are not in the file"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(RunnerError, match=said) as raised:
            Package(package)
        assert str(path) in str(raised.value)
    path.write_bytes(whole)
    assert np.isfinite(run(package, some(1, 64))[0]).all()
    path.unlink()
    with pytest.raises(RunnerError, match="missing"):
        Package(package)


def test_damage_anywhere_is_an_error_that_is_named(tmp_path: Path) -> None:
    package = quantized(tmp_path)
    whole = (package / MODEL).read_bytes()
    for place in range(0, len(whole), 7):
        octets = bytearray(whole)
        octets[place] ^= 0x55
        (package / MODEL).write_bytes(octets)
        with contextlib.suppress(RunnerError):
            Interpreter(Package(package)).run({"a": torch.zeros(1, 64).half()})


@pytest.mark.parametrize("path", ["../../outside", "/etc/hostname", "com.apple.CoreML/link", "missing", "a\0b"])
def test_a_path_that_leaves_the_package_is_named(tmp_path: Path, path: str) -> None:
    package = quantized(tmp_path)
    (tmp_path / "outside").write_bytes((package / MODEL).read_bytes())
    (package / "Data/com.apple.CoreML/link").symlink_to(tmp_path / "outside")
    manifest = json.loads((package / "Manifest.json").read_text())
    manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = path
    (package / "Manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunnerError, match=r"leaves the package|missing"):
        Package(package)


def test_what_is_no_package_is_named(tmp_path: Path) -> None:
    for text, said in ((None, "not a Core ML package"), ("{", "not a Core ML package"), ("[]", "whole file|dict")):
        if text is not None:
            (tmp_path / "Manifest.json").write_text(text)
        with pytest.raises(RunnerError, match=said):
            Package(tmp_path)
    package = quantized(tmp_path)
    (package / MODEL).write_bytes(b"")
    with pytest.raises(RunnerError, match="a model of kind None"):
        Package(package)
    (package / MODEL).write_bytes(b"\xff" * 30)
    with pytest.raises(RunnerError, match="can't read the model"):
        Package(package)


def test_what_a_file_declares_wrongly_is_named(tmp_path: Path) -> None:
    def change(kind: str, said: str, how: Callable[[Any], None]) -> None:
        package = save(tmp_path, [tensor(2, 3)], lambda a: mb.add(x=mb.mul(x=a, y=F16(2)), y=a, name="sum"))
        edit(package, lambda block: how(operation(block, kind)))
        with pytest.raises(RunnerError, match=said):
            run(package, some(2, 3))

    def size(one: Any) -> None:
        one.outputs[0].type.tensorType.dimensions[1].constant.size = 4

    def dtype(number: int) -> Callable[[Any], None]:
        def how(one: Any) -> None:
            one.outputs[0].type.tensorType.dataType = number

        return how

    def rename(name: str) -> Callable[[Any], None]:
        return lambda one: setattr(one, "type", name)

    change("add", r"add 'sum': makes torch.float32 \[2, 3\]\n.*\n  expected: fp16 \[2, 4\]", size)
    change("add", "add 'sum': makes fp16 and is to make fp32", dtype(11))
    change("mul", "element type number 77", dtype(77))
    change("mul", "element type FLOAT8E5M2", dtype(41))
    change("add", "resample 'sum': an operation that is not done", rename("resample"))
    change("add", "linear 'sum': no parameter 'weight'", rename("linear"))
    change("add", "makes 'mul_0' again", lambda one: setattr(one.outputs[0], "name", "mul_0"))
    change("add", "uses 'nothing' before it is made", lambda one: _use(one, "nothing"))


def _use(one: Any, name: str) -> None:
    one.inputs["y"].arguments[0].name = name


def test_a_kernel_wider_than_one_is_named(tmp_path: Path) -> None:
    weight = some(4, 2, 1, 3)
    package = save(tmp_path, [tensor(1, 2, 1, 5)], lambda a: mb.conv(x=a, weight=weight, pad_type="valid", name="wide"))
    with pytest.raises(RunnerError, match="conv 'wide': a kernel"):
        Interpreter(Package(package))


def test_inputs_and_states_that_are_not_the_functions_are_named(tmp_path: Path) -> None:
    interpreter = Interpreter(Package(save(tmp_path, cached(1), cache(1))))
    rows, position = torch.zeros(1, WIDTH).half(), torch.zeros(1, dtype=torch.int32)
    kept = interpreter.new_state()
    for feeds, said in (
        ({"a": rows}, "inputs"),
        ({"a": rows, "b": position, "d": rows}, "inputs"),
        ({"a": rows.float(), "b": position}, "'a' is torch.float32"),
        ({"a": rows[0], "b": position}, r"'a' is torch.float16 \[4\]"),
    ):
        with pytest.raises(RunnerError, match=said):
            interpreter.run(feeds, kept)
    with pytest.raises(RunnerError, match="state 'c' is missing"):
        interpreter.run({"a": rows, "b": position})
    with pytest.raises(RunnerError, match="no function 'decode'"):
        Interpreter(Package(tmp_path / "model.mlpackage"), "decode")
