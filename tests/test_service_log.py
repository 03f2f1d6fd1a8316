"""Log lines of services: text or JSON, and users named as the settings want."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import logging, sys
from recsys.service_log import announce, start_logging
from recsys.settings import LogSettings
start_logging(LogSettings.model_validate_json(sys.argv[1]))
announce("worker: metrics on http://127.0.0.1:1/metrics")
log = logging.getLogger("stream.letter_log")
log.warning("of %s", "a user", extra={"user_id": "visitor-17", "reason": "late"})
log.warning("of the same user", extra={"user_id": "visitor-17"})
log.warning("of another", extra={"user_id": "visitor-18"})
log.warning("of nobody", extra={"user_id": None})
logging.getLogger("library").warning("a library", extra={"data": "visitor-17"})
logging.getLogger("library").info("not said")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("broken")
"""


def lines(**settings: str) -> list[str]:
    command = [sys.executable, "-c", SCRIPT, json.dumps(settings)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()


def test_text_is_for_people() -> None:
    said = lines()
    assert said[0] == "worker: metrics on http://127.0.0.1:1/metrics"
    assert said[1].endswith(" WARNING stream.letter_log: of a user reason=late user_id=visitor-17")
    assert said[4].endswith("of nobody")
    assert said[5].endswith("library: a library")
    assert "ZeroDivisionError: division by zero" in said


def test_json_is_one_object_a_line() -> None:
    said = [json.loads(line) for line in lines(format="json")]
    assert said[0]["message"] == "worker: metrics on http://127.0.0.1:1/metrics"
    assert (
        said[1].items()
        >= {
            "level": "WARNING",
            "logger": "stream.letter_log",
            "message": "of a user",
            "user_id": "visitor-17",
            "reason": "late",
        }.items()
    )
    assert "user_id" not in said[4]
    assert "ZeroDivisionError" in said[-1]["exception"]
    assert len(said) == 7


def test_users_are_hashed_with_a_key() -> None:
    first, second, other = (
        json.loads(line)["user_id"] for line in lines(format="json", user_ids="hashed", key="a")[1:4]
    )
    assert first == second != other
    assert len(first) == 16
    elsewhere = [json.loads(line)["user_id"] for line in lines(format="json", user_ids="hashed", key="b")[1:2]]
    keyless = [json.loads(lines(format="json", user_ids="hashed")[1])["user_id"] for _ in range(2)]
    assert len({first, *elsewhere, *keyless}) == 4


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("user_ids", ["hashed", "none"])
def test_no_user_is_named_where_none_shall_be(form: str, user_ids: str) -> None:
    assert "visitor" not in "\n".join(lines(format=form, user_ids=user_ids))


def test_the_error_that_ends_a_service_is_a_line_like_the_others() -> None:
    script = (
        "import sys\n"
        "from recsys.cli import main\n"
        "from recsys.service_log import start_logging\n"
        "from recsys.settings import LogSettings\n"
        "start_logging(LogSettings(format='json'))\n"
        "sys.argv = ['recsys', 'publish', 'absent']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 66
    assert json.loads(line)["level"] == "CRITICAL"
    assert "absent" in json.loads(line)["message"]
