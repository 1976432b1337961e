"""Labels to and from CSV and Label Studio."""

import csv
import json

import numpy as np
import pytest
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st

from modal_ntk import LabelingSession
from modal_ntk.errors import InvalidInputError, StorageError

X, _ = zoo.blobs(n=12)
NAMES = ["=cmd()", "'quoted", "b.png", *(f"file {i}" for i in range(9))]
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x00"), max_size=12)
LABELS = st.one_of(
    st.lists(TEXTS, min_size=1, max_size=4),
    st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=4),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=4),
    st.lists(st.booleans(), min_size=1, max_size=4),
)


def filled(path, labels=("cat", "dog"), **options):
    session = LabelingSession(path, X, **options)
    for row, label in enumerate(labels):
        session.tell(row, label)
    session.skip(10)
    session.ask(2)
    return session


def answers(session):
    return [session.label_of(row) for row in range(12)], session.skipped.tolist()


def shown(row):
    return {"image": f"https://example.org/{row}.png"}


def typed(folder, classes, *cells, header="row,label"):
    """Labels that a session knows after an import of what somebody typed."""
    session = LabelingSession(folder / f"{len(list(folder.iterdir()))}.sqlite", X, classes=classes)
    lines = [header, *(f"{row},{cell}" for row, cell in enumerate(cells))]
    (folder / "typed.csv").write_text("\n".join(lines), encoding="utf-8")
    session.import_csv(folder / "typed.csv")
    return [session.label_of(row) for row in range(len(cells))]


