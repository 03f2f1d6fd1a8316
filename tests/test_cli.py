"""The command line as a user meets it: help, exit codes, words, and nothing loaded that is not needed."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.metadata import entry_points, requires
from pathlib import Path

import pytest

from recsys.cli import main
from recsys.cli.ctrl_c import ends_at_ctrl_c, fails_at_ctrl_c
from recsys.cli.settings import table_of_defaults
from tests.conftest import publish, random_model

ROOT = Path(__file__).parents[1]
NOW = 1_700_000_000_000
COMMANDS = sorted(entry_points(group="recsys.commands").names)


def recsys(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "recsys", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", **environment},
    )


def test_help_lists_every_command_without_loading_any_framework() -> None:
    script = (
        "import sys, recsys.cli.commands\n"
        "try: recsys.cli.commands.cli(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'tensorflow', 'apache_beam', 'pyarrow', 'faust'} & set(sys.modules)))\n"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert printed.endswith("[]\n")
    for command in COMMANDS:
        assert f"\n  {command} " in printed
    assert "..." not in printed.partition("Commands:")[2]  # each is said whole on 80 columns


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    done = recsys(command, "--help")
    assert done.returncode == 0
    assert re.search(rf"^ +.*recsys {command}\b", done.stdout.partition("\n")[2], re.MULTILINE)


@pytest.mark.parametrize("module", ["recsys.events", "recsys.sessions", "recsys.vocabulary", "recsys.state"])
def test_events_and_sessions_load_no_framework(module: str) -> None:
    script = f"import sys, {module}; print({{'tensorflow', 'apache_beam', 'pyarrow', 'faust'}} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "set()\n"
    )


@pytest.mark.parametrize(
    ("extra", "absent"),
    [
        ("api", {"tensorflow", "apache-beam", "faust-streaming", "pyarrow"}),
        ("stream", {"tensorflow", "apache-beam"}),
        ("pipelines", {"tensorflow", "faust-streaming"}),
    ],
)
def test_an_extra_brings_only_what_its_role_needs(extra: str, absent: set[str]) -> None:
    needed, waiting = set(), [f"recsys[{extra}]"]
    while waiting:
        name, _, extras = waiting.pop().rstrip("]").partition("[")
        for requirement in requires(name) or []:
            specification, _, marker = requirement.partition(";")
            wanted = re.search(r"extra == ['\"]([\w-]+)['\"]", marker)
            if wanted and wanted.group(1) not in extras.split(","):
                continue
            if (
                "sys_platform == 'win32'" in marker
                or 'sys_platform == "win32"' in marker
                or "python_version <" in marker
            ):
                continue
            found = re.match(r"[\w.-]+(\[[\w,-]+\])?", specification.strip())
            assert found
            if found.group() not in needed:
                needed.add(found.group())
                try:
                    requires(found.group().partition("[")[0])
                except ModuleNotFoundError:
                    continue  # for another platform
                waiting.append(found.group())
    names = {name.partition("[")[0].lower() for name in needed}
    assert {"numpy", "click"} <= names
    assert not names & absent


def test_the_readme_holds_the_settings_as_they_are() -> None:
    assert table_of_defaults() in (ROOT / "README.md").read_text()


def test_flags_go_before_environment_before_file_before_defaults(tmp_path: Path) -> None:
    file = tmp_path / "recsys.toml"
    file.write_text('bundles = "from-file"\n[training]\nepochs = 3\nsamples = 4\n[redis]\nurl = "redis://file:1"\n')
    script = (
        "from recsys.settings_in_force import load_settings as load\n"
        "s = load({'training': {'samples': 6}})\n"
        "print(s.training.samples, s.training.epochs, s.bundles, s.redis.url, s.redis.prefix)\n"
    )
    environment = {
        "RECSYS_SETTINGS": str(file),
        "RECSYS_TRAINING__EPOCHS": "5",
        "RECSYS_TRAINING__SAMPLES": "5",
        "REDIS_URL": "redis://environment:1",
    }
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "6 5 from-file redis://environment:1 recsys\n"


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"RECSYS_TRAINING__EPOCHS": "many"}, "training.epochs"),
        ({"RECSYS_TRAINING__EPOCHS": "0"}, "training.epochs"),
        ({"RECSYS_WORKER__NO_SUCH": "1"}, "worker.no_such: no such setting"),
        ({"RECSYS_WORKER__LIST_LENGHT": "1"}, "worker.list_lenght: no such setting; is it worker.list_length?"),
        ({"REDIS_URL": "localhost"}, "redis.url: must be redis://, rediss:// or unix:// and an address"),
        ({"RECSYS_REDIS__PREFIX": "a b"}, "redis.prefix: must be 1 to 64 letters"),
        ({"RECSYS_WORKR__BATCH_SIZE": "1"}, "RECSYS_WORKR__BATCH_SIZE"),
        ({"RECSYS_SETTINGS": "/no/such/file.toml"}, "/no/such/file.toml: no such file"),
        ({"KAFKA_BOOTSTRAP_SERVERS": "broker:port"}, "kafka.bootstrap_servers: must be HOST:PORT"),
        ({"REDIS_URL": "http://127.0.0.1"}, "redis.url"),
        ({"RECSYS_SESSIONS__GAP_MINUTES": "inf"}, "sessions.gap_minutes: Input should be a finite number"),
    ],
)
def test_a_setting_that_cannot_work_is_named(environment: dict[str, str], words: str) -> None:
    done = recsys("settings", **environment)
    assert done.returncode == 78
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_values_that_cannot_work_together_are_named() -> None:
    done = recsys("settings", RECSYS_SESSIONS__MIN_LENGTH="5", RECSYS_SESSIONS__MAX_LENGTH="3")
    assert (done.returncode, "sessions: min_length 5 is above max_length 3" in done.stderr) == (78, True)
    done = recsys("generate", "--events", "10", "--bad-share", "0.5", "--duplicate-share", "0.5", "--out", "x.csv")
    assert (done.returncode, "leave no good row of 10" in done.stderr) == (78, True)


def test_a_settings_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("[training\n")
    done = recsys("settings", RECSYS_SETTINGS=str(tmp_path / "broken.toml"))
    assert done.returncode == 78
    assert "broken.toml" in done.stderr


def test_a_password_is_not_shown() -> None:
    done = recsys("settings", REDIS_URL="redis://shop:secret@127.0.0.1:6379/0")
    assert done.returncode == 0
    assert "shop:***@" in done.stdout.replace("\n", "")
    assert "secret" not in done.stdout


def test_a_wrong_command_line_ends_with_2() -> None:
    assert recsys("train").returncode == 2
    assert recsys("no-such-command").returncode == 2


@pytest.mark.parametrize("module", ["click", "recsys.settings", "orjson"])
def test_ctrl_c_while_a_command_loads_stops_it_without_a_word_of_python(module: str, tmp_path: Path) -> None:
    """Some libraries lose an exception that comes while they load: the command would go on."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class CtrlC:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            sys.meta_path.remove(self)\n"
        "            try: os.kill(os.getpid(), signal.SIGINT)\n"
        "            except KeyboardInterrupt: print('lost')\n"
        "sys.meta_path.insert(0, CtrlC())\n"
    )
    done = recsys("train", str(tmp_path), "--out", str(tmp_path / "run"), PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


def test_an_error_after_ctrl_c_is_ctrl_c_and_one_before_is_an_error() -> None:
    def library() -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise ValueError("what was lost is missing")

    with pytest.raises(KeyboardInterrupt), fails_at_ctrl_c():
        library()
    with pytest.raises(ValueError, match="really wrong"), fails_at_ctrl_c():
        raise ValueError("really wrong")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("guard", [ends_at_ctrl_c, fails_at_ctrl_c])
def test_who_does_not_hear_ctrl_c_still_does_not(guard: Callable[[], AbstractContextManager[None]]) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with guard():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_recommend_answers_each_session(bundles: Path) -> None:
    lines = [
        {"id": "a", "session": ["item-003", "item-007"]},
        {
            "id": "b",
            "session": [{"item_id": "item-003", "timestamp": NOW}, {"item_id": "item-007", "timestamp": NOW + 2}],
        },
        {
            "id": "c",
            "session": [{"item_id": "item-009", "timestamp": NOW}, {"item_id": "item-007", "timestamp": NOW + 10**9}],
        },
        {"id": "d", "session": ["item-007"]},
        {"id": "e", "session": ["never seen"]},
        {"id": "f", "session": []},
    ]
    done = recsys("recommend", str(bundles), "--limit", "3", stdin="".join(json.dumps(line) + "\n" for line in lines))
    assert done.returncode == 0
    a, b, c, d, e, f = (json.loads(line) for line in done.stdout.splitlines())
    assert [answer["id"] for answer in (a, b, c, d, e, f)] == ["a", "b", "c", "d", "e", "f"]
    assert a["items"] == b["items"] != c["items"] == d["items"]  # the gap leaves only the last click of "c"
    assert [len(answer["items"]) for answer in (a, e)] == [3, 3]
    assert (a["source"], e["source"], f["source"]) == ("session", "popular", "popular")
    assert [item["item_id"] for item in e["items"]] == ["item-000", "item-001", "item-002"]


def test_recommend_takes_numbers_as_ids_and_the_newest_clicks_of_a_long_session(bundles: Path) -> None:
    long = [{"item_id": f"item-{number % 50:03}", "timestamp": NOW + number} for number in range(20_000)]
    lines = [{"session": [123, "item-003"]}, {"session": long[::-1]}, {"session": long[-200:]}]
    done = recsys("recommend", str(bundles), "--limit", "3", stdin="".join(json.dumps(line) + "\n" for line in lines))
    assert done.returncode == 0, done.stderr
    number, backwards, newest = (json.loads(line) for line in done.stdout.splitlines())
    assert number["source"] == "session"
    assert backwards == newest


BAD_SESSIONS = ["3", '"item-001"', '{"item-001": 1}', '[{"item": 1}]', "[true]", '[""]', "[1.5]", "[null]"]


@pytest.mark.parametrize("line", ["not json", "[]", '{"id": 1}', *(f'{{"session": {bad}}}' for bad in BAD_SESSIONS)])
def test_recommend_names_the_line_it_cannot_read(bundles: Path, line: str) -> None:
    done = recsys("recommend", str(bundles), stdin='{"session": ["item-001"]}\n' + line + "\n")
    assert done.returncode == 65
    assert "line 2" in done.stderr
    assert "Traceback" not in done.stderr


def test_brackets_in_names_are_no_markup(tmp_path: Path) -> None:
    done = recsys("sessions", f"{tmp_path}/none[/day].csv", "--out", str(tmp_path / "dataset"))
    assert done.returncode == 66
    assert "none[/day].csv: no such file" in done.stderr
    (tmp_path / "clicks.csv").write_text("[user],[b]item,when\n1,2,3\n")
    done = recsys("sessions", str(tmp_path / "clicks.csv"), "--out", str(tmp_path / "dataset"))
    assert done.returncode == 65
    assert "[user], [b]item, when" in done.stderr
    done = recsys("settings", RECSYS_BUNDLES="[red]x", COLUMNS="200")
    assert "[red]x (default bundles)" in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        ("generate", "--events", "10", "--out", "file/clicks.csv"),
        ("sessions", "clicks.csv", "--out", "file/dataset"),
    ],
)
def test_a_place_that_cannot_be_written_is_named(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "clicks.csv").write_text("user_id,item_id,timestamp\nu,i,5\n")
    done = subprocess.run(
        [sys.executable, "-m", "recsys", *command], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, "Traceback" in done.stderr) == (74, False)
    assert "cannot read or write: File exists: file" in done.stderr


