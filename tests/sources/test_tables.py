"""Tables: their rows as documents, and the types of their columns."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from server.errors import BadSettings
from server.sources import tables
from server.sources.readers import find_source, read_documents
from server.sources.values import parse_types
from server.store.records import Document, text_id
from tests.support.sources import Write, noted, problems, read, refusal, sentences, wrong_line


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
        ("", 1, "no column is named text, or as texts usually are, only: none; name the one"),
        (
            "\n\nTitle,answer\n1,2",
            3,
            "no column is named text, or as texts usually are, only: Title, a",
        ),
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


@pytest.mark.parametrize(
    ("names", "found", "said"),
    [
        ("ID,text", Document("x", "甲"), "id from ID"),
        ("_id,text", Document("x", "甲"), "id from _id"),
        ("ＩＤ,text", Document("x", "甲"), "id from ＩＤ"),
        ("Title,text", Document(text_id("甲"), "甲", "x"), "title from Title"),
        ("编号,正文", Document("x", "甲"), "text from 正文, id from 编号"),
        ("标题,内容", Document(text_id("甲"), "甲", "x"), "text from 内容, title from 标题"),
        ("x,Content", Document(text_id("甲"), "甲", None, {"x": "x"}), "text from Content"),
    ],
)
def test_columns_are_found_by_their_usual_names(
    write: Write, names: str, found: Document, said: str
) -> None:
    name = write("a.csv", f"{names}\nx,甲\n")
    assert read(name) == [found]
    (note,) = sentences(noted(name))
    assert note.startswith(f"read as {said}, by their names: {name}; to choose others")
    assert sentences(noted(write("b.csv", "id,text,identity\n1,甲,x\n"))) == []


@pytest.mark.parametrize(
    ("names", "row", "found"),
    [
        ("问题,答案,部门", "如何请假,线上申请,人事", ("线上申请", "如何请假", {"部门": "人事"})),
        ("答,问", "线上申请,如何请假", ("线上申请", "如何请假", {})),
        ("Question,Answer", "why,so", ("so", "why", {})),
        ("標題,問題,回答", "假,如何,線上", ("線上", "如何", {"標題": "假"})),
        ("问题,答案,正文", "甲,乙,丙", ("丙", None, {"问题": "甲", "答案": "乙"})),
    ],
)
def test_question_and_answer_are_title_and_text(
    write: Write, names: str, row: str, found: tuple[str, str | None, dict[str, Any]]
) -> None:
    text, title, metadata = found
    expected = [Document(text_id(text), text, title, metadata)]
    assert read(write("a.csv", f"{names}\n{row}\n")) == expected
    line = dict(zip(names.split(","), row.split(","), strict=True))
    assert read(write("a.jsonl", json.dumps(line))) == expected


def test_question_and_answer_are_guessed_with_care(write: Write) -> None:
    name = write("a.csv", "问题,答案\n甲,乙\n")
    (note,) = sentences(noted(name))
    assert note.startswith("read as text from 答案, title from 问题, by their names")
    assert read(name, columns={"title": "none"}) == [
        Document(text_id("乙"), "乙", None, {"问题": "甲"})
    ]
    assert read(name, columns={"text": "问题"}) == [
        Document(text_id("甲"), "甲", None, {"答案": "乙"})
    ]
    assert wrong_line(write("b.csv", "问题,答案,回答\n甲,乙,丙\n"), 1) == (
        "several columns could be the text: 答案, 回答; name one with --text-column"
    )
    assert "several columns could be the title" in wrong_line(
        write("c.csv", "问,问题,答\n甲,乙,丙\n"), 1
    )


def test_what_keeps_numbers_as_texts_in_excel_is_no_part_of_them(write: Write) -> None:
    rows = [
        "编号,标题,内容,手机,年份",
        "001\t,甲, 乙 ,13800138000\t,2024\t",
        '"=""002""",,丙,"=""7""",',
    ]
    assert read(write("a.csv", "\n".join(rows))) == [
        Document("001", " 乙 ", "甲", {"手机": "13800138000", "年份": 2024}),
        Document("002", "丙", None, {"手机": "7"}),
    ]
    name = write("c.csv", "编号,内容\n1,x\n1\t,y\n")
    assert [document.id for document in read(name)] == [text_id("x"), text_id("y")]


