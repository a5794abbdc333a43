"""What becomes of each format: texts, places, titles, and what is left out."""

import base64
from collections.abc import Callable

import pytest

pytest.importorskip("lxml", reason="needs the office extra")

from server.sources.columns import Columns
from server.sources.office import docx, epub, html, mail, pdf, pptx, sheets
from server.sources.office.given import Given
from server.sources.office.outline import MOST_CHARACTERS
from server.sources.office.section import Section, Unreadable
from server.sources.source import Options
from tests.support import office_files as make

Give = Callable[..., Given]


def notes(given: Given) -> list[str]:
    return [message.english for message in given.source.notes.messages()]


def short(sections: list[Section]) -> list[tuple[str, str | None, str]]:
    return [(each.tag, each.title, each.text) for each in sections]


# --- PDF ----------------------------------------------------------------------------------------------


def test_each_page_with_a_text_is_a_section_and_scans_are_named(give: Give) -> None:
    given = give(
        "报告.pdf", make.pdf([["深圳是一个高速发展的城", "市。"], None, ["Two", "lines"]], "年报")
    )
    found = list(pdf.sections(given))
    assert short(found) == [
        ("page=1", "年报", "深圳是一个高速发展的城市。"),
        ("page=3", "年报", "Two\nlines"),
    ]
    assert [each.place for each in found] == [{"page": 1}, {"page": 3}]
    assert [each.share for each in found] == [pytest.approx(1 / 3), 1.0]
    assert notes(given) == ["报告.pdf: 1 of 3 pages are scans: no text; run OCR on it first"]


def test_pdf_without_a_title_is_called_by_its_file(give: Give) -> None:
    assert [each.title for each in pdf.sections(give("a b.pdf", make.pdf([["x"]])))] == ["a b"]


def test_blank_page_is_no_scan(give: Give) -> None:
    given = give("a.pdf", make.pdf([[], ["x"]]))
    assert [each.tag for each in pdf.sections(given)] == ["page=2"]
    assert notes(given) == []


# --- Word ---------------------------------------------------------------------------------------------


def test_sections_of_a_word_file_are_under_their_heading_paths(give: Give) -> None:
    body = (
        make.paragraph("前言")
        + make.paragraph("总则", "Heading1")
        + make.paragraph("目的", "Heading2")
        + make.paragraph("为规范管理。")
        + make.paragraph("范围", "Heading2")
        + make.paragraph("全体员工。")
        + make.paragraph("附则", "Heading1")
    )
    found = list(docx.sections(give("a.docx", make.docx(body, title="手册"))))
    assert short(found) == [
        ("section=1", "手册", "前言"),
        ("section=2", "总则 > 目的", "为规范管理。"),
        ("section=3", "总则 > 范围", "全体员工。"),
        ("section=4", "附则", "附则"),
    ]
    assert [each.place.get("heading") for each in found] == [
        None,
        *(each.title for each in found[1:]),
    ]


def test_tables_lists_and_footnotes_of_a_word_file_are_kept(give: Give) -> None:
    cell = "<w:tc>{}</w:tc>".format
    row = f"<w:tr>{cell(make.paragraph('姓名'))}{cell(make.paragraph('张三'))}</w:tr>"
    item = "<w:p><w:pPr><w:numPr/></w:pPr><w:r><w:t>first</w:t></w:r></w:p>"
    cited = '<w:r><w:footnoteReference w:id="2"/></w:r>'
    body = item + f"<w:tbl>{row}</w:tbl>" + make.paragraph("See", inner=cited)
    note = f'<w:footnotes {make.W}><w:footnote w:id="2">{make.paragraph("the source")}</w:footnote></w:footnotes>'
    given = give("a.docx", make.docx(body, {"word/footnotes.xml": note}))
    (found,) = docx.sections(given)
    assert found.text.split("\n") == ["- first", "姓名 | 张三", "See[1]", "[1] the source"]


def test_what_a_word_file_does_not_show_is_left_out(give: Give) -> None:
    body = (
        "<w:p><w:del><w:r><w:t>deleted</w:t></w:r></w:del><w:ins><w:r><w:t>new</w:t></w:r></w:ins>"
        "<w:r><w:rPr><w:vanish/></w:rPr><w:t>hidden</w:t></w:r><w:r><w:instrText>PAGE</w:instrText></w:r></w:p>"
    )
    (found,) = docx.sections(give("a.docx", make.docx(body)))
    assert found.text == "new"


