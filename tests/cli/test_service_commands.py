"""`serve`, `config`, `rewards`, `doctor`, `demo`, `openapi` and `bench`, as a person meets them."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from rewardsvc import __version__
from rewardsvc.cli import app, doctor
from rewardsvc.client import Client
from rewardsvc.settings import Settings


def address(process: subprocess.Popen[str]) -> str:
    """Where a service that was just started listens."""
    assert process.stderr is not None
    for line in process.stderr:
        if '"ready"' in line:
            return str(json.loads(line)["address"])
    raise AssertionError("it never became ready")


@pytest.fixture
def serving(rewardsvc: Any) -> Any:
    """Starts `serve` with these arguments and settings; its address and its process."""
    started = []

    def start(*arguments: str, **settings: str) -> tuple[str, subprocess.Popen[str]]:
        process = rewardsvc.start("serve", "--port", "0", *arguments, **settings)
        started.append(process)
        return address(process), process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("arguments", [(), ("--port", "0"), ("--workers", "1")])
def test_it_refuses_to_be_exposed_without_a_key(rewardsvc: Any, arguments: tuple[str, ...]) -> None:
    done = rewardsvc("serve", "--host", "0.0.0.0", *arguments)
    assert done.returncode == 2
    assert "Refusing to listen on 0.0.0.0 without a key" in done.stderr
    assert "--insecure" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_may_be_exposed_when_told(serving: Any) -> None:
    url, process = serving("--host", "0.0.0.0", "--insecure", "--workers", "1")
    assert url.startswith("http://0.0.0.0:")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_flags_take_the_place_of_settings(serving: Any, plugin: Any) -> None:
    url, _ = serving("--workers", "1", "--reward-file", plugin("rank"), workers="3", reward_files="none.py")
    with Client(url) as client:
        assert [info.name for info in client.rewards()] == ["exact", "format", "math", "rank"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("workers", "many", "REWARDSVC_WORKERS is 'many': Input should be a valid integer"),
        ("log_level", "loud", "REWARDSVC_LOG_LEVEL is 'loud'"),
        ("api_keys", "sha256:12", "REWARDSVC_API_KEYS: after `sha256:`"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(rewardsvc: Any, name: str, value: str, message: str) -> None:
    done = rewardsvc("serve", "--port", "0", **{name: value})
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["serve", "config", "rewards"])
def test_a_misspelt_setting_is_refused_and_the_right_one_named(rewardsvc: Any, command: str) -> None:
    done = rewardsvc(command, api_kyes="secret", worker="3")
    assert done.returncode == 2
    assert "REWARDSVC_API_KYES is no setting. Did you mean REWARDSVC_API_KEYS?" in done.stderr
    assert "REWARDSVC_WORKER is no setting. Did you mean REWARDSVC_WORKERS?" in done.stderr
    assert "secret" not in done.stderr


def test_a_variable_that_is_like_no_setting_is_logged(rewardsvc: Any) -> None:
    process = rewardsvc.start("serve", "--port", "0", "--workers", "1", shared_data="/data", api_key="of-a-client")
    assert process.stderr is not None
    first = json.loads(process.stderr.readline())
    process.kill()
    process.communicate()
    assert (first["event"], first["names"]) == ("settings_unread", ["REWARDSVC_SHARED_DATA"])


def test_a_port_of_kubernetes_is_explained(rewardsvc: Any) -> None:
    done = rewardsvc("serve", port="tcp://10.0.0.7:8000")
    assert done.returncode == 2
    assert "enableServiceLinks: false" in done.stderr


@pytest.mark.parametrize(("host", "hint"), [("nowhere.invalid", "Nobody knows this name"), ("192.0.2.1", "no such")])
def test_an_address_that_is_not_ours_is_told(rewardsvc: Any, host: str, hint: str) -> None:
    done = rewardsvc("serve", "--host", host, "--insecure")
    assert done.returncode == 2
    assert done.stderr.startswith(f"Cannot listen on {host}:8000: ")
    assert hint in done.stderr
    assert "(--host or REWARDSVC_HOST)" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_reward_file_that_is_not_python_stops_the_start(rewardsvc: Any) -> None:
    (rewardsvc.folder / "odd.py").write_text("import os\ndef score(:\n")
    for done in (rewardsvc("serve", "--reward-file", "odd.py"), rewardsvc("serve", reward_files="odd.py")):
        assert done.returncode == 2
        assert done.stderr.startswith("The reward file odd.py, line 2 is not valid Python: ")


def test_the_version_is_told(rewardsvc: Any) -> None:
    done = rewardsvc("--version")
    assert (done.returncode, done.stdout) == (0, f"rewardsvc {__version__}\n")


def test_the_log_is_json_from_the_first_line_where_nobody_watches(rewardsvc: Any) -> None:
    process = rewardsvc.start("serve", "--port", "0", "--workers", "1")
    assert process.stderr is not None
    first = json.loads(process.stderr.readline())
    process.kill()
    process.communicate()
    assert first["event"] == "ready"


def test_a_port_in_use_is_told(rewardsvc: Any, serving: Any) -> None:
    url, _ = serving("--workers", "1")
    done = rewardsvc("serve", "--port", url.rpartition(":")[2])
    assert done.returncode == 2
    assert "Cannot listen on" in done.stderr


def test_config_shows_everything_in_force_and_no_secret(rewardsvc: Any) -> None:
    endpoint = "http://user:hunter2@collector:4318"
    done = rewardsvc("config", api_keys="secret-1,secret-2", port="8123", otlp_endpoint=endpoint)
    rows = {line.split()[0]: line for line in done.stdout.splitlines()[1:]}
    assert done.returncode == 0
    assert set(rows) == {f"REWARDSVC_{name.upper()}" for name in Settings.model_fields}
    assert "8123" in rows["REWARDSVC_PORT"]
    assert "(2 set)" in rows["REWARDSVC_API_KEYS"]
    assert "********@collector:4318" in rows["REWARDSVC_OTLP_ENDPOINT"]
    assert "secret" not in done.stdout
    assert "hunter2" not in done.stdout
    for name, field in Settings.model_fields.items():
        assert field.description, f"{name} has no description"
        assert field.description in rows[f"REWARDSVC_{name.upper()}"]


def test_rewards_lists_what_works_and_what_does_not(rewardsvc: Any, plugin: Any) -> None:
    (rewardsvc.folder / "odd.py").write_text("raise KeyError('x')")
    lying = Path(plugin("rank")).read_text().replace('"rank"', '"lying"').replace("[0.0, 1.0, 0.5]", "[1.0, 0.0, 0.5]")
    (rewardsvc.folder / "lying.py").write_text(lying)
    files = f"odd.py,lying.py,{plugin('rank')},{plugin('remote')}"
    table, document = rewardsvc("rewards", reward_files=files), rewardsvc("rewards", "--json", reward_files=files)
    rows = {line.split()[0]: line for line in table.stdout.splitlines()[1:]}
    assert (table.returncode, document.returncode) == (0, 0)
    assert sorted(rows) == ["exact", "format", "lying", "math", "odd", "rank", "remote"]
    assert "unavailable  importing it failed: KeyError" in rows["odd"]
    assert "its self-test failed" in rows["lying"]
    assert "groups    cpu, 0.5 s" in rows["rank"]
    assert "io × 100, 1 s" in rows["remote"]
    infos = {info["name"]: info for info in json.loads(document.stdout)["rewards"]}
    assert {name: info["available"] for name, info in infos.items()} == {
        name: name not in ("odd", "lying") for name in rows
    }
    assert table.stderr == document.stderr == ""


def test_rewards_are_readable_on_a_narrow_terminal(rewardsvc: Any, plugin: Any) -> None:
    lines = rewardsvc.on_terminal(80, "rewards", reward_files=f"{plugin('rank')},none.py")
    assert max(map(len, lines)) <= 80
    assert "exact  1  rollouts  cpu, 1 s  rewardsvc 0.1.0  available" in lines
    assert "none  none.py  unavailable" in lines
    assert "1.0 when the final answer equals the reference as text or as a plain number, else 0.0." in told(lines)
    assert len(lines) < 20


def told(lines: list[str]) -> str:
    """All words, wherever the lines break."""
    return " ".join(" ".join(lines).split())


def test_doctor_is_readable_on_a_narrow_terminal(rewardsvc: Any) -> None:
    names = [f"other_{letter * 12}" for letter in "abcde"]
    lines = rewardsvc.on_terminal(80, "doctor", **dict.fromkeys(names, "x"))
    assert max(map(len, lines)) <= 80
    assert all(f"REWARDSVC_{name.upper()}" in told(lines) for name in names)
    assert sum(line.startswith(" " * 32) for line in lines) >= 2


def test_the_demo_is_readable_on_a_narrow_terminal(rewardsvc: Any) -> None:
    lines = rewardsvc.on_terminal(80, "demo")
    assert max(map(len, lines)) <= 80
    assert "unparsable_reference" in told(lines)
    assert "seventy-two" in told(lines)
    assert "Run ms" not in told(lines)


def test_doctor_finds_this_machine_fit(rewardsvc: Any) -> None:
    done = rewardsvc("doctor", shared_data="3")
    assert done.returncode == 0, done.stdout
    assert "ok       pidfd_open" in done.stdout
    assert "valid; nothing reads REWARDSVC_SHARED_DATA" in done.stdout


def test_doctor_says_how_to_get_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> str:
        raise doctor.Missing("buy one")

    optional = doctor.Probe("a teapot", absent, "tea")
    monkeypatch.setattr(doctor, "PROBES", (optional,))
    monkeypatch.setattr(doctor, "sandbox_probes", list)
    shown = CliRunner().invoke(app, ["doctor"])
    assert shown.exit_code == 0
    assert " ".join(shown.output.split()) == "missing a teapot needed for tea; buy one"
    monkeypatch.setattr(doctor, "PROBES", (optional._replace(needed_for=None),))
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 1


def test_doctor_notices_a_wrong_setting(rewardsvc: Any) -> None:
    for wrong, message in (({"workers": "many"}, "rewardsvc config"), ({"workrs": "3"}, "mean REWARDSVC_WORKERS?")):
        done = rewardsvc("doctor", **wrong)
        assert done.returncode == 1
        assert "missing  settings" in done.stdout
        assert message in done.stdout


def test_demo_shows_a_verdict_on_every_example(rewardsvc: Any, all_gone: Any) -> None:
    process = rewardsvc.start("demo", api_keys="of-the-environment")
    time.sleep(1)
    family = psutil.Process(process.pid).children(recursive=True)
    output, errors = process.communicate(timeout=90)
    examples = Path(__file__).parents[2] / "examples"
    groups = [json.loads(line) for path in examples.glob("*.jsonl") for line in path.read_text().splitlines()]
    assert process.returncode == 0, errors
    for group in groups:
        assert f"\n{group['group_id']} " in output
        for rollout in group["rollouts"]:
            assert f" {rollout['id']} " in output
    assert "bad_reference" in output
    assert "have no number: a failure is never a zero." in output
    assert family
    assert all_gone(family)


def test_the_openapi_document_is_the_same_every_time_and_for_our_rewards_only(rewardsvc: Any, plugin: Any) -> None:
    first, second = rewardsvc("openapi", reward_files=plugin("rank")), rewardsvc("openapi", "-o", "document.json")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    assert first.stdout == (rewardsvc.folder / "document.json").read_text()
    posts = [path for path, methods in json.loads(first.stdout)["paths"].items() if "post" in methods]
    assert sorted(posts) == ["/v1/rewards/exact", "/v1/rewards/format", "/v1/rewards/math"]


def test_openapi_check_finds_drift(rewardsvc: Any) -> None:
    rewardsvc("openapi", "-o", "document.json")
    path = rewardsvc.folder / "document.json"
    same = rewardsvc("openapi", "--check", "document.json")
    path.write_text(path.read_text().replace('"title": "rewardsvc"', '"title": "other"'))
    drifted = rewardsvc("openapi", "--check", "document.json")
    assert (same.returncode, drifted.returncode) == (0, 1)
    assert '-    "title": "other",' in drifted.stdout
    assert '+    "title": "rewardsvc",' in drifted.stdout
    assert "rewardsvc openapi -o document.json" in drifted.stderr


def test_bench_lists_what_it_can_measure() -> None:
    listed, unknown = CliRunner().invoke(app, ["bench"]), CliRunner().invoke(app, ["bench", "nothing"])
    assert (listed.exit_code, unknown.exit_code) == (0, 2)
    assert "client " in listed.output


def test_every_command_explains_itself() -> None:
    names = [str(command.callback.__name__) for command in app.registered_commands if command.callback]
    assert set(names) >= {"serve", "score", "rewards", "new", "check", "demo", "config", "doctor", "openapi", "bench"}
    for name in names:
        shown = CliRunner().invoke(app, [name, "--help"])
        assert shown.exit_code == 0
        assert name in shown.output
