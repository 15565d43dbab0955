"""Every YAML composes and is accepted by the code it configures; every mistake is named."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import ROOT, command, composed, run_command

from plmjac.conf_tree import ADDED, groups_of
from plmjac.config import config_dir, nearest, options, parse
from plmjac.evaluate import EvaluateConfig, parse_evaluate
from plmjac.evaluation import names
from plmjac.examples import PARTS
from plmjac.inference.settings import PredictSettings, parse_predict
from plmjac.models import names as model_names
from plmjac.verify import VerifyConfig

GROUPS = ("model", "substitutions", "trainer", "logger")
WORDS = [
    (["+dataset=demo", "max_lenght=5"], "did you mean 'max_length'"),
    (["+dataset=pdb", "dataset.pth=x"], "did you mean 'dataset.path'"),
    (["+dataset=pbd"], "did you mean 'pdb'"),
    (["+dataset=demo", "model=esm2_650"], "did you mean 'esm2_650m'"),
    (["+dataset=demo", "modle=debug"], "did you mean 'model'"),
    (["+dataset=demo", "trainer.device=2"], "did you mean 'trainer.devices'"),
    (["+dataset=demo", "model=null"], "must be a string"),
    (["=3"], "error"),
    (["+dataset=fasta", "dataset.path=a,b.fasta"], "two pairs of quotes"),
    (["+dataset=demo", "keep=[contacts,", "jacobian]"], "without blanks, keep=[contacts,jacobian], or in quotes"),
    (["demo"], "did you mean +dataset=demo?"),
    (["/dev/null/my.pdb"], "'/dev/null/my.pdb' is no KEY=VALUE; predict --help lists the keys"),
    (["-m", "+dataset=demo", "--cfg", "job"], "leave -m out"),
]


@pytest.mark.parametrize(("group", "option"), [(group, option) for group in GROUPS for option in options(group)])
def test_every_option_composes_and_fits_its_schema(group: str, option: str) -> None:
    wild_type_only = ["keep=logits"] if option == "none" and group == "substitutions" else []
    settings = parse_predict(composed("predict", "+dataset=demo", f"{group}={option}", *wild_type_only))
    chosen = getattr(settings, group)
    assert chosen.name == option


@pytest.mark.parametrize("dataset", options("dataset"))
def test_every_dataset_composes(dataset: str) -> None:
    settings = parse_predict(composed("predict", f"+dataset={dataset}"))
    assert settings.dataset["name"] == dataset
    assert settings.store == Path(f"runs/{dataset}_tiny.zarr")


def test_models_and_yaml_name_the_same_models() -> None:
    assert sorted(model_names()) == options("model")


@pytest.mark.parametrize("evaluation", options("evaluation"))
def test_every_evaluation_composes(evaluation: str) -> None:
    keys = yaml.safe_load((config_dir() / "evaluation" / f"{evaluation}.yaml").read_text())
    needed = [f"evaluation.{key}=x" for key, value in keys.items() if value == "???"]
    _, settings = parse_evaluate(composed("evaluate", f"+evaluation={evaluation}", "store=x", *needed))
    assert settings.evaluation.model_dump()["name"] == evaluation


def test_evaluations_and_yaml_name_the_same_evaluations() -> None:
    assert names() == options("evaluation")


def test_verify_and_plan_compose() -> None:
    assert parse(VerifyConfig, composed("verify", "store=x", "deep=true")).deep
    assert parse_predict(composed("plan", "+dataset=demo", "model=esm2_650m")).model.name == "esm2_650m"


def test_every_key_of_the_yaml_is_in_the_schema_and_the_other_way_round() -> None:
    assert set(composed("predict", "+dataset=demo", "segments=single")) == set(PredictSettings.model_fields)
    assert set(composed("evaluate", "+evaluation=contact_precision", "store=x")) | {"dataset"} == set(
        EvaluateConfig.model_fields
    )


def test_no_yaml_can_name_code_to_run() -> None:
    assert not [path for path in config_dir().rglob("*.yaml") if "_target_" in path.read_text()]


def test_nearest() -> None:
    assert nearest("contcts", ["contacts", "logits"]) == "did you mean 'contacts'?"
    assert nearest("zzz", ["b", "a"]) == "there are: a, b"


@pytest.mark.parametrize(("arguments", "message"), WORDS)
def test_the_command_line_names_the_mistake(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Mistakes that Hydra itself refuses: exit code 2 and the nearest right word."""
    from plmjac import config

    monkeypatch.setattr(sys, "argv", ["predict", *arguments])
    assert config.run("predict", lambda _: pytest.fail("it ran")) == 2
    assert message in caplog.text


