"""What a stranger reads before the code: the policy, the changelog, the metadata, the workflows and forms of the repository."""

import json
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from s2s_fastapi.cli.commands import command_line
from s2s_fastapi.declared import access_file
from s2s_fastapi.version import __version__
from tests.kit.public import PUBLIC
from tests.real.server import VERSIONS
from tests.release.__main__ import _EXTRAS, _LICENCES, refuse_other_tag
from tests.release.notes import HOME, dated_section

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
POLICY = (ROOT / "docs" / "policy.md").read_text("utf-8")
CHANGELOG = (ROOT / "CHANGELOG.md").read_text("utf-8")
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").iterdir())
PYTHONS = [found for text in PROJECT["classifiers"] if (found := re.search(r"(?<=Python :: )3\.\d+$", text))]
SCHEMAS = {
    "vendor.github-workflows": WORKFLOWS,
    "vendor.dependabot": [GITHUB / "dependabot.yml"],
    "vendor.github-issue-config": [GITHUB / "ISSUE_TEMPLATE" / "config.yml"],
    "vendor.github-issue-forms": [
        path for path in sorted((GITHUB / "ISSUE_TEMPLATE").iterdir()) if path.name != "config.yml"
    ],
}


def row(software: str) -> list[str]:
    return next(line.split(" | ") for line in POLICY.splitlines() if line.startswith(f"| {software} | "))


@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_files_for_the_forge_are_as_their_schema_says(schema: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, SCHEMAS[schema])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_workflow_has_more_rights_than_a_job_asks_for() -> None:
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text("utf-8"))
        assert workflow["permissions"] == {"contents": "read"}
        for job in workflow["jobs"].values():
            steps = job.get("steps", [])
            builds = [step for step in steps if "run" in step and "gh release" not in step["run"]]
            assert not (builds and "permissions" in job), "code of the build must not run where a job may write"
            assert "timeout-minutes" in job or "uses" in job
            assert all("@" in step["uses"] for step in steps if "uses" in step)
            checkouts = [step for step in steps if step.get("uses", "").startswith("actions/checkout@")]
            assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_a_release_is_built_only_after_all_checks_and_published_only_after_it_was_attested() -> None:
    jobs = yaml.safe_load((GITHUB / "workflows" / "release.yml").read_text("utf-8"))["jobs"]
    assert {name: job.get("needs") for name, job in jobs.items()} == {
        "check": None,
        "build": "check",
        "attest": "build",
        "publish": "attest",
        "notes": "publish",
    }
    assert jobs["check"]["uses"] == "./.github/workflows/ci.yml"
    # Whoever gets a token for `release` may upload.
    environments = {name: job["environment"] for name, job in jobs.items() if "environment" in job}
    assert environments == {"attest": "attest", "publish": "release"}


@pytest.mark.parametrize("tag", ["v1.2.4", "1.2.3", "v1.2.3;id", "v1.2.3\n", "v1.2.30"])
def test_another_tag_than_that_of_the_version_is_refused(tag: str) -> None:
    refuse_other_tag("v1.2.3", "1.2.3")
    with pytest.raises(SystemExit, match=re.escape("and the version is 1.2.3")):
        refuse_other_tag(tag, "1.2.3")


def test_no_licence_of_the_strong_copyleft_and_no_unknown_one_is_allowed() -> None:
    assert [
        name for name in _LICENCES if re.search(r"GPL|General Public|SSPL|unknown|proprietary", name, re.IGNORECASE)
    ] == []


def test_the_check_of_a_pull_request_is_the_one_of_this_repository() -> None:
    jobs = yaml.safe_load((GITHUB / "workflows" / "ci.yml").read_text("utf-8"))["jobs"]
    runs = [step["run"] for step in jobs["everything"]["steps"] if "run" in step]
    assert runs[-1] == ".ci/run"
    assert re.findall(r"3\.\d+", "".join(runs)) == [found[0] for found in PYTHONS]


def test_the_tested_pythons_are_the_same_everywhere() -> None:
    tested = [found[0] for found in PYTHONS]
    assert sorted(set(re.findall(r"python_of (3\.\d+)", (ROOT / ".ci" / "run").read_text("utf-8")))) == tested
    assert row("Python")[2].strip(" |") == ", ".join(tested)
    assert row("Python")[1] == f"{PROJECT['requires-python'].removeprefix('>=')} and newer"


@pytest.mark.parametrize("software", ["FastAPI", "Starlette"])
def test_the_oldest_supported_version_is_the_one_of_the_metadata(software: str) -> None:
    lowest = next(
        text.partition(">=")[2] for text in PROJECT["dependencies"] if text.startswith(f"{software.lower()}>")
    )
    assert row(software)[1] == f"{lowest} and newer"


def test_the_supported_keycloaks_are_those_that_the_tests_start() -> None:
    newest, oldest = VERSIONS
    assert row("Keycloak")[1:] == [f"{oldest} and newer", f"{oldest} and {newest} |"]
    assert f"Keycloak {oldest} or newer" in CHANGELOG