class TestCSV:
    @pytest.mark.parametrize(
        ("classes", "cell", "wanted"),
        [
            ([0, 1, 2], "1.0", 1),
            ([0, 1], '"1"', 1),
            ([0.5, 1.5], "1.50", 1.5),
            ([True, False], "TRUE", True),
            ([True, False], "false", False),
            (["true", "false"], "true", "true"),
            (["1e5", "2e5"], "1e5", "1e5"),
            (["NaN", "ok"], "NaN", "NaN"),
            (["Infinity", "ok"], "Infinity", "Infinity"),
            (["1.50", "2"], "1.50", "1.50"),
            (["007", "7"], "007", "007"),
            (["-0", "0"], "-0", "-0"),
            (["null", "x"], "null", "null"),
            (["cat", "dog"], " cat ", "cat"),
            (["=A", "=B"], "=A", "=A"),
            (["=A", "=B"], "'=A", "=A"),
            (["'=A", "=A"], "'=A", "=A"),
            (["'=A", "=A"], "''=A", "'=A"),
            (["'a", "b"], "'a", "'a"),
            (["9007199254740993", "9007199254740992"], "9007199254740993", "9007199254740993"),
            ([9007199254740993, 9007199254740992], "9007199254740993", 9007199254740993),
        ],
    )
    def test_a_cell_means_the_class_it_can_be_read_as(self, tmp_path, classes, cell, wanted):
        """What somebody types, or a spreadsheet writes back, is the class itself, by value and kind."""
        (found,) = typed(tmp_path, classes, cell)
        assert (found, type(found)) == (wanted, type(wanted))

    @pytest.mark.parametrize("classes", [None, [0, 1]])
    def test_a_label_is_stored_as_what_it_equals(self, tmp_path, classes):
        """1.0, of Python or NumPy, is the class 1, and without classes the 1 that was told before."""
        session = LabelingSession(tmp_path / "a", X, classes=classes)
        for row, label in enumerate([1, 1.0, np.float32(1), np.int8(0), 0.0]):
            session.tell(row, label)
        assert [(v, type(v)) for v in session.labels.tolist()] == [(1, int)] * 3 + [(0, int)] * 2

    @pytest.mark.parametrize("separator", [";", "\t"])
    def test_other_separators(self, tmp_path, separator):
        """Semicolons and tabs, as spreadsheets write them, separate as commas do."""
        text = f"row{separator}label\n0{separator}a,b\n1{separator}c\n"
        (tmp_path / "other.csv").write_text(text)
        session = LabelingSession(tmp_path / "s", X, classes=["a,b", "c"])
        assert session.import_csv(tmp_path / "other.csv") == 2
        assert session.labels.tolist() == ["a,b", "c"]

    def test_lines_are_those_of_an_editor(self, tmp_path):
        """Cells of several lines and empty lines do not shift the line that an error names."""
        (tmp_path / "bad.csv").write_text('row,label\n0,"two\nlines"\n\n1,cat\n99,cat\n')
        session = LabelingSession(tmp_path / "a", X)
        with pytest.raises(InvalidInputError, match=r"a row from 0 to 11 in line 6 of .*, got '99'"):
            session.import_csv(tmp_path / "bad.csv")
        (tmp_path / "bad.csv").write_text('row,label\n0,"two\nlines"\n1,7\n')
        with pytest.raises(InvalidInputError, match=r"line 4 of .*: Expected a label that is text .* got 7"):
            session.import_csv(tmp_path / "bad.csv")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("row,label\n3,cat\n4,dog\n3,dog\n", r"one answer for row 3, got 'cat' in line 2 of .*'dog' in line 4 of"),
            (
                "row,status,label\n3,,cat\n3,skipped,\n",
                r"one answer for row 3, .* line 2 of .*skipped in line 3",
            ),
            ("row,label,label\n3,cat,dog\n", "one column label"),
            ("row,label\n3,cat,dog\n", "at most 2 cells in line 2"),
            ("row,name,label\n3,b.png,cat\n", "the name of row 3 in line 2 of .*, got 'b.png', which is row 2"),
            (f"row,label\n{'9' * 5000},cat\n", "a row from 0 to 11 in line 2"),
            (f"row,label\n3,{'x' * 1001}\n", "a label of at most 1000 characters"),
            (f"row,label\n3,{'x' * 200_000}\n", "field larger than field limit .*, in line 2"),
            ("", "an empty file"),
            ('row,label\n3,"cat\n', "a CSV file at .*unexpected end of data, in line 2"),
        ],
    )
    def test_nothing_is_guessed(self, tmp_path, text, message):
        """Two answers, two columns, surplus cells and rows that disagree are errors; nothing is told."""
        (tmp_path / "bad.csv").write_text(text)
        session = LabelingSession(tmp_path / "a", X, names=NAMES, classes=["cat", "dog"])
        with pytest.raises(InvalidInputError, match=message):
            session.import_csv(tmp_path / "bad.csv")
        assert session.events == []

    def test_said_twice_alike_is_said_once(self, tmp_path):
        """The same answer twice is no contradiction; rows may be written as pandas writes them."""
        (tmp_path / "twice.csv").write_text("row,label\n3.0,cat\n3,cat\n")
        session = LabelingSession(tmp_path / "a", X)
        assert session.import_csv(tmp_path / "twice.csv") == 1

    @pytest.mark.parametrize("label", ["a\0", "\ud800", "x" * 1001, 10**400, None, [1], np.datetime64("2020")])
    def test_labels_that_files_cannot_hold(self, tmp_path, label):
        """Are refused when they are told, and as classes."""
        with pytest.raises(InvalidInputError):
            LabelingSession(tmp_path / "a", X).tell(0, label)
        with pytest.raises(InvalidInputError):
            LabelingSession(tmp_path / "b", X, classes=[label, "b"])

    @pytest.mark.parametrize("place", ["", "none/labels.csv"])
    def test_where_nothing_can_be_written(self, tmp_path, place):
        """A folder, or a folder that is not there, is an error of ours, and leaves nothing behind."""
        session = filled(tmp_path / "a")
        before = sorted(tmp_path.rglob("*"))
        for export in (session.export_csv, lambda path: session.export_label_studio(path, shown)):
            with pytest.raises(StorageError, match=r"could not be written: .* What was there is kept\."):
                export(tmp_path / place)
        assert sorted(tmp_path.rglob("*")) == before

    @settings(max_examples=40, deadline=None)
    @given(LABELS)
    def test_labels_come_back_as_they_went(self, tmp_path_factory, labels):
        """Text, numbers and truth values return by value and kind, into a session that knew none."""
        folder = tmp_path_factory.mktemp("csv")
        session = filled(folder / "a", labels)
        session.export_csv(folder / "labels.csv")
        other = LabelingSession(folder / "b", X)
        assert other.import_csv(folder / "labels.csv") == len(labels) + 1
        assert answers(other) == answers(session)
        assert [type(other.label_of(row)) for row in range(len(labels))] == [type(label) for label in labels]

    def test_every_touched_row_is_written(self, tmp_path):
        """Labelled, skipped and pending rows have a line each; the others none."""
        session = filled(tmp_path / "a", names=NAMES)
        session.export_csv(tmp_path / "labels.csv")
        with (tmp_path / "labels.csv").open(newline="") as file:
            lines = list(csv.DictReader(file))
        assert [line["status"] for line in lines].count("pending") == 2
        assert lines[0] == {"row": "0", "name": "'=cmd()", "status": "labelled", "label": "cat"}
        assert {"row": "10", "name": "file 7", "status": "skipped", "label": ""} in lines

    def test_no_cell_begins_like_a_formula(self, tmp_path):
        """A spreadsheet has nothing to run, and the text comes back all the same."""
        nasty = ["=1+1", "+1", "-a", "@x", "\tx", "'=1"]
        filled(tmp_path / "a", nasty, names=NAMES).export_csv(tmp_path / "labels.csv")
        with (tmp_path / "labels.csv").open(newline="") as file:
            cells = [cell for line in csv.reader(file) for cell in line]
        assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t"))]
        other = LabelingSession(tmp_path / "b", X, names=NAMES)
        other.import_csv(tmp_path / "labels.csv")
        assert other.labels.tolist() == nasty

    def test_names_find_their_rows(self, tmp_path):
        """A file written elsewhere needs names and labels only; empty labels are no answer; 7 means the class 7."""
        (tmp_path / "by_hand.csv").write_text("name,label\nb.png,7\nfile 0,\nfile 1,8\n")
        session = LabelingSession(tmp_path / "a", X, names=NAMES, classes=["7", "8"])
        assert session.import_csv(tmp_path / "by_hand.csv") == 2
        assert session.labeled.tolist() == [2, 4]
        assert session.labels.tolist() == ["7", "8"]

    def test_twice_is_once(self, tmp_path):
        """What is known adds no event; what differs is a correction; a label is not taken back by a skip."""
        session = filled(tmp_path / "a")
        session.export_csv(tmp_path / "labels.csv")
        before = session.events
        assert session.import_csv(tmp_path / "labels.csv") == 0
        assert session.events == before
        (tmp_path / "other.csv").write_text("row,status,label\n0,labelled,dog\n1,skipped,\n3,skipped,\n")
        assert session.import_csv(tmp_path / "other.csv") == 2
        assert session.labels.tolist() == ["dog", "dog"]
        assert session.skipped.tolist() == [3, 10]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a,b\n1,2\n", "columns row or name, and label"),
            ("row,label\n0,cat\n12,cat\n", r"a row from 0 to 11 in line 3 of .*, got '12'"),
            ("row,label\n-1,cat\n", "got '-1'"),
            ("row,label\n1.5,cat\n", "got '1.5'"),
            ("name,label\nnobody,cat\n", "the name of a sample in line 2"),
            ("row,label\n0,cat\n1,5\n", "a label that is text like the others, got 5"),
            ("row,label\n0,cat\n1,NaN\n", "a label that is text, a number"),
        ],
    )
    def test_unusable_files_tell_nothing(self, tmp_path, text, message):
        """The line and what is wrong with it are named, and no earlier line has been told."""
        (tmp_path / "bad.csv").write_text(text)
        session = LabelingSession(tmp_path / "a", X, names=NAMES)
        with pytest.raises(InvalidInputError, match=message):
            session.import_csv(tmp_path / "bad.csv")
        assert session.events == []

    def test_files_that_are_not_there_or_not_text(self, tmp_path):
        """Are errors about the file."""
        session = LabelingSession(tmp_path / "a", X)
        (tmp_path / "bytes.csv").write_bytes(b"row,label\n0,\xff\xfe")
        for name in ("none.csv", "bytes.csv"):
            with pytest.raises(InvalidInputError, match="a CSV file at"):
                session.import_csv(tmp_path / name)


