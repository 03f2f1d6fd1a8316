"""Sessions from logs on other filesystems, by workers that share nothing but those, on other runners."""

from __future__ import annotations

import json
import random
import shutil
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator

from pipelines.live.closed_files import read_counts
from pipelines.live.run import StreamRequest, stream_sessions
from pipelines.places import Local, Place, Remote, place
from pipelines.runner import run_pipeline, runner_of
from recsys.errors import InputError, RecsysError, UnavailableError
from tests.servers.beam import Cluster
from tests.servers.flink import Flink
from tests.servers.presence import where_present
from tests.servers.s3 import S3
from tests.servers.spark import Spark

from .conftest import Outcome, Run
from .test_sessions_command import random_log, write_csv
from .test_streaming import random_log as random_clicks
from .test_topic import produce, settings_of

BUCKET = "clicks"
# Files on a far filesystem take a while each: few shards, and no pass of the filters.
FEW = ("--shards", "2", "--min-item-support", "1")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with S3(tmp_path_factory.mktemp("s3")) as server:
        server.client.create_bucket(Bucket=BUCKET)
        yield server


@pytest.fixture
def halves(tmp_path: Path) -> list[Path]:
    """A log in two files, one line of which is bad."""
    log = random_log(7, 1500)
    parts = [log[:700], [*log[700:], ("u1", "", 1, "view")]]
    (tmp_path / "logs").mkdir()
    return [write_csv(tmp_path / "logs" / f"half-{number}.csv", part) for number, part in enumerate(parts)]


@pytest.fixture
def url(s3: S3, halves: list[Path]) -> str:
    """The same log in the object store, where not all objects are logs."""
    for path in halves:
        s3.client.upload_file(str(path), BUCKET, f"logs/day/{path.name}")
    s3.client.put_object(Bucket=BUCKET, Key="logs/day/_SUCCESS", Body=b"")
    s3.client.put_object(Bucket=BUCKET, Key="logs/_temporary/half.csv", Body=b"half")
    return f"s3://{BUCKET}/logs"


def same(elsewhere: Outcome, here: Outcome) -> None:
    """The datasets are the same but for the names of their logs."""
    assert elsewhere.code == 0, elsewhere.stderr
    ours, theirs = here.dataset.manifest, elsewhere.dataset.manifest
    assert theirs.content_hash == ours.content_hash
    assert theirs.counts == ours.counts
    assert [file for file in theirs.files if "dead" not in file.path] == [
        file for file in ours.files if "dead" not in file.path
    ]
    for letter, other in zip(here.dead_letters, elsewhere.dead_letters, strict=True):
        assert str(other["file"]).endswith(str(letter["file"]).rpartition("/")[2])
        assert {**letter, "file": ""} == {**other, "file": ""}


def test_logs_and_intermediate_files_may_be_in_an_object_store(
    run: Run, tmp_path: Path, s3: S3, halves: list[Path], url: str
) -> None:
    here = run(*halves, *FEW, out=tmp_path / "here")
    before = s3.names(BUCKET)
    same(run(url, *FEW, "--work", f"s3://{BUCKET}/work/", "--", *s3.flags, out=tmp_path / "there"), here)
    assert s3.names(BUCKET) == before
    absent = run(f"{url}/*.json", "--", *s3.flags, out=tmp_path / "absent")
    assert absent.code == 66
    assert f"{url}/*.json: no such file" in absent.stderr


@pytest.mark.parametrize(
    ("name", "words"), [("gs://bucket/clicks.csv", "apache-beam[gcp]"), ("ftp://a/b", "Unable to get filesystem")]
)
def test_a_filesystem_that_cannot_be_used_is_named(run: Run, name: str, words: str) -> None:
    outcome = run(name)
    assert outcome.code == 74
    assert name in outcome.stderr
    assert words in outcome.stderr


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")  # of what shows the progress
def test_a_place_for_intermediate_files_that_cannot_be_used_is_named(run: Run, halves: list[Path]) -> None:
    outcome = run(halves[0], "--work", "ftp://host/work")
    assert outcome.code == 74
    assert "error: cannot read or write: ftp://host/work/dataset-" in outcome.stderr
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize("keys", [("id", "secret"), ()])
def test_an_object_store_that_is_not_there_is_named_at_once(
    run: Run, monkeypatch: pytest.MonkeyPatch, keys: tuple[str, ...]
) -> None:
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    flags = [f"--s3_{kind}={key}" for kind, key in zip(("access_key_id", "secret_access_key"), keys, strict=False)]
    began = time.monotonic()
    outcome = run("s3://shop/clicks", "--", "--s3_endpoint_url=http://127.0.0.1:1", *flags)
    assert outcome.code == 74
    words = "Could not connect to the endpoint URL" if keys else "Unable to locate credentials"
    assert f"error: cannot read or write: s3://shop/clicks: {words}" in outcome.stderr
    assert time.monotonic() - began < 15