def test_every_module_that_the_docs_import_is_covered_by_the_policy() -> None:
    for name in PUBLIC:
        assert import_module(name).__all__
    fences = "".join(
        "".join(re.findall(r"^```python.*?^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE))
        for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
    )
    imported = set(re.findall(r"^\s*(?:from|import) (s2s_fastapi[\w.]*)", fences, re.MULTILINE))
    assert imported <= set(PUBLIC)


def test_the_policy_has_the_schema_of_each_command_that_prints_json_and_every_schema_is_of_one() -> None:
    commands = get_command(command_line()).commands  # type: ignore[attr-defined]
    prints = {
        name for name, command in commands.items() if any("--json" in parameter.opts for parameter in command.params)
    }
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (.*\.schema\.json\).*) \|$", POLICY, re.MULTILINE)
    assert sorted(name for row, _ in rows for name in re.findall(r"\w+", row)) == sorted(prints)
    linked = {ROOT / "docs" / link for _, text in rows for link in re.findall(r"\]\(([^)]+)\)", text)}
    assert all(path.is_file() for path in linked)
    assert set((ROOT / "docs" / "schemas").iterdir()) <= linked


def test_the_policy_names_the_version_of_access_files() -> None:
    schema = json.loads(Path(access_file.__file__).with_name("access_file.schema.json").read_bytes())
    assert f"[Access files](access-file.md), now version {schema['properties']['version']['const']}:" in POLICY


def test_the_extras_for_users_are_those_of_the_policy_and_of_the_licences() -> None:
    line = POLICY.partition("- **Extras.** Their names: ")[2].partition(". The extras")[0]
    assert sorted(re.findall(r"`(\w+)`", line)) == sorted(_EXTRAS)
    for_work = {"browser-test", "mcp-test", "test", "docs"}
    assert PROJECT["optional-dependencies"].keys() - for_work == set(_EXTRAS)


def test_this_version_has_a_dated_section_and_newer_changes_have_a_place() -> None:
    assert dated_section(CHANGELOG, __version__)
    titles = re.findall(r"^## (.+)$", CHANGELOG, re.MULTILINE)
    assert titles[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", title) for title in titles[1:])


def test_the_notes_of_a_release_lead_to_the_files_of_that_version() -> None:
    text = "# Changelog\n\n## 1.2.3 - 2030-01-02\n\nSee [a](docs/a.md#b), [c](https://x.example).\n\n## 1.2.2 - 2030-01-01\n"
    assert dated_section(text, "1.2.3") == f"See [a]({HOME}/blob/v1.2.3/docs/a.md#b), [c](https://x.example).\n"


@pytest.mark.parametrize("version", ["1.2.2", "1.2", "11213"])
def test_a_version_without_a_dated_section_that_says_something_is_not_released(version: str) -> None:
    with pytest.raises(SystemExit, match=f"no section `## {re.escape(version)} - "):
        dated_section("## 1.2.2 - 2030-01-01\n\n## 1.2.1.3 - 2030-01-01\n\nText.\n", version)


def test_the_notes_of_a_release_have_each_paragraph_in_one_line() -> None:
    section = "One\ntwo.\n\n### A\n\n- three\n  four\n  - five\n- six\n\n| a |\n|---|\n| b |\n"
    notes = "One two.\n\n### A\n\n- three four\n  - five\n- six\n\n| a |\n|---|\n| b |\n"
    assert dated_section(f"## 1.0.0 - 2030-01-01\n\n{section}", "1.0.0") == notes


def test_the_supported_version_is_the_one_that_is_released() -> None:
    security = (ROOT / "SECURITY.md").read_text("utf-8")
    assert f"| {__version__.rpartition('.')[0]}.x, the newest minor version | yes |" in security


def test_whatever_names_the_version_of_this_package_names_this_one() -> None:
    pages = {ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")}
    measured = ROOT / "docs" / "speed.md"  # an older version may have been measured
    named = {
        (page.relative_to(ROOT).as_posix(), version)
        for page in pages - {measured}
        for version in re.findall(r"s2s-fastapi(?: |==)(\d+\.\d+\.\d+)", page.read_text("utf-8"))
    }
    assert {version for _, version in named} == {__version__}, f"{sorted(named)}: see CONTRIBUTING.md, A release"


def test_what_checks_a_download_names_the_workflow_and_the_tag_of_this_version() -> None:
    security = (ROOT / "SECURITY.md").read_text("utf-8")
    repository = HOME.removeprefix("https://github.com/")
    assert f"--repo {repository} \\\n  --signer-workflow {repository}/.github/workflows/release.yml" in security
    assert re.findall(r"--source-ref (\S+)", security) == [f"refs/tags/v{__version__}"]


def test_the_links_of_the_metadata_lead_to_the_home_of_the_project() -> None:
    assert {url.startswith(HOME) for url in PROJECT["urls"].values()} == {True}
