"""Rows in Parquet, Feather and Arrow files: those of the array that was written, a row group at a time."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modal_ntk.errors import InvalidInputError, MissingExtraError, UnknownNameError
from modal_ntk.nets import ArrowRows

pa = pytest.importorskip("pyarrow")
dataset, feather, parquet = (pytest.importorskip(f"pyarrow.{name}") for name in ("dataset", "feather", "parquet"))

X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)


def columns(values):
    return pa.table({f"x{i}": column for i, column in enumerate(values.T)})


def lists(values):
    return pa.table({"x": list(values), "kind": ["a"] * len(values)})


def fixed(values):
    return pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])})


@pytest.fixture
def file(tmp_path):
    """Forty samples in groups of seven."""
    parquet.write_table(columns(X), tmp_path / "pool.parquet", row_group_size=7)
    return tmp_path / "pool.parquet"


@given(rows=st.one_of(st.slices(40), st.integers(-40, 39), st.lists(st.integers(0, 39), unique=True)))
def test_rows_are_the_arrays(tmp_path_factory, rows):
    """A slice, a number and an array of numbers give what they give of the array, whatever groups they cross."""
    path = tmp_path_factory.mktemp("pool") / "pool.parquet"
    parquet.write_table(columns(X), path, row_group_size=7)
    samples = ArrowRows(path)
    np.testing.assert_array_equal(samples[rows], X[np.array(rows, int) if isinstance(rows, list) else rows])


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i8", "u1", "?"])
@pytest.mark.parametrize("table", [columns, lists, fixed])
def test_types_and_layouts(tmp_path, table, dtype):
    """Columns of numbers, lists and lists of a fixed length, in every type, come back as they were."""
    values = (X * 3 + 20).astype(dtype)
    parquet.write_table(table(values), tmp_path / "pool.parquet", row_group_size=16)
    names = [name for name in table(values).column_names if name != "kind"]
    found = np.asarray(ArrowRows(tmp_path / "pool.parquet", names))
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)


def test_files_folders_and_data_sets(tmp_path):
    """Several files, a folder in the order of names, Feather, and what pyarrow has opened are one pool."""
    for number, rows in enumerate((slice(0, 15), slice(15, 40))):
        (tmp_path / "feather").mkdir(exist_ok=True)
        (tmp_path / "parquet").mkdir(exist_ok=True)
        feather.write_feather(columns(X[rows]), str(tmp_path / f"feather/{number}.feather"))
        parquet.write_table(columns(X[rows]), tmp_path / f"parquet/{number}.parquet")
    opened = dataset.dataset(str(tmp_path / "parquet"))
    files = sorted((tmp_path / "feather").iterdir())
    for source in (tmp_path / "feather", str(tmp_path / "parquet"), files, [str(path) for path in files], opened):
        np.testing.assert_array_equal(ArrowRows(source)[10:30], X[10:30])
        assert len(ArrowRows(source)) == 40


def test_a_group_is_decoded_once(file, monkeypatch):
    """Row after row reads each of six groups once; a copy for a worker holds none of them."""
    samples, read = ArrowRows(file), []
    plain = ArrowRows._group

    def group(self, number):
        read.append(self._held[0] != number)
        return plain(self, number)

    monkeypatch.setattr(ArrowRows, "_group", group)
    np.testing.assert_array_equal(np.stack(list(samples)), X)
    assert sum(read) == 6
    assert pickle.loads(pickle.dumps(samples))._held == (-1, None)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(samples))[3:9], X[3:9])


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (pa.table({"x": ["a", "b"]}), "columns that hold numbers"),
        (pa.table({"x": [1.0, None]}), "a number in every row of column 'x', got 1 missing"),
        (pa.table({"x": [[1.0], None]}), "a number in every row of column 'x', got 1 missing"),
        (pa.table({"x": [[1.0, None], [1.0, 2.0]]}), "a number in every row of column 'x', got 1 missing"),
        (pa.table({"x": [[1.0], [1.0, 2.0, 3.0]]}), "lists of one length in column 'x', got 1 to 3"),
        (pa.table({"x": pa.array([], pa.float32())}), "source to hold samples"),
    ],
)
def test_what_holds_no_samples_is_refused(tmp_path, table, words):
    """Text, gaps, ragged lists and empty files, before they are taken for numbers."""
    parquet.write_table(table, tmp_path / "pool.parquet")
    with pytest.raises(InvalidInputError, match=words):
        np.asarray(ArrowRows(tmp_path / "pool.parquet"))


def test_empty_files_among_others(tmp_path):
    """A file without rows adds none, and no rows of the pool are an array of none."""
    for number, rows in enumerate((slice(0), slice(15), slice(15, 15), slice(15, 40))):
        parquet.write_table(columns(X[rows]), tmp_path / f"{number}.parquet")
    samples = ArrowRows(tmp_path)
    np.testing.assert_array_equal(samples[:], X)
    assert samples[3:3].shape == (0, 3)


@pytest.mark.parametrize("names", ["x0", [], ()])
def test_columns_are_a_list_of_names(file, names):
    """One name alone is not read letter by letter, and no columns make no sample; the remedy works."""
    with pytest.raises(InvalidInputError, match=r"Put it in a list: ArrowRows\(source, columns="):
        ArrowRows(file, names)
    np.testing.assert_array_equal(ArrowRows(file, ["x0"])[:], X[:, :1])


def test_groups_of_several_lengths_are_refused(tmp_path):
    """Lists of one length in each group, and of another in the next."""
    for number, width in enumerate((1, 2)):
        parquet.write_table(pa.table({"x": [[0.0] * width] * 3}), tmp_path / f"{number}.parquet")
    with pytest.raises(InvalidInputError, match="1 numbers in every sample, got 2"):
        ArrowRows(tmp_path)[:]


def test_sources_that_are_none(file, tmp_path, monkeypatch):
    """What is not there, no file of pyarrow's, or no column; and the extra that is missing is named."""
    (tmp_path / "text.parquet").write_text("no table")
    for source in (tmp_path / "nothing", tmp_path / "text.parquet"):
        with pytest.raises(InvalidInputError, match="files that pyarrow reads"):
            ArrowRows(source)
    with pytest.raises(InvalidInputError, match="source to name files, got int"):
        ArrowRows(3)
    with pytest.raises(UnknownNameError, match="x0"):
        ArrowRows(file, ["x"])
    with pytest.raises(IndexError):
        ArrowRows(file)[40]
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match="arrow"):
        ArrowRows(file)