def test_long_text_without_headings_is_divided_between_paragraphs(give: Give) -> None:
    line = "字" * (MOST_CHARACTERS // 4)
    found = list(docx.sections(give("a.docx", make.docx(make.paragraph(line) * 6))))
    assert [len(each.text) for each in found] == [MOST_CHARACTERS + 3, MOST_CHARACTERS // 2 + 1]
    assert [each.tag for each in found] == ["section=1", "section=2"]


# --- PowerPoint ---------------------------------------------------------------------------------------


def test_each_slide_is_a_section_with_its_notes(give: Give) -> None:
    found = list(pptx.sections(give("a.pptx", make.pptx([("题", "文", "注"), ("", "二", "")]))))
    assert short(found) == [("slide=1", "题", "文\n注"), ("slide=2", "a", "二")]
    assert found[0].place == {"slide": 1, "heading": "题"}


# --- sheets -------------------------------------------------------------------------------------------

TABLE: list[list[object]] = [
    ["常见问题"],
    ["编号", "内容", "年份", "日期", "有效"],
    [1, "如何报销", 2023, "date:45296", True],
    [None, None, None, None, None],
    [2, "年假几天", 2024, "date:45297", False],
]


def test_rows_of_a_sheet_are_documents_with_typed_metadata(give: Give) -> None:
    given = give("a.xlsx", make.xlsx({"问答": TABLE}))
    found = list(sheets.sections(given))
    assert [(each.id, each.text) for each in found] == [("1", "如何报销"), ("2", "年假几天")]
    assert found[1].place == {
        **{"sheet": "问答", "row": 5, "年份": 2024, "日期": "2024-01-06", "有效": False}
    }
    assert any("text from 内容" in note for note in notes(given))


def test_ids_of_several_sheets_begin_with_the_sheet(give: Give) -> None:
    rows: list[list[object]] = [["id", "text"], [1, "x"]]
    given = give("a.xlsx", make.xlsx({"A#": rows, "B": rows, "C": [["k", "v"], [1, 2]]}))
    assert [each.id for each in sheets.sections(given)] == ["A%23#1", "B#1"]
    assert "a.xlsx: sheets without a column of texts left out: C" in notes(given)


def test_hidden_sheets_are_named_and_left_out(give: Give) -> None:
    rows: list[list[object]] = [["text"], ["x"]]
    given = give("a.xlsx", make.xlsx({"A": rows, "B": rows}, hidden=["B"]))
    assert [each.text for each in sheets.sections(given)] == ["x"]
    assert "a.xlsx: hidden sheets left out: B" in notes(given)


def test_question_and_answer_of_a_sheet_are_title_and_text(give: Give) -> None:
    rows: list[list[object]] = [["常见问题"], ["序号", "问题", "答案"], [1, "如何请假", "线上申请"]]
    (found,) = sheets.sections(give("a.xlsx", make.xlsx({"S": rows})))
    assert (found.id, found.title, found.text) == ("1", "如何请假", "线上申请")


def test_column_of_texts_can_be_named(give: Give) -> None:
    given = give(
        "a.xlsx", make.xlsx({"A": [["q", "a"], ["why", "so"]]}), Options(columns=Columns("q"))
    )
    (found,) = sheets.sections(given)
    assert (found.text, found.place["a"]) == ("why", "so")


def test_number_of_a_sheet_has_no_digits_that_only_the_machine_sees(give: Give) -> None:
    given = give("a.xlsx", make.xlsx({"A": [["text", "n"], ["x", 0.1 + 0.2], ["y", 5]]}))
    assert [each.place["n"] for each in sheets.sections(given)] == [0.3, 5]


def test_merged_cell_is_the_value_of_each_of_its_rows(give: Give) -> None:
    rows: list[list[object]] = [
        [None, "人事制度"],
        [None, "部门", "问题", "答案"],
        [None, "人事", "年假几天", "五天"],
        [None, None, None, "满十年十天"],
        [None, None, "产假几天", "一百五十八天"],
        [None, None, None, None],
        [None, None, "如何报销", "线上"],
    ]
    merged = ["B1:D1", "B3:B6", "C3:C4"]
    found = list(sheets.sections(give("a.xlsx", make.xlsx({"S": rows}, merged=merged))))
    assert [(each.place.get("部门"), each.title, each.text) for each in found] == [
        ("人事", "年假几天", "五天"),
        ("人事", "年假几天", "满十年十天"),
        ("人事", "产假几天", "一百五十八天"),
        ("", "如何报销", "线上"),
    ]
    assert [each.place["row"] for each in found] == [3, 4, 5, 7]


def test_merged_names_of_columns_are_no_values(give: Give) -> None:
    rows: list[list[object]] = [
        ["编号", "信息"],
        [None, "内容", "部门"],
        [1, "甲", "财务"],
        [2, "乙"],
    ]
    given = give("a.xlsx", make.xlsx({"S": rows}, merged=["A1:A2", "B1:C1", "C2:C4"]))
    found = [(each.id, each.text, each.place["部门"]) for each in sheets.sections(given)]
    assert found == [("1", "甲", "财务"), ("2", "乙", "")]


def test_column_that_is_named_as_the_id_is_not_filled(give: Give) -> None:
    rows: list[list[object]] = [["n", "内容"], [1, "甲"], [None, "乙"]]
    options = Options(columns=Columns(id="n"))
    given = give("a.xlsx", make.xlsx({"S": rows}, merged=["A2:A3"]), options)
    given.source.problems.keep_going = True
    assert [(each.id, each.text) for each in sheets.sections(given)] == [("1", "甲")]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (6222021234567890, "6222021234567890"),
        (4.40301199001011e17, "440301199001011000"),
        (0.0000125, "0.0000125"),
        (1e300, "1e+300"),
        ("date:45296.39583333", "2024-01-05T09:30:00"),
        ("date:45296.9999999", "2024-01-06"),
        ("date:0.3958333", "09:30:00"),
        ("length:1.5", "36:00:00"),
        ("length:0.25", "06:00:00"),
    ],
)
def test_cells_are_written_as_a_sheet_shows_them(give: Give, cell: float | str, text: str) -> None:
    given = give("a.xlsx", make.xlsx({"S": [["text"], [cell]]}))
    assert [each.text for each in sheets.sections(given)] == [text]