@pytest.fixture(scope="module", params=[Flink, Spark])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with where_present():
        made: Cluster = request.param(tmp_path_factory.mktemp("cluster") / "head")
    with made as cluster:
        yield cluster


def test_a_cluster_gives_the_same_dataset(
    cluster: Cluster, run: Run, tmp_path: Path, s3: S3, halves: list[Path], url: str
) -> None:
    here = run(*halves, *FEW, out=tmp_path / "here")
    flags = (*cluster.flags, *s3.flags)
    same(run(url, *FEW, "--work", f"s3://{BUCKET}/work", "--", *flags, out=tmp_path / "there"), here)


@pytest.mark.parametrize("cluster", [Flink], indirect=True)
def test_flink_closes_sessions_while_clicks_come(cluster: Flink, broker: str, run: Run, tmp_path: Path) -> None:
    log = [json.dumps(value) for value in random_clicks(random.Random(5))]
    (tmp_path / "log.jsonl").write_text("\n".join(log))
    topic, closed = f"clicks-{uuid.uuid4().hex}", tmp_path / "closed"
    produce(broker, topic, [line.encode() for line in log])
    flags = [*cluster.flags, "--checkpointing_interval=2000"]  # at every second one time once ended
    request = StreamRequest(closed, settings_of(broker, topic, streaming={"shards": 2}), beam_flags=flags)
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(stream_sessions, request)
        deadline = time.monotonic() + 120
        try:
            while not closed.is_dir() or not ended(read_counts(closed), len(log)):
                assert not job.done(), job.result()
                assert time.monotonic() < deadline, "sessions stay open"
                time.sleep(0.1)
        finally:
            cluster.cancel_jobs()
        with pytest.raises(UnavailableError, match=r"PortableRunner: the work was not done: .*cancelled"):
            job.result(60)
    batch = run(tmp_path / "log.jsonl", out=tmp_path / "batch").dataset.manifest
    stream = run(closed, "--column", "session=session_id", out=tmp_path / "stream").dataset.manifest
    assert stream.content_hash == batch.content_hash


def ended(counts: dict[str, int], records: int) -> bool:
    """Whether all records are read, and no session is open."""
    return counts.get("records") == records and counts["open"] == 0


@pytest.mark.skipif(
    shutil.which("prism") is None, reason="go install github.com/apache/beam/sdks/v2/go/cmd/prism@v2.77.0"
)
def test_prism_gives_the_same_dataset(run: Run, tmp_path: Path, s3: S3, halves: list[Path], url: str) -> None:
    here = run(*halves, *FEW, out=tmp_path / "here")
    flags = ("--runner=PrismRunner", f"--prism_location={shutil.which('prism')}", *s3.flags)
    same(run(url, *FEW, "--work", f"s3://{BUCKET}/work", "--", *flags, out=tmp_path / "there"), here)


def flags_of_the_readme() -> dict[str, list[str]]:
    """The flags of each runner that the README names for ``recsys sessions``."""
    lines = (Path(__file__).parents[2] / "README.md").read_text().splitlines()
    found = [line.split(" -- ")[1].split() for line in lines if line.startswith("  recsys sessions") and " -- " in line]
    return {flags[0].removeprefix("--runner="): flags for flags in found}


@pytest.mark.parametrize("runner", ["FlinkRunner", "SparkRunner", "DataflowRunner"])
def test_beam_knows_the_flags_of_the_readme(runner: str) -> None:
    flags = flags_of_the_readme()[runner]
    known = PipelineOptions(flags).get_all_options(drop_default=True)
    assert [flag for flag in flags if flag.split("=")[0].removeprefix("--") not in known] == []


class DataflowRunner:
    """What Beam asks of the runner, which goes by its name, when it checks the flags."""

    def get_default_gcp_region(self) -> None:
        """None is configured on this machine."""