class TestLabelStudio:
    def test_tasks_are_what_label_studio_reads(self, tmp_path):
        """Data, a Choices result for a label, a cancelled annotation for a skip, nothing for an open question."""
        session = filled(tmp_path / "a")
        session.export_label_studio(tmp_path / "tasks.json", shown, from_name="class", to_name="img")
        tasks = {task["data"]["modal_ntk_row"]: task for task in json.loads((tmp_path / "tasks.json").read_text())}
        assert set(tasks) == {0, 1, 10, *session.pending.tolist()}
        assert tasks[0]["data"]["image"] == "https://example.org/0.png"
        choice = {"from_name": "class", "to_name": "img", "type": "choices", "value": {"choices": ["cat"]}}
        assert tasks[0]["annotations"] == [{"result": [choice]}]
        assert tasks[10]["annotations"] == [{"result": [], "was_cancelled": True}]
        assert "annotations" not in tasks[session.pending[0]]

    @pytest.mark.parametrize("labels", [["cat", "dog", "ünï"], [0, 1, 2], [0.5, 1.5, 2.0], [True, False, True]])
    def test_there_and_back(self, tmp_path, labels):
        """Text that stands for a class of another kind becomes that class."""
        session = filled(tmp_path / "a", labels, classes=list(dict.fromkeys(labels)))
        session.export_label_studio(tmp_path / "tasks.json", shown)
        other = LabelingSession(tmp_path / "b", X, classes=list(dict.fromkeys(labels)))
        assert other.import_label_studio(tmp_path / "tasks.json") == 4
        assert answers(other) == answers(session)
        assert other.import_label_studio(tmp_path / "tasks.json") == 0

    def test_its_exports_are_read(self, tmp_path):
        """JSON with several annotations and other regions, and JSON-MIN: the last annotation counts."""
        session = LabelingSession(tmp_path / "a", X)
        data = {"image": "x", "modal_ntk_pool": session.pool}

        def choice(name):
            return {"from_name": "label", "to_name": "item", "type": "choices", "value": {"choices": [name]}}

        region = {"from_name": "box", "type": "rectanglelabels", "value": {"rectanglelabels": ["cat"]}}
        tasks = [
            {"id": 7, "data": {**data, "modal_ntk_row": 3}, "annotations": [{"result": [choice("cat")]}]},
            {
                "data": {**data, "modal_ntk_row": 4},
                "annotations": [
                    {"result": [choice("cat")]},
                    {"result": [region, choice("dog")], "was_cancelled": False},
                ],
                "predictions": [{"result": [choice("cow")]}],
            },
            {"data": {**data, "modal_ntk_row": 5}, "annotations": [{"result": [], "was_cancelled": True}]},
            {"data": {**data, "modal_ntk_row": 6}, "annotations": []},
        ]
        (tmp_path / "export.json").write_text(json.dumps(tasks))
        assert session.import_label_studio(tmp_path / "export.json") == 3
        assert session.labeled.tolist() == [3, 4]
        assert session.labels.tolist() == ["cat", "dog"]
        assert session.skipped.tolist() == [5]
        small = [{**data, "id": 1, "modal_ntk_row": 8, "label": "cow"}, {**data, "id": 2, "modal_ntk_row": 9}]
        (tmp_path / "min.json").write_text(json.dumps(small))
        assert session.import_label_studio(tmp_path / "min.json") == 1
        assert session.label_of(8) == "cow"

    def test_rows_may_be_chosen(self, tmp_path):
        """Any rows, in the order given; what is no row is refused, and no file is left."""
        session = filled(tmp_path / "a")
        session.export_label_studio(tmp_path / "tasks.json", shown, rows=np.array([7, 1]))
        assert [t["data"]["modal_ntk_row"] for t in json.loads((tmp_path / "tasks.json").read_text())] == [7, 1]
        with pytest.raises(InvalidInputError, match="rows of at least 0 and below 12"):
            session.export_label_studio(tmp_path / "none.json", shown, rows=[12])
        assert not (tmp_path / "none.json").exists()

    @pytest.mark.parametrize(
        "text",
        ["{}", "[1]", "not json", "[" * 100_000, '[{"data": 3}]', '[{"data": {"modal_ntk_pool": "x"}}]', "[null]"],
    )
    def test_other_files_are_refused(self, tmp_path, text):
        """A file that is no export, or of other tasks, is an error about it, and tells nothing."""
        (tmp_path / "bad.json").write_text(text)
        session = LabelingSession(tmp_path / "a", X)
        with pytest.raises(InvalidInputError, match=r"export of Label Studio|tasks of this pool"):
            session.import_label_studio(tmp_path / "bad.json")
        assert session.events == []

    @pytest.mark.parametrize(
        "annotations", ['"x"', "[{}]", '[{"result": [{"type": "choices", "from_name": "label"}]}]']
    )
    def test_damaged_annotations_are_refused(self, tmp_path, annotations):
        """What lacks its parts is an error about the file."""
        session = LabelingSession(tmp_path / "a", X)
        data = json.dumps({"modal_ntk_row": 1, "modal_ntk_pool": session.pool})
        (tmp_path / "bad.json").write_text(f'[{{"data": {data}, "annotations": {annotations}}}]')
        with pytest.raises(InvalidInputError, match="export of Label Studio"):
            session.import_label_studio(tmp_path / "bad.json")

    @staticmethod
    def told(session, folder, *annotations, tag="label", least=False):
        """Import an export in which each of the first rows has these annotations."""
        tasks = []
        for row, choices in enumerate(annotations):
            data = {"modal_ntk_row": row, "modal_ntk_pool": session.pool}
            result = [{"type": "choices", "from_name": tag, "value": {"choices": choices}}] if choices else []
            full = {"id": 70 + row, "data": data, "annotations": [{"result": result}]}
            tasks.append({"id": 70 + row, **data, tag: choices[0]} if least else full)
        (folder / "told.json").write_text(json.dumps(tasks))
        return session.import_label_studio(folder / "told.json")

    @pytest.mark.parametrize("least", [False, True])
    def test_a_tag_of_another_name_is_told(self, tmp_path, least):
        """Answers under another tag are no silence: tag, tasks and the remedy are named, and the remedy works."""
        session = LabelingSession(tmp_path / "a", X)
        with pytest.raises(InvalidInputError, match=r"the tag .label.*mood.*task 1 \(id 70\) .* and 1 more") as e:
            self.told(session, tmp_path, ["good"], ["bad"], tag="mood", least=least)
        assert "from_name=" in str(e.value)
        assert session.events == []
        assert session.import_label_studio(tmp_path / "told.json", from_name="mood") == 2
        assert session.labels.tolist() == ["good", "bad"]

    def test_two_choices_on_a_task_are_told(self, tmp_path):
        """The task is named with its number, its id and the choices."""
        session = LabelingSession(tmp_path / "a", X)
        with pytest.raises(InvalidInputError, match=r"one choice .* in task 2 \(id 71\) .*got .a., .b."):
            self.told(session, tmp_path, ["a"], ["a", "b"])
        assert session.events == []

    def test_numbers_come_back_from_text(self, tmp_path):
        """Label Studio shows classes as text; the class that reads so is stored."""
        session = LabelingSession(tmp_path / "a", X, classes=[0, 1])
        assert self.told(session, tmp_path, ["1"], ["0"], []) == 2
        assert [type(v) for v in session.labels.tolist()] == [int, int]
        with pytest.raises(InvalidInputError, match=r"task 1 \(id 70\) of .*: Expected .* one of 0, 1, got .2."):
            self.told(session, tmp_path, ["2"])

    @pytest.mark.parametrize("data", [5, {"a": np.int64(3)}, {"a": "\ud800"}])
    def test_what_a_task_shows_must_fit_into_json(self, tmp_path, data):
        """The row is named whose data cannot be written, and no file is made."""
        with pytest.raises(InvalidInputError, match=r"data\(0\) to be a dict"):
            filled(tmp_path / "a").export_label_studio(tmp_path / "tasks.json", lambda row: data)
        assert not (tmp_path / "tasks.json").exists()

    def test_tasks_of_another_pool_are_refused(self, tmp_path):
        """Rows of another pool are other samples."""
        filled(tmp_path / "a").export_label_studio(tmp_path / "tasks.json", shown)
        with pytest.raises(InvalidInputError, match="tasks of this pool"):
            LabelingSession(tmp_path / "b", X + 1).import_label_studio(tmp_path / "tasks.json")