# --- HTML ---------------------------------------------------------------------------------------------


def test_html_keeps_what_is_shown_under_its_headings(give: Give) -> None:
    page = (
        '<meta charset="gb2312"><title>题</title><script>evil()</script><p>引<b>言</b></p><h1>一</h1>'
        '<p style="display: none">hid</p><h2>二</h2><ul><li>a<li>b</ul><table><tr><td>1<td>2</table>'
        "<p hidden>hid</p><pre>x\ny</pre>尾"
    )
    given = give("a.html", page.encode("gbk"))
    assert short(list(html.sections(given))) == [
        ("section=1", "题", "引言"),
        ("section=2", "一 > 二", "- a\n- b\n1 | 2\nx\ny\n尾"),
    ]
    assert list(given.source.notes.encodings) == ["gb18030"]


@pytest.mark.parametrize(
    ("encoding", "head"),
    [("utf-8", ""), ("gb18030", ""), ("utf-16", ""), ("big5", '<meta charset="big5">')],
)
def test_html_is_read_in_its_encoding(give: Give, encoding: str, head: str) -> None:
    text = (
        "中文文件的內容在此處，可以閱讀。"
        if encoding == "big5"
        else "中文文件的内容在此处，可以阅读。"
    )
    (found,) = html.sections(give("a.html", f"{head}<p>{text}</p>".encode(encoding)))
    assert found.text == text


# --- EPUB and mail ------------------------------------------------------------------------------------


def test_chapters_of_a_book_are_read_in_their_order(give: Give) -> None:
    data = make.epub(["<h1>一</h1><p>甲</p>", "<p>乙</p>"], "书")
    assert short(list(epub.sections(give("a.epub", data)))) == [
        ("section=1", "一", "甲"),
        ("section=2", "书", "乙"),
    ]


def test_book_that_its_publisher_encrypted_is_refused(give: Give) -> None:
    more = {"META-INF/encryption.xml": '<e><EncryptionMethod Algorithm="aes"/></e>'}
    with pytest.raises(Unreadable, match="encrypted by its publisher"):
        list(epub.sections(give("a.epub", make.epub(["<p>x</p>"], more=more))))


def test_mail_has_its_subject_sender_and_date(give: Give) -> None:
    subject = base64.b64encode("会议".encode()).decode()
    data = (
        f"From: A <a@b.cn>\nSubject: =?utf-8?b?{subject}?=\nDate: Mon, 2 Jan 2023 10:00:00 +0800\n"
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n"
        "--b\nContent-Type: text/html; charset=utf-8\n\n<p>明天<script>x</script></p>\n"
        "--b\nContent-Type: application/pdf\nContent-Disposition: attachment; filename=a.pdf\n\nx\n--b--\n"
    )
    given = give("a.eml", data.encode())
    (found,) = mail.sections(given)
    assert (found.title, found.text, found.tag) == ("会议", "明天", "mail")
    assert found.place == {"from": "A <a@b.cn>", "date": "2023-01-02T10:00:00+08:00"}
    assert notes(given) == ["a.eml: attachments left out: a.pdf"]
