"""The Makefile and .ci/run: what reaches a command, and what nobody may take out."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
WORKFLOW = ROOT / ".github" / "workflows" / "release.yml"
PEERS = "benchmarks/conformance/requirements.txt"


def copied(place: Path, *names: str) -> None:
    for name in ("Makefile", "constraints.txt", *names):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, place / name)


def test_a_tag_reaches_the_check_of_the_tag_as_it_is_and_no_shell_runs_it(tmp_path: Path) -> None:
    tag = "v0.1.0;touch$$IFS$(touch${IFS}a)b|`touch${IFS}c`>d&"  # git allows such a tag
    copied(tmp_path, "tests/release/requirements.txt")
    python = tmp_path / ".venv-release" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf %s "$TAG" >given\n', encoding="utf-8")
    python.chmod(0o755)
    (tmp_path / ".venv-release" / ".installed").touch()
    jobs = yaml.safe_load(WORKFLOW.read_text("utf-8"))["jobs"]
    (step,) = (step for step in jobs["build"]["steps"] if "run" in step)
    given = {name: value.replace("${{ github.ref_name }}", tag) for name, value in step["env"].items()}
    environment = {"PATH": os.environ["PATH"], "GITHUB_REF_NAME": tag, **given}
    subprocess.run(["bash", "-euc", step["run"]], cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert (tmp_path / "given").read_text("utf-8") == tag
    assert {path.name for path in tmp_path.iterdir()} == {
        "Makefile",
        "constraints.txt",
        "tests",
        ".venv-release",
        "given",
    }


def test_a_release_that_fails_leaves_no_older_one_in_dist(tmp_path: Path) -> None:
    place, dist = tmp_path / "tests" / "release", tmp_path / "dist"
    copied(tmp_path, "pyproject.toml")
    shutil.copytree(ROOT / "tests" / "release", place)
    dist.mkdir()
    (dist / "older.whl").touch()
    command = [sys.executable, "-m", "tests.release"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, "no checkout of git" in done.stderr) == (1, True), done.stderr
    assert not dist.exists()


def test_ci_runs_whatever_has_an_environment_of_its_own_but_the_benchmark() -> None:
    apart = set(re.findall(r"^([a-z-]+): (?:\.venv-|VENV = )", MAKEFILE, re.MULTILINE)) - {"bench"}
    runs = set(re.findall(r"^ +make ([a-z-]+)", (ROOT / ".ci" / "run").read_text("utf-8"), re.MULTILINE))
    assert runs == apart | {"lint", "test-one"}
    assert runs >= {"test-lowest", "test-wheel", "conformance", "release"}


def test_contributing_has_each_target_that_make_help_shows_and_no_other() -> None:
    helped = set(re.findall(r"^([a-z-]+):.*  ## ", MAKEFILE, re.MULTILINE)) - {"help"}
    told = set(re.findall(r"`make ([a-z-]+)", (ROOT / "CONTRIBUTING.md").read_text("utf-8")))
    assert told == helped


def test_contributing_and_the_workflow_name_each_package_that_ci_installs() -> None:
    installs = re.findall(r"apt-get install -y -qq (.+)", (ROOT / ".ci" / "run").read_text("utf-8"))
    packages = {word for line in installs for word in line.partition(" #")[0].split() if not word.startswith("-")}
    told = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert {name for name in packages if f"`{name}`" not in told} == {"git"}
    comment = (
        (WORKFLOW.with_name("ci.yml")).read_text("utf-8").partition("# .ci/run installs ")[2].partition(" with apt")[0]
    )
    assert comment.replace(" and ", ", ") == "Java, Maven, Chromium, Redis, nginx, promtool, curl"


def test_a_warning_of_the_sites_builder_ends_make_docs() -> None:
    (recipe,) = re.findall(r"^docs: .*\n\t(.+)$", MAKEFILE, re.MULTILINE)
    assert " --strict " in recipe


def test_a_newer_version_of_a_compared_package_in_the_constraints_is_no_conflict(tmp_path: Path) -> None:
    copied(tmp_path, PEERS)
    constraints = tmp_path / "constraints.txt"
    others = [line for line in constraints.read_text("utf-8").splitlines() if not line.startswith("pyjwt==")]
    constraints.write_text("\n".join([*others, "pyjwt==99.0", "pyjwt-helper==1.0"]), encoding="utf-8")
    subprocess.run(["make", "build/conformance.txt"], cwd=tmp_path, check=True, capture_output=True)
    left = (tmp_path / "build" / "conformance.txt").read_text("utf-8").splitlines()
    assert left == [*others, "pyjwt-helper==1.0"]