def test_a_title_that_is_named_comes_before_the_question(write: Write) -> None:
    name = write("a.csv", "标题,问题,答案\n假,如何,线上\n")
    expected = [Document(text_id("线上"), "线上", "假", {"问题": "如何"})]
    assert read(name, columns={"title": "标题"}) == expected


def test_columns_are_named_by_flags(write: Write) -> None:
    name = write("a.csv", "问题,答案,编号,n\n甲,乙,7,8\n")
    assert read(name, columns={"text": "答案", "title": "问题", "id": "n"}) == [
        Document("8", "乙", "甲", {"编号": 7})
    ]
    assert read(name, columns={"text": "答案", "id": "none"}) == [
        Document(text_id("乙"), "乙", None, {"问题": "甲", "编号": 7, "n": 8})
    ]
    assert wrong_line(write("c.csv", "题干,答案,编号,n\n甲,乙,7,8\n"), 1) == (
        "no column is named text, or as texts usually are, only: 题干, 答案, 编号, n; name the one of "
        "the texts with --text-column"
    )
    assert wrong_line(name, 1, columns={"text": "回答"}).startswith(
        "there is no column 回答, which --text-column names, only: 问题, 答案"
    )
    assert "cannot be two of them" in wrong_line(name, 1, columns={"text": "n", "title": "n"})
    name = write("b.csv", "内容,body,n\n甲,乙,1\n")
    assert wrong_line(name, 1) == (
        "several columns could be the text: 内容, body; name one with --text-column"
    )
    assert read(name, columns={"text": "body"})[0].text == "乙"
    assert '"正文" is empty' == wrong_line(write("c.csv", "正文,n\n,1\n"), 2)


@pytest.mark.parametrize("rows", ["1,甲\n1,乙", "1,甲\n,乙"])
def test_a_guessed_id_that_names_no_row_is_metadata(write: Write, rows: str) -> None:
    name = write("a.csv", f"序号,正文\n{rows}\n")
    assert [document.id for document in read(name)] == [text_id("甲"), text_id("乙")]
    assert read(name)[0].metadata == {"序号": 1}
    assert any("column 序号 looks like an id" in said for said in sentences(noted(name)))
    if "1,乙" in rows:
        assert [document.id for document in read(name, columns={"id": "序号"})] == ["1", "1"]


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


def column(write: Write, *values: str, types: str | None = None) -> list[Any]:
    """Return what a column with these values becomes; None where nothing is stored."""
    rows = [f"甲,{json.dumps(value) if ',' in value else value}" for value in values]
    name = write("a.csv", "\n".join(["text,n", *rows]))
    found = [document.metadata.get("n") for document in read(name, types=types)]
    assert all(type(value) in (str, int, float, bool, type(None)) for value in found)
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
        f"{name}: types that were found: year=number, price=number; to choose others, give --types"
    )
    assert sentences(noted(name, types="*=text")) == []


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
    assert column(write, *values, types="n=number") == expected


@pytest.mark.parametrize("value", ["unknown", "nan", "1e999", "1_000", "２"])
def test_a_value_of_a_named_column_that_is_no_number_is_named(write: Write, value: str) -> None:
    name = write("a.csv", f"text,n\n甲,1\n乙,{value}\n")
    why = wrong_line(name, 3, types="n=number")
    assert why == f'"n" is "{value}", which is not a number'


def test_a_named_column_must_be_there_and_be_metadata(write: Write) -> None:
    name = write("a.csv", "text,year\n甲,1\n")
    assert "names yaer, and there is no such column" in wrong_line(name, 1, types="yaer=number")
    assert '--types makes "text" a number, and it is' in wrong_line(name, 1, types="text=number")
    error = refusal(write("a.txt", "甲"), types="year=number")
    assert (
        "--types, --text-column, --title-column and --id-column are for csv, tsv, jsonl"
        in error.english
    )


