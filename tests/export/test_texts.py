"""Files of calibration and verification texts: what is read, and what is refused with its place."""

import json
from pathlib import Path

import pytest

from export.errors import BadTexts
from export.texts.files import CHINESE, ENGLISH, MULTILINGUAL, TextSet, read_texts


def test_plain_file_has_one_text_a_line_and_blank_lines_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("第一行\n\n   \n second line \n第三行", encoding="utf-8")
    assert read_texts(path, at_least=3) == ["第一行", " second line ", "第三行"]


def test_windows_line_ends_and_byte_order_mark_are_no_part_of_a_text(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes("\ufeff第一行\r\n第二行\r\n".encode())
    assert read_texts(path, at_least=2) == ["第一行", "第二行"]


def test_json_lines_are_strings_or_objects_with_text(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    lines = ['"一\\n行"', '{"text": "二", "kind": "law"}', "", '"\\u4e09"']
    path.write_text("\n".join(lines), encoding="utf-8")
    assert read_texts(path, at_least=3) == ["一\n行", "二", "三"]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_only_a_line_feed_ends_a_text(separator: str, tmp_path: Path) -> None:
    text = f"上{separator}下"
    plain = tmp_path / "texts.txt"
    plain.write_text(f"{text}\n{text}\n", encoding="utf-8")
    assert read_texts(plain, at_least=2) == [text, text]
    lines = tmp_path / "texts.jsonl"
    line = json.dumps({"text": text}, ensure_ascii=False)
    lines.write_text(f"{line}\n{line}\n", encoding="utf-8")
    assert read_texts(lines, at_least=2) == [text, text]


def refusal(path: Path, at_least: int = 1) -> BadTexts:
    with pytest.raises(BadTexts) as caught:
        read_texts(path, at_least=at_least)
    assert str(path) in caught.value.english
    assert str(path) in caught.value.chinese
    return caught.value


def test_missing_file_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "none.txt").english


def test_folder_is_refused(tmp_path: Path) -> None:
    assert "Is a directory" in refusal(tmp_path).english


def test_too_few_texts_are_refused_with_both_numbers(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("一\n二\n\n", encoding="utf-8")
    error = refusal(path, at_least=3)
    assert "has 2 texts; at least 3" in error.english
    assert "2" in error.chinese and "3" in error.chinese


def test_other_encodings_are_refused_with_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes("abc\n汉字".encode("gb18030"))
    assert "not UTF-8 at byte 4" in refusal(path).english


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{'text': 1}", "is not JSON"),
        ("plain", "is not JSON"),
        ("42", "is neither a string nor an object"),
        ("null", "is neither a string nor an object"),
        ('["一"]', "is neither a string nor an object"),
        ('{"body": "一"}', "is neither a string nor an object"),
        ('{"text": null}', "is neither a string nor an object"),
        ('"\\ud83d"', "holds half of a surrogate pair"),
    ],
)
def test_json_line_without_a_text_is_refused_with_its_number(
    line: str, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(f'"一"\n\n{line}\n', encoding="utf-8")
    error = refusal(path)
    assert f"line 3 {reason}" in error.english
    assert "第 3 行" in error.chinese


@pytest.mark.parametrize("own", [CHINESE, ENGLISH, MULTILINGUAL], ids=lambda own: own.name)
def test_own_texts_are_many_different_and_not_shared_between_the_two_files(own: TextSet) -> None:
    calibration = read_texts(own.calibration, at_least=250)
    verification = read_texts(own.verification, at_least=100)
    assert len({*calibration, *verification}) == len(calibration) + len(verification)
