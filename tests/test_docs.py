"""README and docs name files, commands, options and settings that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from ponderttt.cli.main import commands

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: Made by a study, so not in a checkout.
MADE = ("data/", "results/", "smoke/")
#: Names in other people's trees, and files of the reader's own.
OTHERS = {"_pb2.py", "content/", "dist/", "generated/", "owner/", "yours.yaml"}
FILE = re.compile(r"[\w.-]+(?:/[\w.-]+)*\.(?:py|smk|yaml|md|toml|lock|svg)|[\w-]+(?:/[\w-]+)*/")
SETTING = re.compile(
    r"(?:grid|models|corpora|fast_weights|rules|training|learned|statistics)(?:\.[a-z_]+)+|hub(?:\.[a-z_]+)+"
)


def spans(page: Path) -> Iterator[str]:
    """The code of a page: inline spans, and the lines of indented and fenced blocks without their remarks."""
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("    "):
            yield line.strip().partition("  #")[0].strip()
        else:
            yield from re.findall(r"`([^`]+)`", line)


def of_pages(pattern: re.Pattern[str], *, whole: bool = True) -> list[Any]:
    """Matches of a pattern in the code of all pages, once for each page, as parameters of a test."""
    found = {}
    for page in PAGES:
        for span in spans(page):
            matches = [pattern.fullmatch(span)] if whole else pattern.finditer(span)
            for match in matches:
                if match:
                    found[page.name, match[0]] = page
    assert found, f"no page has anything like {pattern.pattern}"
    return [pytest.param(page, name, id=f"{page.name}: {name}") for (_, name), page in found.items()]


@pytest.mark.parametrize(("page", "name"), of_pages(FILE))
def test_a_file_that_is_mentioned_exists(page: Path, name: str) -> None:
    if name.startswith(MADE):
        return
    places = (ROOT, ROOT / "ponderttt", ROOT / "docs", *(ROOT / "ponderttt").iterdir())
    assert name in OTHERS or any((place / name).exists() for place in places)


@pytest.mark.parametrize(("page", "target"), of_pages(re.compile(r"\bmake [a-z]+"), whole=False))
def test_a_make_target_that_is_mentioned_exists(page: Path, target: str) -> None:
    assert re.search(
        rf"^{target.removeprefix('make ')}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M
    )


def options() -> set[str]:
    """Every option of every command of ours."""
    return {
        name
        for command in commands.commands.values()
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for name in parameter.opts
    }


@pytest.mark.parametrize(("page", "option"), of_pages(re.compile(r"--[a-z][a-z-]*")))
def test_an_option_that_is_mentioned_alone_is_one_of_ours(page: Path, option: str) -> None:
    """Commands of other programs are written out with their options, so an option alone is ours."""
    scripts = (*(ROOT / "speed").glob("*.py"), ROOT / "tests" / "models" / "make_goldens.py")
    text = "".join(path.read_text(encoding="utf-8") for path in scripts)
    assert option in options() or f'"{option}"' in text


def known(schema: dict[str, Any], node: dict[str, Any], keys: list[str]) -> bool:
    """Whether a path of keys leads somewhere in a JSON schema; a mapping of free names takes any key, or skips it."""
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    if not keys:
        return True
    branches = [*node.get("anyOf", []), *node.get("allOf", []), *node.get("oneOf", [])]
    if any(known(schema, branch, keys) for branch in branches):
        return True
    values = node.get("additionalProperties")
    if isinstance(values, dict) and (known(schema, values, keys) or known(schema, values, keys[1:])):
        return True
    inner = node.get("properties", {}).get(keys[0])
    return inner is not None and known(schema, inner, keys[1:])


@pytest.mark.parametrize(("page", "setting"), of_pages(SETTING))
def test_a_setting_that_is_mentioned_exists(page: Path, setting: str) -> None:
    if (ROOT / setting).exists() or setting.endswith((".py", ".yaml")):
        return
    schema = yaml.safe_load((ROOT / "schemas" / "config.schema.yaml").read_text(encoding="utf-8"))
    path = setting if not setting.startswith("hub.") else f"corpora.{setting}"
    assert known(schema, schema, path.split("."))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_to_a_file_leads_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), target


def test_a_column_in_the_readme_is_one_of_the_table() -> None:
    from ponderttt.reporting.numbers.rows import TableRow

    header = next(
        line for line in PAGES[0].read_text(encoding="utf-8").splitlines() if line.startswith("| arm")
    )
    columns = re.findall(r"`([^`]+)`", header)
    assert len(columns) > 4
    assert set(columns) <= set(TableRow.__dataclass_fields__)


CLASS = re.compile(r"the class `(\w+)`")
#: A function or a method.
DEFINITION = re.compile(r"([A-Z]\w+)\.(\w+)|([a-z]+_\w+)")


def test_a_class_in_the_readme_is_in_the_file_of_its_line() -> None:
    lines = [line for line in PAGES[0].read_text(encoding="utf-8").splitlines() if CLASS.search(line)]
    assert lines
    for line in lines:
        file = next(span for span in re.findall(r"`([^`]+)`", line) if span.endswith(".py"))
        for name in CLASS.findall(line):
            assert f"class {name}" in (ROOT / "ponderttt" / file).read_text(encoding="utf-8"), line


def test_a_function_in_the_trace_of_the_readme_is_in_the_file_before_it() -> None:
    file, found = Path(), 0
    for line in PAGES[0].read_text(encoding="utf-8").splitlines():
        for span in re.findall(r"`([^`]+)`", line) if re.match(r"\d\. ", line) else ():
            file = ROOT / "ponderttt" / span if re.fullmatch(r"\w+/[\w/]+\.py", span) else file
            if match := DEFINITION.fullmatch(span):
                found += 1
                text = file.read_text(encoding="utf-8")
                assert re.search(rf"^(def|class) {match[1] or match[3]}\b", text, re.M), line
                assert match[2] is None or re.search(rf"^    def {match[2]}\b", text, re.M), line
    assert found > 6
