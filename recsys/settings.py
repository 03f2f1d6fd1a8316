"""Every setting of the product, with its default, in one place.

A value comes from, strongest first: a command's flags, the environment, a TOML file (``recsys.toml`` in the working
directory, or the one ``RECSYS_SETTINGS`` names), the defaults below. In the environment a setting is
``RECSYS_<SECTION>__<NAME>``, such as ``RECSYS_TRAINING__EPOCHS=5``; the two addresses also answer to the names people
already use, ``KAFKA_BOOTSTRAP_SERVERS`` and ``REDIS_URL``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from recsys.sessions import SessionRule
from recsys.well_known import WellKnownNames

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
DropoutRate = Annotated[float, Field(ge=0.0, lt=1.0)]
MIN_SECRET = 16


_ADDRESSES = r"^([^\s,:\[\]]+|\[[0-9a-fA-F:]+\]):\d{1,5}(,\s*([^\s,:\[\]]+|\[[0-9a-fA-F:]+\]):\d{1,5})*$"
_STORE = r"^(rediss?|unix)://"
_PREFIX = r"^[\w.:-]{1,64}$"
IN_WORDS = {  # what a text must be that has to match
    _ADDRESSES: "HOST:PORT, or several of them with commas between",
    _STORE: "redis://, rediss:// or unix:// and an address",
    _PREFIX: "1 to 64 letters, digits, or any of . : _ -",
}


class Section(BaseModel):
    """Base of all sections: unknown names are errors, values do not change, and numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _limit(value: object) -> int | Literal["learnt"]:
    text = str(value)
    if text == "learnt":
        return "learnt"
    if not text.isdecimal():
        raise ValueError("must be a whole number, 0 or more, or learnt")
    return int(text)


Limit = Annotated[int | Literal["learnt"], PlainValidator(_limit)]


class SessionSettings(Section):
    """What a session is and which sessions a dataset keeps. Travels inside every model bundle."""

    gap_minutes: float = Field(30.0, gt=0, description="A gap longer than this many minutes starts a new session.")
    collapse_repeats: bool = Field(True, description="Count a direct repeat of the same item once.")
    min_item_support: int = Field(5, ge=1, description="Drop items with fewer events than this.")
    min_length: int = Field(2, ge=1, description="Drop sessions with fewer events than this.")
    max_length: int = Field(1000, ge=2, description="Drop sessions with more events than this: they are no shoppers.")
    bot_clicks_per_minute: Limit = Field(
        0, description="Drop users with more clicks than this in a minute; learnt: far more than most users; 0: none."
    )
    bot_clicks_per_day: Limit = Field(
        0, description="Drop users with more clicks than this on a day; learnt: far more than most users; 0: none."
    )

    @model_validator(mode="after")
    def _lengths_leave_sessions(self) -> SessionSettings:
        if self.min_length > self.max_length:
            raise ValueError(f"min_length {self.min_length} is above max_length {self.max_length}")
        return self

    @property
    def drops_bots(self) -> bool:
        """Whether users are dropped for how much they click."""
        return self.bot_clicks_per_minute != 0 or self.bot_clicks_per_day != 0

    @property
    def rule(self) -> SessionRule:
        """The rule by which batch and stream cut sessions."""
        return SessionRule(round(self.gap_minutes * 60_000), self.collapse_repeats)


class PipelineSettings(Section):
    """How session datasets are built."""

    memory_mib: int = Field(
        2048, ge=768, description="Memory of a machine that builds sessions: longer logs make more shards instead."
    )
    keep_clicks: bool = Field(True, description="Keep all clicks in a dataset, so that others can be added to it.")


class StreamingSettings(Section):
    """How sessions are closed while clicks come in (`recsys stream-sessions`)."""

    allowed_lateness_minutes: float = Field(
        60.0, ge=0, description="A click that comes up to this much behind newer ones still finds its session open."
    )
    close_every_minutes: float = Field(5.0, gt=0, description="How often, by the clicks' time, sessions are closed.")
    remember_ids_hours: float = Field(24.0, ge=0, description="Event ids of closed sessions are known so much longer.")
    shards: int = Field(16, ge=1, le=10_000, description="Parts that users are spread over; so many workers at most.")


