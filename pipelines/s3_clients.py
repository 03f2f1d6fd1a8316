"""Clients of S3 that are made once, and know soon whether anybody is there.

Beam makes one for each call, which takes 60 ms of processor time: most of what a run on small files would take. Where
nobody answers it tries again for ten minutes, in silence.
"""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import copy
import os
from functools import cache
from typing import Any

from apache_beam.io.aws.clients.s3 import boto3_client
from apache_beam.options.pipeline_options import PipelineOptions


@cache
def reach(options: PipelineOptions, bucket: str) -> None:
    """See that the store answers, whatever it says of the bucket; from now on clients are kept.

    Raises:
        OSError: it does not, or nobody is named to it.
        AssertionError: boto3 is not installed.
    """
    os.environ.setdefault(
        "AWS_DEFAULTS_MODE", "standard"
    )  # three tries, three seconds to connect: boto3's are a minute
    keep_clients()
    client = boto3_client.Client(options).client
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client.head_bucket(Bucket=bucket)
    except ClientError:
        pass  # that is an answer
    except BotoCoreError as error:
        raise OSError(str(error)) from error


@cache
def keep_clients() -> None:
    """From now on the clients of one set of options share connections (boto3's clients may be shared by threads)."""
    make = boto3_client.Client
    kept: dict[int, tuple[Any, Any]] = {}  # by identity; the options are held, so that no others get theirs

    def client(options: Any) -> Any:
        if id(options) not in kept:
            kept[id(options)] = options, make(options)
        return copy.copy(kept[id(options)][1])  # each has its own place in what it reads

    boto3_client.Client = client  # type: ignore[assignment, misc]
