"""The manifest as a file: one Parquet row for each input record, so that no folder has to be listed to know them."""

from collections.abc import Iterable
from dataclasses import fields
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from plmjac.files import write_whole
from plmjac.store.layout import MANIFEST, CorruptStoreError, digest
from plmjac.workplan import ManifestRow

SCHEMA = pa.schema(
    [
        (field.name, pa.float64() if field.type is float else pa.int64() if field.type is int else pa.string())
        for field in fields(ManifestRow)
    ]
)


def write_manifest(store: Path, rows: Iterable[ManifestRow], name: str = MANIFEST) -> None:
    """Replace the manifest, or another file of rows, whole or not at all; pages carry checksums, the rows a digest."""
    documents = [vars(row) for row in rows]  # asdict would copy every string of 20,000 proteins
    schema = SCHEMA
    if not any(document["residue_numbers"] for document in documents):
        # No structures: as in stores of before 2026-11-26, which had no such column.
        documents = [{name: value for name, value in row.items() if name != "residue_numbers"} for row in documents]
        schema = schema.remove(schema.get_field_index("residue_numbers"))
    table = pa.Table.from_pylist(documents, schema=schema.with_metadata({"digest": digest(documents)}))
    buffer = BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    write_whole(store / name, buffer.getvalue())


def read_manifest(store: Path, name: str = MANIFEST) -> list[ManifestRow]:
    """Every row of the manifest, in input order; empty where no run has got that far.

    Raises CorruptStoreError where the file cannot be read as it was written.
    """
    path = store / name
    if not path.exists():
        return []
    try:
        with path.open("rb") as file:
            table = pq.read_table(file, page_checksum_verification=True)
        documents = table.to_pylist()
        if (table.schema.metadata or {}).get(b"digest", b"").decode() != digest(documents):
            raise ValueError("its rows do not match their digest")
        return [ManifestRow(**row) for row in documents]
    except (OSError, pa.ArrowException, TypeError, ValueError) as error:
        raise CorruptStoreError(
            f"{path} is damaged ({error}); delete it and run the same predict command again: "
            "the proteins in the store are kept and it is written anew"
        ) from error