class ModelSettings(Section):
    """The shape of the network. Travels inside every model bundle."""

    units: int = Field(100, ge=1, description="Width of each GRU layer's hidden state.")
    layers: int = Field(1, ge=1, le=4, description="GRU layers, one on top of the other.")
    embedding: Literal["tied", "separate", "one-hot"] = Field(
        "tied", description="Item embeddings: one for input and output, one for each, or one at the output only."
    )
    memory: int = Field(
        5, ge=0, le=50, description="Clicks before the last whose items have a learned chance to come again."
    )
    followers: int = Field(
        16, ge=0, le=256, description="Items of which counts say how often they follow an item, beside the network."
    )


class TrainingSettings(Section):
    """How a model learns."""

    loss: Literal["cross-entropy", "bpr-max", "top1-max"] = Field(
        "cross-entropy", description="What training minimises."
    )
    epochs: int = Field(10, ge=1, description="Passes over the training sessions, at most.")
    patience: int = Field(
        3, ge=1, description="Stop after this many epochs without a better one (Recall@20 times MRR@20, validation)."
    )
    halvings: int = Field(
        5, ge=0, le=20, description="After early stopping, passes over the newest half, quarter and so on; 0: none."
    )
    refit: bool = Field(True, description="After early stopping, train anew on training and validation sessions.")
    warm_epochs: int = Field(1, ge=1, description="Passes over what is new, after a warm start.")
    replay: DropoutRate = Field(0.0, description="After a warm start, share of sessions that were learnt before.")
    backwards: bool = Field(True, description="Learn each session from its last click to its first, too.")
    batch_size: int = Field(32, ge=1, description="Sessions that advance side by side.")
    clicks_per_step: int = Field(16, ge=1, description="Clicks of each session that one optimiser step goes through.")
    samples: int = Field(2048, ge=0, description="Extra negative samples for each optimiser step.")
    alpha: Fraction = Field(0.5, description="Negative samples are drawn by popularity to this power.")
    logq: Fraction = Field(1.0, description="Strength of the logQ correction of sampled scores (cross-entropy).")
    optimizer: Literal["adagrad", "adam", "adamw"] = Field("adagrad", description="How gradients become updates.")
    learning_rate: float = Field(
        0.14, gt=0, description="Step size; adam and adamw want about a hundredth of adagrad's."
    )
    momentum: DropoutRate = Field(0.0, description="Share of the last update that the next one keeps (adagrad).")
    weight_decay: float = Field(0.01, ge=0, description="Share of a weight, times the step size, taken away (adamw).")
    clip_norm: float = Field(
        0.0, ge=0, description="Scale gradients down to this norm, of all weights together; 0: never."
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="How the step size falls to zero over all epochs, if it does."
    )
    warmup: Fraction = Field(0.0, description="Share of all steps in which the step size rises from zero.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Numbers in which states and candidates are multiplied; all else is float32. auto: bfloat16 where "
        "the processor multiplies in it.",
    )
    devices: int = Field(1, ge=1, description="GPUs (or CPU devices) that share the lanes of each step.")
    embedding_dropout: DropoutRate = Field(0.25, description="Dropout on the item embeddings that enter the GRU.")
    hidden_dropout: DropoutRate = Field(0.5, description="Dropout on the hidden state that scores the items.")
    score_penalty: float = Field(1.0, ge=0, description="Weight of the score regularisation of BPR-max.")
    seed: int = Field(1, ge=0, description="The same seed gives the same model on the same machine.")
    checkpoint_seconds: float = Field(60.0, gt=0, description="Write a checkpoint at least this often.")

    @model_validator(mode="after")
    def _devices_share_lanes(self) -> TrainingSettings:
        if self.batch_size % self.devices:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of devices {self.devices}")
        return self