@pytest.mark.parametrize(
    "flag", ["sessions --test-days", "sessions --max-bad", "replay --rate", "publish --canary", "tune --minutes"]
)
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_number_that_is_none_is_a_wrong_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flag: str, value: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["recsys", *flag.split(), value])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert f"{value} is not" in capsys.readouterr().err


MISSING = [
    ("train", "none", "--out", "run"),
    ("train", ".", "--out", "run"),
    ("tune", "none", "--out", "tuned"),
    ("profile", "none", "--out", "profile.html"),
    ("evaluate", "none", "none", "--out", "report"),
    ("recommend", "none"),
    ("recommend", "bundles", "none"),
    ("publish", "none"),
    ("publish", "bundles-model", "--evaluation", "none"),
    ("sessions", "none", "--out", "dataset"),
    ("sessions", "--from-dead-letter", "none", "--out", "dataset"),
    ("sessions", "clicks.csv", "--out", "none", "--append"),
    ("replay", "none"),
    ("demo", "--clicks", "none"),
    ("forget", "u", "--yes", "--dataset", "none"),
    ("forget", "u", "--yes", "--archive", "none"),
    ("forget", "--users-from", "none", "--yes", "--archive", "."),
]


def test_input_that_is_missing_ends_every_command_with_the_same_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    publish(Path("bundles"), random_model())
    Path("clicks.csv").write_text("user_id,item_id,timestamp\nu,i,5\n")
    for command in MISSING:
        monkeypatch.setattr(sys, "argv", ["recsys", *command])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr().err
        assert (command, ended.value.code) == (command, 66), said
        assert said.startswith(("error: none", "error: .: "))


def test_publish_and_rollback_print_the_version_that_serves(tmp_path: Path) -> None:
    first = publish(tmp_path / "bundles", random_model())
    done = recsys("publish", str(tmp_path / "bundles-model"), "--bundles", str(tmp_path / "bundles"))
    second = done.stdout.strip()
    assert first < second
    assert recsys("rollback", "--bundles", str(tmp_path / "bundles")).stdout.strip() == first
    done = recsys("rollback", "--bundles", str(tmp_path / "bundles"))
    assert (done.returncode, "nothing served before" in done.stderr) == (66, True)
