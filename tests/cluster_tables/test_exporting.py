"""Tables written to files come back as they were."""

import sqlite3
import sys

import pandas as pd
import pytest

import agentflow as af
from agentflow.cluster import tables
from agentflow.cluster.exporting import FORMATS, NEEDS, export, flat, read, schemas_of
from agentflow.notebook.graph import warm
from agentflow.rows import Rows

warm().join()  # before the first test begins: compiling outlives a single one


def fail():
    raise ValueError("=cmd|' /C calc'!A0 \ud800 <b>bold</b> \x01")


@pytest.fixture(scope="module")
def sim():
    sim = af.Simulation(masters=3, workers=2, seed=11)
    flow = af.Workflow("=1+1")
    values = flow.map(abs, [-1, 2, -3])
    flow.add(sum, values, id="=SUM(A1)")
    flow.add(fail, id='bad, "quoted"\nname', retries=1)
    sim.run_until(lambda s: s.leader)
    run = sim.submit(flow)
    run.wait(600)
    sim.frames_run = run
    return sim


def expected(frames, form):
    """The tables as a file can hold them: in csv and xlsx an empty text is a missing one."""
    found = {}
    for name, schema in schemas_of(frames).items():
        frame = flat(getattr(frames, name)(), schema)
        if form in ("csv", "xlsx"):
            for column in frame.columns:
                if frame[column].dtype == "string":
                    frame[column] = frame[column].where(frame[column] != "", pd.NA)
        if form == "xlsx":
            for column in frame.columns:
                if frame[column].dtype == "string":
                    frame[column] = frame[column].str.replace("\x01", "�")
        found[name] = frame
    return found


@pytest.mark.parametrize("form", FORMATS)
def test_every_table_comes_back_with_its_values_and_dtypes(sim, tmp_path, form):
    sim.frames.export(tmp_path / "out", format=form)
    back = read(tmp_path / "out", form)
    wanted = expected(sim.frames, form)
    assert set(back) == set(wanted)
    for name, frame in wanted.items():
        pd.testing.assert_frame_equal(back[name], frame, check_index_type=False, check_column_type=False)
    assert len(back["tasks"]) == 5
    assert len(back["events"]) > 100


@pytest.mark.parametrize("form", FORMATS)
def test_a_runs_tables_come_back_too(sim, tmp_path, form):
    written = sim.frames_run.frames.export(tmp_path, format=form)
    assert all(path.exists() for path in written)
    back = read(tmp_path, form)
    assert {"tasks", "attempts", "results", "errors"} <= set(back)
    assert list(back["results"]["value"])[:3] == ["1", "2", "3"]


@pytest.mark.parametrize("form", FORMATS)
def test_empty_tables_keep_their_columns_and_dtypes(tmp_path, form):
    quiet = af.Simulation(masters=1, seed=1)
    quiet.frames.export(tmp_path, format=form)
    back = read(tmp_path, form)
    empty = Rows(tables.TASKS, []).to_pandas()
    assert list(back["tasks"].columns) == list(empty.columns)
    assert list(back["tasks"].dtypes) == list(empty.dtypes)
    assert back["tasks"].empty


def test_a_name_that_begins_with_an_equals_sign_is_no_formula(sim, tmp_path):
    import openpyxl

    (book,) = sim.frames.export(tmp_path, format="xlsx")
    sheet = openpyxl.load_workbook(book)["tasks"]
    kinds = {cell.value: cell.data_type for row in sheet.iter_rows() for cell in row if cell.value}
    assert kinds["=SUM(A1)"] == "s"
    assert "f" not in kinds.values()


def test_sqlite_answers_queries(sim, tmp_path):
    (path,) = sim.frames.export(tmp_path, format="sqlite")
    base = sqlite3.connect(path)
    try:
        rows = base.execute("select state, count(*) from tasks group by state order by state").fetchall()
    finally:
        base.close()
    assert rows == [("COMPLETED", 4), ("FAILED", 1)]