class KafkaSettings(Section):
    """Where clicks come from."""

    bootstrap_servers: str = Field(
        "127.0.0.1:9092", pattern=_ADDRESSES, description="Broker addresses, host:port, comma separated."
    )
    topic: str = Field("clicks", description="Topic of click events.")
    dead_letter_topic: str = Field("clicks.dead-letter", description="Topic of events that could not be used.")
    group: str = Field("recsys-worker", description="Consumer group of the workers.")
    commit_seconds: float = Field(1.0, gt=0, description="How often the worker commits its offsets.")
    session_timeout_seconds: float = Field(
        6.0,
        ge=3,
        description="A worker silent for this long loses its partitions; brokers take 6 s or more by default.",
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How to speak to the broker."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="How to log in, with SASL."
    )
    sasl_username: str = Field("", description="User of the broker, with SASL.")
    sasl_password: SecretStr = Field(SecretStr(""), description="That user's password.")
    ssl_ca: str = Field("", description="PEM file of the authority that signs the broker's certificate.")
    ssl_cert: str = Field("", description="PEM file of our certificate, where the broker asks for one.")
    ssl_key: str = Field("", description="PEM file of its key.")

    @model_validator(mode="after")
    def _names_itself(self) -> KafkaSettings:
        if self.security_protocol.startswith("SASL") and not self.sasl_username:
            raise ValueError(f"{self.security_protocol} needs sasl_username and sasl_password")
        return self


class RedisSettings(Section):
    """Where user states and recommendation lists live."""

    url: str = Field(
        "redis://127.0.0.1:6379/0",
        pattern=_STORE,
        description="Address of the store, or of any node of a Redis Cluster.",
    )
    prefix: str = Field("recsys", pattern=_PREFIX, description="First part of every key.")
    ttl_hours: float = Field(24 * 7, gt=0, description="Keys of a user expire this long after the last click.")
    timeout_seconds: float = Field(2.0, gt=0, description="Longest wait for one answer of the store.")
    username: str = Field("", description="User of the store, where it has any.")
    password: SecretStr = Field(SecretStr(""), description="That user's password.")
    ssl_ca: str = Field("", description="PEM file of the authority that signs the store's certificate (rediss://).")

    @model_validator(mode="after")
    def _encrypts(self) -> RedisSettings:
        if self.ssl_ca and not self.url.startswith("rediss://"):
            raise ValueError("ssl_ca is for an address that begins with rediss://")
        return self


class WorkerSettings(Section):
    """How the stream worker turns clicks into lists."""

    list_length: int = Field(20, ge=1, le=1000, description="Items in each recommendation list.")
    index: Literal["exact", "approximate"] = Field(
        "exact",
        description="How lists are found: all of the best items, or nearly all in two thirds of the time, which pays "
        "from some hundred thousand items on.",
    )
    exclude_seen: bool = Field(False, description="Leave items of the current session out of the list.")
    recent_items: int = Field(50, ge=1, le=1000, description="Events of the current session that a state carries.")
    state_numbers: Literal["float32", "float16", "int12"] = Field(
        "float32", description="Hidden states in the store: exact, or in half or three eighths of the bytes."
    )
    compact_lists: bool = Field(False, description="Lists in the store with scores as float16, without their offset.")
    batch_size: int = Field(256, ge=1, le=10_000, description="Most events in one micro-batch, unless more wait.")
    catch_up_batch: int = Field(
        100_000, ge=1, le=100_000, description="Most events in one micro-batch then: a user's newest alone is scored."
    )
    kept_users: int = Field(
        20_000,
        ge=0,
        description="Users who clicked last: their states and lists are kept in memory too, 2 to 12 KB each.",
    )
    max_future_seconds: float = Field(300.0, ge=0, description="Events further in the future go to the dead letter.")
    epoch: int = Field(0, ge=0, description="Raise by one when a topic without an id (old brokers) is re-created.")
    online_metrics: Literal["off", "stored", "all"] = Field(
        "stored",
        description="Clicks that test the list they meet: none, those whose list is stored, or later ones too.",
    )
    drift_bound: float = Field(0.1, ge=0, le=0.5, description="Alarm when a share of clicks moves this far; 0: never.")
    retry_seconds: float = Field(30.0, gt=0, description="Exit, to be restarted, after the store is away this long.")
    bundle_poll_seconds: float = Field(1.0, gt=0, description="How often to look for a newly published bundle.")
    metrics_host: str = Field("127.0.0.1", description="Address on which Prometheus metrics are served.")
    metrics_port: int = Field(9101, ge=0, le=65535, description="Port of the Prometheus metrics; 0 picks a free one.")


