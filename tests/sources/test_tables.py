"""Tables: their rows as documents, and which columns are numbers."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from server.errors import BadSettings
from server.sources import tables
from server.sources.readers import find_source, read_documents
from server.store.records import Document, text_id
from tests.support.sources import Write, noted, read, refusal, sentences, wrong_line


def test_each_row_of_a_table_is_a_document(write: Write) -> None:
    content = (
        '\ufeffid,text , title,year,\r\n1,"甲，""乙""\r\n丙, 丁",标题,2020,0\r\n\r\nb,NUL\0, ,,1'
    )
    expected = [
        Document("1", '甲，"乙"\n丙, 丁', "标题", {"year": 2020}),
        Document("b", "NUL\0", " ", {}),
    ]
    assert read(write("a.csv", content)) == expected
    assert read(write("a.tsv", content.replace(",", "\t"))) == [
        Document("1", '甲，"乙"\n丙\t 丁', "标题", {"year": 2020}),
        expected[1],
    ]


def test_a_table_needs_no_more_than_texts(write: Write) -> None:
    assert read(write("a.csv", "text\n甲\n \n乙\n")) == [
        Document(text_id("甲"), "甲"),
        Document(text_id("乙"), "乙"),
    ]


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        ("", 1, 'the first row has no column "text", only: '),
        ("\n\nTitle,body\n1,2", 3, 'the first row has no column "text", only: Title, body'),
        (
            "id;text\n1;甲",
            1,
            "the first row is one column, id;text; columns are separated by commas",
        ),
        ("sep=;\nid;text", 1, "the first row is one column, sep=;; columns are separated by"),
        ("text,a,a\n", 1, 'two columns are named "a"'),
        ("text,a\n甲\n", 2, "1 fields, but the first row has 2"),
        ("text,a\n甲,乙\n甲,乙,丙", 3, "3 fields, but the first row has 2"),
        ('text,a\n"甲\n\n",1\n,2', 5, '"text" is empty'),
        ("id,text\n,甲", 2, '"id" has 0 characters; 1 to 512 are allowed'),
        ('text\n甲\n"乙\n丙\n丁\n', 3, "wrong quotes: unexpected end of data"),
        ('text\n"甲"乙\n', 2, "wrong quotes: ',' expected after '\"'"),
    ],
)
def test_a_row_that_is_no_document_is_named(
    write: Write, content: str, line: int, reason: str
) -> None:
    assert wrong_line(write("a.csv", content), line).startswith(reason)


def test_rows_without_any_value_are_left_out_and_counted(write: Write) -> None:
    content = "\n".join(
        ["id,text,year", *(f"{n},第{n}行,{n}" for n in range(20)), ",,", " ,\t, ", ","]
    )
    name = write("a.csv", content)
    assert [document.id for document in read(name)] == [str(n) for n in range(20)]
    assert f"{name}: blank rows left out: 3" in sentences(noted(name))
    assert len(read(write("a.tsv", content.replace(",", "\t")))) == 20


def test_values_of_columns_without_a_name_are_counted(write: Write) -> None:
    name = write("a.csv", ",id,text,,\n0,1,甲,x,\n,2,乙, ,\n2,3,丙,,y\n")
    assert read(name)[0] == Document("1", "甲")
    (said,) = sentences(noted(name))
    assert said.startswith(f"{name}: columns without a name were left out, with values in 2 rows")
    assert sentences(noted(write("b.csv", "id,text,\n1,甲,\n"))) == []


@pytest.mark.parametrize("names", ["ID,text", "Id,text", "_id,text", "Title,text", "ＩＤ,text"])
def test_a_name_that_is_almost_a_documents_own_is_reported(write: Write, names: str) -> None:
    name = write("a.csv", f"{names}\nx,甲\n")
    (said,) = sentences(noted(name))
    assert said.startswith(f"{name}: stored as metadata: {names.split(',')[0]}; a document's own")
    assert sentences(noted(write("b.csv", "id,text,identity\n1,甲,x\n"))) == []


def test_the_line_by_which_excel_states_its_delimiter_is_skipped(write: Write) -> None:
    assert read(write("a.csv", "sep=,\r\nid,text,n\r\n1,甲,5\r\n")) == [
        Document("1", "甲", None, {"n": 5})
    ]


def test_a_quote_that_is_never_closed_does_not_take_in_a_large_file(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MOST_CHARACTERS", 1_000)
    name = write("a.csv", 'id,text\n1,"甲\n' + "2,乙\n" * 1_000)
    assert wrong_line(name, 2).startswith("wrong quotes: field larger than field limit (1000)")


# --- numbers ------------------------------------------------------------------------------------------


def column(write: Write, *values: str, numbers: tuple[str, ...] | None = None) -> list[Any]:
    """Return what a column with these values becomes; None where nothing is stored."""
    rows = [f"甲,{json.dumps(value) if ',' in value else value}" for value in values]
    name = write("a.csv", "\n".join(["text,n", *rows]))
    found = [document.metadata.get("n") for document in read(name, numbers=numbers)]
    assert all(type(value) in (str, int, float, type(None)) for value in found)
    return found


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["2020", "-7", "0"], [2020, -7, 0]),
        (["2020", "", " 2024 "], [2020, None, 2024]),
        (["1", "2.5", "-0.25"], [1, 2.5, -0.25]),
        (["12.50", "9.00"], [12.5, 9.0]),
        (["1753920000"], [1753920000]),
        (["114.057868"], [114.057868]),
    ],
)
def test_a_column_of_plain_numbers_is_stored_as_numbers(
    write: Write, values: list[str], expected: list[object]
) -> None:
    found = column(write, *values)
    assert found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]


@pytest.mark.parametrize(
    "values",
    [
        ["2020", "unknown"],
        ["unknown", "2020"],
        ["007", "8"],
        ["8", "007"],
        ["13800138000"],
        ["1.9", "1.10"],
        ["12", "12.50"],
        ["+5"],
        ["-0"],
        ["-0.0"],
        ["1e5"],
        ["1,234"],
        ["2024-01-05"],
        ["nan"],
        ["inf"],
        ["0x10"],
        ["1_000"],
        ["２０２０"],
        ["²"],
        ["1."],
        [".5"],
        ["1.2345678901234567"],
        ["", ""],
    ],
)
def test_a_column_that_would_lose_something_stays_texts(write: Write, values: list[str]) -> None:
    assert column(write, *values) == values


def test_the_columns_that_are_numbers_are_reported(write: Write) -> None:
    name = write("a.csv", "text,year,code,price\n甲,2020,007,1.5\n乙,2021,008,2\n")
    (said,) = sentences(noted(name))
    assert said == (
        f"{name}: stored as numbers: year, price; to keep them as texts, give --numbers none"
    )
    assert sentences(noted(name, numbers=())) == []


def test_the_type_of_a_column_depends_on_no_order(write: Write) -> None:
    rows = [*(str(n) for n in range(300)), "unknown"]
    assert column(write, *rows) == rows
    assert column(write, *reversed(rows)) == rows[::-1]


def test_numbers_are_never_ids_titles_and_texts(write: Write) -> None:
    name = write("a.csv", "id,title,text\n1,2,3\n")
    assert read(name) == [Document("1", "3", "2")]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["007", "+5", " 13800138000 "], [7, 5, 13800138000]),
        (["1e-3", "1.10", ""], [0.001, 1.1, None]),
        (["12345678901234567890"], [12345678901234567890.0]),
    ],
)
def test_columns_that_are_named_are_numbers(
    write: Write, values: list[str], expected: list[object]
) -> None:
    assert column(write, *values, numbers=("n",)) == expected


@pytest.mark.parametrize("value", ["unknown", "nan", "1e999", "1_000", "２"])
def test_a_value_of_a_named_column_that_is_no_number_is_named(write: Write, value: str) -> None:
    name = write("a.csv", f"text,n\n甲,1\n乙,{value}\n")
    why = wrong_line(name, 3, numbers=("n",))
    assert why == f'"n" is "{value}", which is not a number'


def test_a_named_column_must_be_there_and_be_metadata(write: Write) -> None:
    name = write("a.csv", "text,year\n甲,1\n")
    assert '"yaer", and the first row has no such column' in wrong_line(name, 1, numbers=("yaer",))
    assert '"text", which is always a text' in wrong_line(name, 1, numbers=("text",))
    error = refusal(write("a.txt", "甲"), numbers=("year",))
    assert "--numbers is for the columns of csv and tsv" in error.english


def test_columns_of_a_pipe_stay_texts_unless_named(stdin: Callable[[bytes], None]) -> None:
    content = "text,year\n甲,2020\n".encode()
    stdin(content)
    assert read("-", format="csv")[0].metadata == {"year": "2020"}
    stdin(content)
    (said,) = sentences(noted("-", format="csv"))
    assert said.startswith("<stdin> can be read only once, so all columns are stored as texts")
    stdin(content)
    assert read("-", format="csv", numbers=("year",))[0].metadata == {"year": 2020}


def test_rows_before_a_wrong_one_are_read_with_their_types(write: Write) -> None:
    for wrong in ("乙", '"乙"x,1'):
        rows = []
        with pytest.raises(BadSettings):
            for document, _ in read_documents(
                find_source(write("a.csv", f"text,n\n甲,1\n{wrong}\n"))
            ):
                rows.append(document.metadata)
        assert rows == [{"n": 1}]
