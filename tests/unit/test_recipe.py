from __future__ import annotations

from pathlib import Path

import pytest

from slmc.errors import RecipeError
from slmc.recipe import load_recipe
from slmc.target import targets_folder


def change(folder: Path, old: str, new: str) -> Path:
    path = folder / "recipe.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return folder


def test_reads_a_recipe_and_its_items(recipe_folder: Path) -> None:
    loaded = load_recipe(recipe_folder)
    assert loaded.labels() == ("yes", "no")
    first = loaded.examples("eval.jsonl")[0]
    assert (first.id, first.fields, first.answer) == ("0", {"text": "say yes"}, "yes")


def test_every_shipped_recipe_loads() -> None:
    recipes = sorted(path for path in (targets_folder().parent / "recipes").iterdir() if path.is_dir())
    assert recipes
    for folder in recipes:
        loaded = load_recipe(folder)
        assert loaded.examples(loaded.recipe.data.evaluation)
        assert (folder / "recipe.yaml").read_text().startswith("# yaml-language-server: $schema=")


def test_an_unknown_key_names_the_closest_one(recipe_folder: Path) -> None:
    change(recipe_folder, "context: 64", "contxt: 64")
    with pytest.raises(RecipeError, match="contxt") as caught:
        load_recipe(recipe_folder)
    assert caught.value.todo == "did you mean 'context'?"


def test_an_unknown_key_deep_inside_names_the_closest_one(recipe_folder: Path) -> None:
    change(recipe_folder, "context: 64", "targets: {host: {bakend: tvm}}")
    with pytest.raises(RecipeError, match=r"targets\.host\.bakend") as caught:
        load_recipe(recipe_folder)
    assert caught.value.todo == "did you mean 'backend'?"


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("version: 1.0.0", "version: 1.0", "version: Input should be a valid string"),
        ("context: 64", "context: 0", "context"),
        ("base: {path: base}", "base: {path: base, hub: a/b}", "either path or hub"),
        ("base: {path: base}", "base: {hub: a/b, revision: main}", "revision"),
        ('["yes", "no"]', '["yes", "yes"]', "twice: yes"),
        ('["yes", "no"]', '["yes", "no"], abstain: {max_error: 0.1}', r"fitted to data\.calibration"),
        ('["yes", "no"]', '["yes", "no"], abstain: {max_error: 2}', r"abstain\.max_error"),
        ('["yes", "no"]', '["yes"]', "fewer than two labels"),
        ("{kind: chat}", '{kind: chat, user: "nothing"}', "plain placeholders"),
        ("{kind: chat}", '{kind: chat, user: "{text!r}"}', "no format or conversion"),
        ("{kind: chat}", "{kind: chatty}", "chatty"),
        ("name: small", "name: ../small", "name"),
        ("context: 64", "quantization: {budget: 4.6}", r"quantization\.budget"),
        ("context: 64", "quantization: {budget: 4.6 bytes}", r"quantization\.budget"),
        ("context: 64", "quantization: {budget: .6 bits}", r"quantization\.budget"),
        ("context: 64", "quantization: {budget: 5 bits, max_size_mb: 9}", "either budget or max_size_mb"),
        ("context: 64", "quantization: {max_size_mb: 0}", "max_size_mb"),
        ("context: 64", "quantization: {max_size_mb: .inf}", "max_size_mb"),
        ("context: 64", "quantization: {embedding: 5}", r"quantization\.embedding"),
        ("context: 64", "quantization: {seed: -1}", "seed"),
        ("name: small", "name: [", "can't be read"),
    ],
)
def test_what_does_not_fit_is_refused(recipe_folder: Path, old: str, new: str, match: str) -> None:
    with pytest.raises(RecipeError, match=match):
        load_recipe(change(recipe_folder, old, new))


@pytest.mark.parametrize("path", ["../outside.jsonl", "/etc/hostname", "sub/../../outside.jsonl"])
def test_a_path_cannot_leave_the_recipe(recipe_folder: Path, path: str) -> None:
    (recipe_folder.parent / "outside.jsonl").write_text("{}")
    with pytest.raises(RecipeError, match="leaves the recipe's folder"):
        load_recipe(recipe_folder).examples(path)


def test_a_link_cannot_leave_the_recipe_either(recipe_folder: Path) -> None:
    (recipe_folder.parent / "outside.jsonl").write_text("{}")
    (recipe_folder / "inside.jsonl").symlink_to(recipe_folder.parent / "outside.jsonl")
    with pytest.raises(RecipeError, match="leaves the recipe's folder"):
        load_recipe(recipe_folder).examples("inside.jsonl")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "no item"),
        ("\n\n", "no item"),
        ("{", "not JSON"),
        ("[]", "JSON object"),
        ('{"id": "1", "text": "\\ud800", "label": "yes"}', "whole characters"),
        ('{"id": 1, "text": "a", "label": "yes"}', "`id` string"),
        ('{"id": "1", "label": "yes"}', "no string 'text'"),
        ('{"id": "1", "text": "a", "label": "maybe"}', "label is 'maybe'"),
        ('{"id": "1", "text": "a", "label": "yes"}\n' * 2, "stands twice"),
    ],
)
def test_a_bad_data_file_names_what_is_wrong(recipe_folder: Path, text: str, match: str) -> None:
    (recipe_folder / "eval.jsonl").write_text(text)
    with pytest.raises(RecipeError, match=match):
        load_recipe(recipe_folder).examples("eval.jsonl")


def test_the_digest_is_of_what_the_recipe_means(recipe_folder: Path) -> None:
    before = load_recipe(recipe_folder).digest()
    assert load_recipe(change(recipe_folder, "name: small", "# a comment\nname:   small")).digest() == before
    assert load_recipe(change(recipe_folder, "context: 64", "context: 65")).digest() != before