class TrendSettings(Section):
    """How lists follow what all visitors click."""

    seconds: float = Field(
        300.0,
        ge=0,
        description="From one live trend, what all visitors click of late, to the next; 0: scores follow none.",
    )


class ApiSettings(Section):
    """How the lookup API answers."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    max_limit: int = Field(100, ge=1, le=1000, description="Most items in one answer.")
    max_session_items: int = Field(200, ge=1, le=1000, description="Most clicks in an anonymous session.")
    max_events: int = Field(500, ge=1, le=10_000, description="Most events in one POST /v1/events.")
    max_body_kib: int = Field(1024, ge=1, description="Largest request body, in KiB.")
    max_requests: int = Field(1024, ge=1, description="Most requests in work at a time; more are told to come back.")
    max_pending_events: int = Field(10_000, ge=1, description="Most events that wait for the broker at a time.")
    broker_timeout_seconds: float = Field(5.0, gt=0, description="Longest wait for the broker to take events.")
    item_cache: int = Field(10_000, ge=1, description="Item pages whose answers are kept in memory.")
    bundle_poll_seconds: float = Field(1.0, gt=0, description="How often to look for a newly published bundle.")
    cors_origins: str = Field("", description="Web origins whose pages may call the API, comma separated; * for any.")


class ArchiveSettings(Section):
    """How the click topic is kept in files."""

    flush_mib: int = Field(64, ge=1, le=4096, description="Write files when records of this size have come.")
    flush_seconds: float = Field(300.0, gt=0, description="Write files this long after the first record that waits.")


class PrivacySettings(Section):
    """What datasets and archives say of users."""

    key: SecretStr = Field(
        SecretStr(""), description="Secret by which datasets and archives hash user ids; without, ids are in clear."
    )

    @model_validator(mode="after")
    def _cannot_be_guessed(self) -> PrivacySettings:
        if 0 < len(self.key.get_secret_value()) < MIN_SECRET:
            raise ValueError(f"key has less than {MIN_SECRET} characters: whoever guesses it can tell who users are")
        return self


class LogSettings(Section):
    """What services write on stderr."""

    format: Literal["text", "json"] = Field("text", description="Lines for people or for machines.")
    user_ids: Literal["clear", "hashed", "none"] = Field("clear", description="How log lines name users.")
    key: SecretStr = Field(
        SecretStr(""), description="Secret by which user ids are hashed; without, each process has its own."
    )


class Settings(BaseSettings):
    """All sections together, as a process sees them."""

    model_config = SettingsConfigDict(
        env_prefix="RECSYS_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
    )

    bundles: Path = Field(Path("bundles"), description="Directory of published model bundles.")
    sessions: SessionSettings = SessionSettings()
    pipeline: PipelineSettings = PipelineSettings()
    streaming: StreamingSettings = StreamingSettings()
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    worker: WorkerSettings = WorkerSettings()
    trend: TrendSettings = TrendSettings()
    api: ApiSettings = ApiSettings()
    archive: ArchiveSettings = ArchiveSettings()
    privacy: PrivacySettings = PrivacySettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags over environment over file."""
        return (
            init_settings,
            env_settings,
            WellKnownNames(settings_cls),
            TomlConfigSettingsSource(settings_cls, settings_file()),
        )


def settings_file() -> Path:
    """The file that settings are read from, if it is there."""
    return Path(os.environ.get("RECSYS_SETTINGS", "recsys.toml"))
