"""A file is read to its end, and says how far it is."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.logs.blocks import read_blocks
from recsys.logs.parquet import BATCH_ROWS
from recsys.logs.sources import find_sources


def test_a_parquet_file_is_read_by_its_share_of_rows(tmp_path: Path) -> None:
    rows = BATCH_ROWS * 2
    path = tmp_path / "clicks.parquet"
    pq.write_table(
        pa.table({"user_id": pa.repeat("u", rows), "item_id": pa.repeat("i", rows), "ts": range(rows)}), path
    )
    (source,) = find_sources([str(path)], {})
    assert [(block.position, block.first_row) for block in read_blocks(source)] == [
        (round(source.size / 2), 0),
        (source.size, BATCH_ROWS),
    ]
