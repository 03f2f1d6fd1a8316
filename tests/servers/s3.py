"""An object store that speaks the protocol of Amazon S3, kept in memory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import boto3

from tests.servers.process import Server

_LOGIN = {"region_name": "us-east-1", "aws_access_key_id": "tests", "aws_secret_access_key": "tests"}


class S3(Server):
    """A store without any bucket. ``flags`` are Beam's; ``client`` is boto3's."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._url = f"http://127.0.0.1:{self.port}"
        self.client: Any = boto3.client("s3", endpoint_url=self._url, **_LOGIN)
        self.flags = [
            f"--s3_endpoint_url={self._url}",
            f"--s3_region_name={_LOGIN['region_name']}",
            f"--s3_access_key_id={_LOGIN['aws_access_key_id']}",
            f"--s3_secret_access_key={_LOGIN['aws_secret_access_key']}",
        ]

    def command(self) -> list[str]:
        """Moto's server."""
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]

    def answers(self) -> bool:
        """Whether it does."""
        try:
            with urlopen(f"{self._url}/moto-api/", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def names(self, bucket: str) -> list[str]:
        """The keys of all objects."""
        return [found["Key"] for found in self.client.list_objects_v2(Bucket=bucket).get("Contents", [])]
