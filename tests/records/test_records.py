"""A record file holds every chunk exactly, or it is refused with the command that makes it again."""

from __future__ import annotations

import dataclasses
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ponderttt.errors import CorruptFileError, PonderTTTError
from ponderttt.files.manifest import MANIFEST, write_manifest
from ponderttt.records.record import KIND, RECORDS, Record, read_records, schema, write_records

REBUILD = "snakemake it"
FIRST = Record(
    model="tiny",
    fast_weights="lora",
    method="update_1",
    protocol="score_first",
    seed=2,
    corpus="heldout",
    language="Python",
    stream_id="große-Pakete",
    chunk_index=0,
    n_tokens=511,
    n_bytes=1_800,
    loss=0.1 + 0.2,
    loss_frozen=1 / 3,
    action="UPDATE_1",
    steps=1,
    cost_nominal=3.0,
    flops=1.5e12,
    seconds=0.25,
)
SECOND = dataclasses.replace(
    FIRST, chunk_index=1, reconstruction_loss=0.5, gate_score=-1.0, budget_left=2.0, features=(0.5, 0.25)
)
FACTS = {"stage_digest": "a" * 64}


@pytest.fixture
def folder(tmp_path):
    """Where two records lie."""
    target = tmp_path / "seed=2"
    write_records(target, [FIRST, SECOND], FACTS)
    return target


def refusal(folder, **expected) -> str:
    with pytest.raises(CorruptFileError) as caught:
        read_records(folder, REBUILD, **expected)
    assert str(caught.value).endswith(REBUILD)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_records_read_back_exactly_as_they_were_written(folder):
    table, manifest = read_records(folder, REBUILD, expected_code="a" * 64)
    rows = [
        Record(**{**row, "features": None if row["features"] is None else tuple(row["features"])})
        for row in table.to_pylist()
    ]
    assert rows == [FIRST, SECOND]
    assert manifest["facts"] == FACTS
    assert manifest["files"][RECORDS]["rows"] == 2


def test_the_columns_are_the_fields_of_a_record_in_their_order():
    assert schema().names == [field.name for field in dataclasses.fields(Record)]
    optional = {"reconstruction_loss", "gate_score", "gate_rank", "gate_cuts", "budget_left"}
    optional |= {"features", "look_ahead"}
    assert {field.name for field in schema() if field.nullable} == optional


@pytest.mark.parametrize("field", ["loss", "loss_frozen"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_refused_and_earlier_records_stay(folder, field, value):
    broken = dataclasses.replace(SECOND, **{field: value})
    with pytest.raises(PonderTTTError, match="loss of chunk 1 of große-Pakete is") as caught:
        write_records(folder, [FIRST, broken], FACTS)
    assert "\n" not in str(caught.value)
    assert read_records(folder, REBUILD)[0].num_rows == 2


def test_no_record_at_all_is_refused(tmp_path):
    with pytest.raises(PonderTTTError, match="no chunk was scored"):
        write_records(tmp_path / "none", [], FACTS)
    assert not (tmp_path / "none").exists()


def test_a_full_disk_leaves_earlier_records_whole(folder, monkeypatch):
    write_table = pq.write_table

    def on_full_device(table, path, **options):
        path.unlink()
        path.symlink_to("/dev/full")
        write_table(table, path, **options)

    monkeypatch.setattr(pq, "write_table", on_full_device)
    with pytest.raises(PonderTTTError, match="the disk is full"):
        write_records(folder, [FIRST], FACTS)
    assert read_records(folder, REBUILD)[0].num_rows == 2


def test_records_whose_manifest_is_not_written_yet_are_unfinished(folder, monkeypatch):
    """Interrupted between the two files: the new records must not pass under the old manifest."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("ponderttt.records.record.write_manifest", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_records(folder, [FIRST], FACTS)
    assert "never finished" in refusal(folder)


def test_records_of_another_code_version_are_refused(folder):
    message = refusal(folder, expected_code="b" * 64)
    assert f"another version of the code ({'a' * 12}, now {'b' * 12})" in message


def test_records_that_do_not_say_their_code_version_are_refused(tmp_path):
    write_records(tmp_path, [FIRST], {})
    assert "another version of the code" in refusal(tmp_path, expected_code="b" * 64)


@pytest.mark.parametrize("position", [0, 200, -1])
def test_a_damaged_file_is_refused(folder, position):
    content = bytearray((folder / RECORDS).read_bytes())
    content[position] ^= 0xFF
    (folder / RECORDS).write_bytes(content)
    assert str(folder / RECORDS) in refusal(folder)


def test_a_file_that_is_no_parquet_is_refused_even_under_a_matching_manifest(folder):
    (folder / RECORDS).write_bytes(b"not a table")
    write_manifest(folder, KIND, {RECORDS: 2}, FACTS)
    assert "not a readable Parquet file" in refusal(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.drop_columns(["seconds"]),
        lambda table: table.append_column("more", pa.array([1, 2])),
        lambda table: table.set_column(0, "model", pa.array([1, 2])),
    ],
)
def test_other_columns_than_those_of_a_record_are_refused(folder, change):
    pq.write_table(change(pq.read_table(folder / RECORDS)), folder / RECORDS)
    write_manifest(folder, KIND, {RECORDS: 2}, FACTS)
    assert "columns are not those of a record" in refusal(folder)


def test_records_without_their_manifest_are_refused(folder):
    (folder / MANIFEST).unlink()
    assert "never finished" in refusal(folder)