@pytest.mark.parametrize(
    ("without", "error"),
    [(None, None), ("--project", "project"), ("--temp_location", "temp_location"), ("--region", "region")],
)
def test_dataflow_would_take_the_flags_of_the_readme(without: str | None, error: str | None) -> None:
    flags = [flag for flag in flags_of_the_readme()["DataflowRunner"] if flag.split("=")[0] != without]
    errors = PipelineOptionsValidator(PipelineOptions(flags), DataflowRunner()).validate()
    assert (errors == []) if error is None else any(error in words for words in errors)


NOWHERE = ("--runner=PortableRunner", "--job_endpoint=127.0.0.1:1", "--job_server_timeout=1")
WRONG = ("--runner=DataflowRunner", "--project=x", "--temp_location=gs://a/b", "--region=r")


@pytest.mark.parametrize(("flags", "words"), [(NOWHERE, "job server does not answer"), (WRONG, "Invalid Project ID")])
def test_a_cluster_that_cannot_be_had_is_named(
    run: Run, halves: list[Path], flags: tuple[str, ...], words: str
) -> None:
    outcome = run(halves[0], "--", *flags)
    assert outcome.code == 69, outcome.stderr
    assert outcome.stderr.strip().splitlines()[-1].startswith(f"error: {flags[0]}: the work was not done: ")
    assert words in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert not outcome.out.exists()


def fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OSError(28, "No space left on device", "a.csv"), RecsysError, "the work was not done: OSError: .*'a.csv'"),
        (OSError("s3://shop/a.csv: Not Found"), OSError, "s3://shop/a.csv: Not Found"),
        (UnavailableError("the broker does not answer"), UnavailableError, "the broker does not answer"),
    ],
)
def test_the_error_of_a_worker_is_said_in_a_line(error: Exception, kind: type[Exception], words: str) -> None:
    def build(pipeline: beam.Pipeline) -> None:
        pipeline | "Errors" >> beam.Create([error]) | "Fail" >> beam.Map(fail)

    with pytest.raises(kind, match=rf"^{words}.*$"):
        run_pipeline(runner_of(())[0], build)


@pytest.fixture(params=["local", "disk by Beam", "s3"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "s3":
        s3: S3 = request.getfixturevalue("s3")
        return place(f"s3://{BUCKET}/{tmp_path.name}/", s3.flags)
    return Local(tmp_path) if request.param == "local" else Remote(str(tmp_path))


def test_files_of_a_place_are_whole_and_listed_by_name(directory: Place) -> None:
    assert directory.children() == []
    (directory / "b").write(b"two")
    (directory / "a").write(b"first")
    (directory / "a").write(b"one")
    (directory / "deeper" / "c").write(b"three")
    assert list(directory.contents()) == [b"one", b"two"]
    assert [child.name for child in (directory / "deeper").children()] == ["c"]
    (directory / "deeper").delete()
    (directory / "deeper").delete()
    assert (directory / "deeper").children() == []
    assert [child.read() for child in directory.children()] == [b"one", b"two"]


def test_a_file_whose_writing_fails_is_not_there(directory: Place) -> None:
    def fail() -> None:
        with (directory / "new").writer() as file:
            file.write(b"half")
            raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        fail()
    assert directory.children() == []
    with pytest.raises(OSError, match="new"):
        (directory / "new").read()


def test_two_workers_may_write_a_file_at_the_same_time(directory: Place) -> None:
    with (directory / "a").writer() as first, (directory / "a").writer() as second:
        first.write(b"the same")
        second.write(b"the same")
    assert [child.name for child in directory.children()] == ["a"]
    assert (directory / "a").read() == b"the same"


def test_an_address_to_write_to_is_no_pattern() -> None:
    with pytest.raises(InputError, match=r"s3://bucket/\*: an address to write to"):
        place("s3://bucket/*")


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--runner=Flint", "--runner=Flint: Unexpected pipeline runner: Flint"),
        ("--runer=FlinkRunner", "--runer: Beam has no such flag on this machine"),
    ],
)
def test_a_runner_or_a_flag_that_beam_has_not_is_named(run: Run, halves: list[Path], flag: str, words: str) -> None:
    outcome = run(halves[0], "--", flag)
    assert (outcome.code, words in outcome.stderr) == (78, True), outcome.stderr
    assert not outcome.out.exists()
