import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from jaynes_callbacks.instruments.record import SCHEMA, Record, Records
from jaynes_callbacks.records.schema import ColumnType

#: The public columns, as code that reads datasets knows them: none is renamed or taken away.  A new
#: one is added here where it stands in the record.
COLUMNS = (
    "run step epoch kind name variable shape n zeros nonfinite max rms log_mean log_std "
    "log_std_tilted log_skew log_kurtosis mu sigma gap gap_best_rival gap_se gap_change_se "
    "gap_tilted gap_censored q gap_uniform gap_exponential best_family best_family_2 "
    "vuong_z_uniform tv ks w1 n_star alpha beta utility_std potential entropy paper_r2 paper_mu "
    "paper_sigma paper_amplitude paper_r2_gaussian paper_bins moved verdict status codes counts "
    "paper_counts "
).split()


@pytest.fixture
def record() -> Record:
    return Record(
        name="fc.weight",
        n=3,
        rival_gaps={"uniform": 0.4, "exponential": 0.1},
        vuong_z={"uniform": 2.0},
        codes=np.array([5, 9]),
        counts=np.array([1, 2]),
    )


def test_columns_are_the_public_ones(record: Record) -> None:
    assert list(record.to_dict()) == COLUMNS


def test_every_column_states_its_unit_and_meaning() -> None:
    for column in SCHEMA.columns:
        assert column.meaning, column.name
        assert column.unit or column.type is not ColumnType.REAL, column.name


def test_families_become_columns(record: Record) -> None:
    row = record.to_dict(counts=False)
    assert (row["gap_uniform"], row["vuong_z_uniform"]) == (0.4, 2.0)
    assert "codes" not in row


def test_records_are_values(record: Record) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.n = 4  # type: ignore[misc]
    assert record.replace(n=4).n == 4
    assert record.n == 3


def test_records_behave_as_a_sequence(record: Record) -> None:
    other = record.replace(kind="iota", step=1)
    records = Records([record]) + Records([other])
    assert len(records) == 2
    assert records[1] == other
    assert isinstance(records[:1], Records)
    assert list(records.select(kind="iota")) == [other]
    assert list(records.select(name="fc.weight")) == [record, other]
    assert records.by_stream() == {record.key: record, other.key: other}


def test_a_stream_s_last_row_wins(record: Record) -> None:
    later = record.replace(step=2)
    assert Records([record, later]).by_stream() == {record.key: later}


def test_without_counts_keeps_the_figures(record: Record) -> None:
    (light,) = Records([record]).without_counts()
    assert light.n == 3
    assert light.codes.size == light.counts.size == light.paper_counts.size == 0


def test_pandas(record: Record) -> None:
    frame = Records([record, record.replace(step=1)]).to_pandas()
    assert list(frame.columns) == [c for c in COLUMNS if not c.endswith("counts") and c != "codes"]
    assert frame.step.tolist() == [0, 1]
    assert math.isnan(frame.gap.iloc[0])
    assert isinstance(frame.index, pd.RangeIndex)


def test_an_empty_table_still_has_its_columns() -> None:
    frame = Records().to_pandas()
    assert frame.empty
    assert {"step", "kind", "name", "gap"} <= set(frame.columns)