def test_columns_of_a_pipe_stay_texts_unless_named(stdin: Callable[[bytes], None]) -> None:
    content = "text,year\n甲,2020\n".encode()
    stdin(content)
    assert read("-", format="csv")[0].metadata == {"year": "2020"}
    stdin(content)
    (said,) = sentences(noted("-", format="csv"))
    assert said.startswith("<stdin> can be read only once, so all columns are stored as texts")
    stdin(content)
    assert read("-", format="csv", types="year=number")[0].metadata == {"year": 2020}


def test_rows_before_a_wrong_one_are_read_with_their_types(write: Write) -> None:
    for wrong in ("乙", '"乙"x,1'):
        rows = []
        with pytest.raises(BadSettings):
            for document, _ in read_documents(
                find_source(write("a.csv", f"text,n\n甲,1\n{wrong}\n"))
            ):
                rows.append(document.metadata)
        assert rows == [{"n": 1}]


# --- booleans and dates -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["true", "FALSE", ""], "boolean", [True, False, None]),
        (["是", "否", "是"], "boolean", [True, False, True]),
        (["2024/1/5", "2023/12/31"], "date", ["2024-01-05", "2023-12-31"]),
        (["2024年1月5日", "2024-02-29"], "date", ["2024-01-05", "2024-02-29"]),
        (["2024-1-5 9:30", "2024年1月5日 23:59:59"], "date", None),
        (["是", "不详"], None, ["是", "不详"]),
        (["2023/2/29"], None, ["2023/2/29"]),
        (["2024-01-05", "无"], None, ["2024-01-05", "无"]),
        (["2024.1.5"], None, ["2024.1.5"]),
        (["2024-01-05T00:00:00Z"], None, ["2024-01-05T00:00:00Z"]),
        (["1/2/2024"], None, ["1/2/2024"]),
    ],
)
def test_booleans_and_dates_are_found(
    write: Write, values: list[str], kind: str | None, expected: list[object] | None
) -> None:
    assert column(write, *values) == (expected or ["2024-01-05T09:30:00", "2024-01-05T23:59:59"])
    name = write("b.csv", "\n".join(["n,text", *(f"{v},t{i}" for i, v in enumerate(values))]))
    assert noted(name).kinds == ({name: {"n": kind}} if kind else {})


def test_types_are_chosen_by_flag(write: Write) -> None:
    assert column(write, "2024", "", types="n=text") == ["2024", ""]
    assert column(write, "2024", "是", types="*=text") == ["2024", "是"]
    assert column(write, "True", types="*=text,n=boolean") == [True]
    name = write("a.csv", "text,n\n甲,1月5日\n")
    assert wrong_line(name, 2, types="n=date") == (
        '"n" is "1月5日", which is not a date such as 2024-01-05 or 2024年1月5日'
    )


@pytest.mark.parametrize("given", ["", "n", "n=", "=text", "n=integer", "n=text,", "a=text,b"])
def test_types_that_are_none_are_told_apart(given: str) -> None:
    assert parse_types(given) is None


# --- after an error -----------------------------------------------------------------------------------


def test_good_rows_are_read_after_bad_ones(write: Write) -> None:
    name = write("a.csv", 'text,n\n甲,1\n,2\n乙\n"丙"x,3\n丁,4\n')
    found, errors = problems(name)
    assert [(document.text, document.metadata["n"]) for document in found] == [("甲", 1), ("丁", 4)]
    assert errors == [
        f'{name}, line 3: "text" is empty',
        f"{name}, line 4: 1 fields, but the first row has 2",
        f"{name}, line 5: wrong quotes: ',' expected after '\"'; a quote within quotes is written twice",
    ]


def test_a_table_whose_names_cannot_be_read_is_one_error(write: Write) -> None:
    name = write("a.csv", '"text"x,n\n甲,1\n')
    found, errors = problems(name)
    assert found == [] and len(errors) == 1 and "line 1: wrong quotes" in errors[0]
