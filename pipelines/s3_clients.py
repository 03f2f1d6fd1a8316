"""Clients of S3 that are made once.

Beam makes one for each call, which takes 60 ms of processor time: most of what a run on small files would take.
"""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import copy
from functools import cache
from typing import Any

from apache_beam.io.aws.clients.s3 import boto3_client


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