@pytest.mark.parametrize("spelling", ["+dataset=demo", "dataset=demo"])
def test_both_spellings_of_the_dataset_are_understood(spelling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from plmjac import config

    seen: list[str] = []

    def job(found: dict[str, Any]) -> int:
        seen.append(found["dataset"]["name"])
        return 0

    monkeypatch.setattr(sys, "argv", ["predict", spelling])
    assert config.run("predict", job) == 0
    assert seen == ["demo"]


def test_a_multirun_runs_every_job_and_keeps_the_worst_exit_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from plmjac import config

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["predict", "-m", "+dataset=demo,fasta", "seed=1,2"])
    seen: list[tuple[str, int]] = []

    def job(found: dict[str, Any]) -> int:
        seen.append((found["dataset"]["name"], found["seed"]))
        return 3 if found["seed"] == 1 else 0

    assert config.run("predict", job) == 3
    assert all(path.is_file() or any(path.iterdir()) for path in tmp_path.rglob("*"))  # no empty folders
    assert seen == [("demo", 1), ("demo", 2), ("fasta", 1), ("fasta", 2)]


def test_a_crash_is_not_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from plmjac import config

    monkeypatch.setattr(sys, "argv", ["predict", "+dataset=demo"])
    with pytest.raises(ZeroDivisionError):
        config.run("predict", lambda _: 1 // 0)


@pytest.mark.parametrize("command", ADDED)
def test_help_teaches(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Examples, exit codes, the command's own groups, and its keys with the comments of the YAML."""
    from plmjac import config

    monkeypatch.setattr(sys, "argv", [command, "--help"])
    assert config.run(command, lambda _: pytest.fail("it ran")) == 0
    shown = capsys.readouterr().out
    assert f"python -m plmjac.{command}" in shown and "Exit codes" in shown
    text = (config_dir() / f"{'predict' if command == 'plan' else command}.yaml").read_text()
    keys = [line for line in text.split("\n\n")[1].splitlines() if line]
    assert len(keys) > 2 and all(f"  {line}" in shown for line in keys)
    listed = {line.split("=  ")[0].strip(" +") for line in shown.splitlines() if "=  " in line}
    assert listed == set(groups_of(command))
    assert ("trainer" in listed) == (command in ("predict", "plan")) and ("evaluation" in listed) == (
        command == "evaluate"
    )


def test_help_of_an_option_has_its_keys_and_comments(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from plmjac import config

    monkeypatch.setattr(sys, "argv", ["evaluate", "--help", "+evaluation=capacity"])
    assert config.run("evaluate", lambda _: pytest.fail("it ran")) == 0
    assert 'families: 20000 # protein families; the paper\'s "roughly 20,000"' in capsys.readouterr().out


def test_a_store_without_its_key(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    from plmjac import config

    monkeypatch.setattr(sys, "argv", ["verify", "runs/x.zarr"])
    assert config.run("verify", lambda _: pytest.fail("it ran")) == 2
    assert "did you mean store=runs/x.zarr?" in caplog.text


def test_a_reader_who_has_seen_enough_is_no_traceback() -> None:
    """`plan ... | head`, with a reader that is gone before the first line."""
    line = shlex.join(command("+dataset=demo", "model=debug", module="plmjac.plan"))
    done = subprocess.run(
        ["bash", "-c", f"{line} | true; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True, cwd=ROOT, timeout=240
    )
    assert done.returncode == 141 and not done.stderr


def test_the_installed_wheel_works_in_an_empty_folder(tmp_path: Path) -> None:
    """Build the wheel, put it alone on the path, and run from elsewhere: code, YAML, demo and weights must be in it."""
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    _run("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(ROOT))
    (wheel,) = tmp_path.glob("plmjac-*.whl")
    _run("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel))
    done = run_command(
        "+dataset=demo", "dataset.ids=[1GUU_A]", "model=debug", "store=run.zarr", cwd=work, PYTHONPATH=str(site)
    )
    assert done.returncode == 0, done.stderr
    home = subprocess.run(
        [sys.executable, "-c", "import plmjac.config; print(plmjac.config.config_dir())"], cwd=work,
        env={"PYTHONPATH": str(site), "PATH": ""}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert home.stdout.strip() == str(site / "plmjac" / "conf")
    run_command("copied", module="plmjac.examples", cwd=work, PYTHONPATH=str(site))
    for part in PARTS:
        here, there = ROOT / part, work / "copied" / part
        files = [path for path in here.rglob("*") if path.is_file()] if here.is_dir() else [here]
        assert files and all((there / file.relative_to(here)).read_bytes() == file.read_bytes() for file in files)
    packed = {path.relative_to(site / "plmjac/conf").as_posix() for path in (site / "plmjac/conf").rglob("*.yaml")}
    assert packed == {path.relative_to(ROOT / "conf").as_posix() for path in (ROOT / "conf").rglob("*.yaml")}


def _run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
