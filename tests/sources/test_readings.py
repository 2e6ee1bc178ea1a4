"""A table comes back equal, however it was written; and every kind of odd file is one table."""

from datetime import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_nb.base.charter import Data
from mlops_nb.base.errors import MlopsError
from mlops_nb.sources.tables import read, read_table

NUMBERS = st.lists(st.integers(-9_999_999, 9_999_999).map(lambda n: n / 100), min_size=3, max_size=12)
TIMES = st.lists(st.datetimes(datetime(1975, 1, 1), datetime(2060, 1, 1)), min_size=12, max_size=12)
DATES = {"day": "%d{}%m{}%Y", "month": "%m{}%d{}%Y", "year": "%Y{}%m{}%d"}


def written(number: float, decimal: str, thousands: str, unit: str) -> str:
    """A number as people write it."""
    whole, _, rest = f"{number:,.2f}".partition(".")
    return unit.format(whole.replace(",", thousands) + decimal + rest)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    numbers=NUMBERS, times=TIMES, encoding=st.sampled_from(["utf-8", "utf-8-sig", "cp949", "utf-16"]),
    separator=st.sampled_from(";\t|"), signs=st.sampled_from([(".", ","), (",", "."), (".", ""), (",", ""), (",", " "), (".", "'")]),
    unit=st.sampled_from(["{}", "{} €", "${}", "{} %", "{}kg"]), first=st.sampled_from([*DATES]), between=st.sampled_from("-/."),
    end=st.sampled_from(["\n", "\r\n", "\r"]), gap=st.sampled_from(["", "-", "n/a", "#DIV/0!"]),
)  # fmt: skip
def test_what_was_written_is_read(tmp_path, numbers, times, encoding, separator, signs, unit, first, between, end, gap):
    if encoding == "cp949":
        unit = unit.replace("€", "원")  # which that encoding has
    times = [*times, datetime(2024, 12, 31)]  # one that leaves no doubt
    n = min(len(numbers), len(times) - 1)
    rows = [(written(numbers[k], *signs, unit), times[k].strftime(DATES[first].format(between, between))) for k in range(n)]
    rows += [(gap, times[-1].strftime(DATES[first].format(between, between)))]
    lines = [separator.join(["값", "when", "city"]), *(separator.join([*row, "서울"]) for row in rows)]
    (file := tmp_path / "t.csv").write_bytes(end.join([*lines, ""]).encode(encoding))
    made = read(file)
    assert made.frame.columns.tolist() == ["값", "when", "city"] and not made.asked
    assert made.frame["값"].tolist()[:-1] == numbers[:n] and made.frame["값"].isna().tolist()[-1]
    assert [t.date() for t in made.frame["when"]] == [t.date() for t in [*times[:n], times[-1]]]
    again = read_table(file, Data(source="t.csv", columns=made.readings))
    assert again.equals(made.frame), "what is written into the charter reads the same"


SHORT = {"day": "%d{0}%m{0}%y", "month": "%m{0}%d{0}%y", "year": "%y{0}%m{0}%d", None: "%Y%m%d"}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    times=st.lists(st.datetimes(datetime(1975, 1, 1), datetime(2060, 1, 1)), min_size=1, max_size=20, unique_by=datetime.date),
    first=st.sampled_from([*SHORT]), between=st.sampled_from("-/."), gap=st.sampled_from(["", "-", "n/a"]),
)  # fmt: skip
def test_short_dates_are_read_right_or_asked(tmp_path, times, first, between, gap):
    written = [t.strftime(SHORT[first].format(between)) for t in times]
    (file := tmp_path / "t.csv").write_text("\n".join(["when;b", *(f"{w};x" for w in [*written, gap]), ""]))
    made = read(file)
    if first is None and len(times) < 3:
        assert made.columns["when"].kind in ("whole", "number") and not made.asked  # too few to tell dates from numbers
        return
    ways = [how.first for how in made.columns["when"].options]
    assert first in ways and (len(ways) == 1) == (not made.asked)
    told = read_table(file, Data(source="t.csv", columns={"when": made.columns["when"].options[ways.index(first)]}))
    for table in [told] if made.asked else [told, made.frame]:
        assert [t.date() for t in table["when"][:-1]] == [t.date() for t in times] and table["when"].isna().tolist()[-1]


@pytest.mark.parametrize("text, column", [("a;b\n1,234;x\n2;y\n", "a"), ("a;b\n03/04/2024;x\n05/06/2024;y\n", "a"), ("a;b\n13.11.24;x\n14.11.24;y\n", "a")])
def test_what_can_be_read_in_two_ways_is_asked(tmp_path, text, column):
    (file := tmp_path / "t.csv").write_text(text)
    with pytest.raises(MlopsError, match=rf"t\.csv: column '{column}': is .*say which in the charter, under data: columns:"):
        read_table(file)
    assert read_table(file, unread=[column])[column].dtype == "str"
    for way in read(file).columns[column].options:
        assert read_table(file, Data(source="t.csv", columns={column: way}))[column].dtype != "str"


def test_a_value_that_the_reading_cannot_read_is_named(tmp_path):
    (file := tmp_path / "t.csv").write_text("pay;b\n1,5;x\nabout 2;y\n")
    told = Data(source="t.csv", columns={"pay": {"kind": "number", "decimal": ","}})
    with pytest.raises(MlopsError, match=r"t\.csv: column 'pay': 'about 2' can't be read.*name it there under missing"):
        read_table(file, told)