def test_an_unknown_format_is_refused_and_nothing_is_written(sim, tmp_path):
    with pytest.raises(af.InvalidConfig, match="'yaml' is none of") as caught:
        sim.frames.export(tmp_path / "out", format="yaml")
    assert caught.value.field == "format"
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_the_directory_is_refused(sim, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(af.InvalidConfig, match="is a file"):
        sim.frames.export(tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize(("form", "package"), NEEDS.items())
def test_a_missing_package_is_named_with_its_pip_line(sim, tmp_path, monkeypatch, form, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(af.MissingExtra, match=rf"{package}.*agentflow\[export\]"):
        sim.frames.export(tmp_path / "out", format=form)
    assert not (tmp_path / "out").exists()


def test_a_table_too_long_for_a_sheet_is_refused_before_anything_is_written(sim, tmp_path, monkeypatch):

    monkeypatch.setattr("agentflow.cluster.exporting.SHEET_ROWS", 50)
    with pytest.raises(af.InvalidConfig, match="a sheet holds 50 rows"):
        sim.frames.export(tmp_path / "out", format="xlsx")
    assert not (tmp_path / "out").exists()


def test_exporting_again_replaces_and_leaves_no_other_file(sim, tmp_path):
    first = sim.frames.export(tmp_path)
    again = sim.frames.export(tmp_path)
    assert first == again
    assert sorted(tmp_path.iterdir()) == sorted(first)


def test_a_value_that_cannot_show_itself_is_exported_all_the_same(tmp_path):
    class Sulky:
        def __repr__(self):
            raise RuntimeError("no")

    frame = Rows(tables.RESULTS, [("a", Sulky())]).to_pandas()
    assert flat(frame, tables.RESULTS)["value"][0] == "<Sulky: no repr, RuntimeError>"


def test_the_summary_counts_what_the_tables_hold(sim):
    summary = sim.frames.summary()
    assert summary.loc["tasks", "rows"] == 5
    assert summary.loc["tasks", "columns"] == len(tables.TASKS.columns)
    assert summary.loc["nodes", "meaning"] == "a row a master"
    assert list(sim.frames_run.frames.summary().index) == ["attempts", "errors", "results", "tasks"]


def test_exporting_is_the_method(sim, tmp_path):
    assert export(sim.frames, tmp_path, "csv") == sim.frames.export(tmp_path)


def test_every_table_has_documented_columns_with_the_dtypes_it_has(sim):
    for frames in (sim.frames, sim.frames_run.frames):
        for name in schemas_of(frames):
            docs, frame = sim.frames.docs(name), getattr(frames, name)()
            assert list(docs.column) == list(frame.columns)
            assert list(docs.dtype) == [str(dtype) for dtype in frame.dtypes]
            assert docs.meaning.str.len().min() > 2


def test_a_table_that_does_not_exist_is_refused_with_those_that_do(sim):
    with pytest.raises(af.InvalidConfig, match=r"no table 'task'.*tasks.*elections"):
        sim.frames.docs("task")
    with pytest.raises(af.InvalidConfig, match="no table 'task'"):
        sim.frames.styled("task")


def test_every_table_can_be_had_in_colour_and_says_the_same(sim):
    for frames in (sim.frames, sim.frames_run.frames, af.Simulation(masters=1).frames):
        for name in schemas_of(frames):
            html = frames.styled(name).to_html()
            assert "<b>bold" not in html
            assert name in html
    tasks = sim.frames.styled("tasks").to_html()
    for word in ("COMPLETED", "FAILED", "background-color: #fbe0db"):
        assert word in tasks


def test_a_long_table_in_colour_is_cut_and_says_so(sim, monkeypatch):
    monkeypatch.setattr("agentflow.notebook.styling.ROWS_AT_MOST", 10)
    assert "the first 10 rows of" in sim.frames.styled("events").to_html()
