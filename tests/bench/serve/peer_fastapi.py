"""FastAPI, pandas and scikit-learn, as tutorials put them together: a typed row, a frame, predict_proba."""

import json
import os

import pandas as pd
import peer_model
from fastapi import FastAPI
from pydantic import BaseModel, create_model

model = peer_model.load()
KINDS = {"integer": int, "number": float, "boolean": bool, "category": str, "datetime": str}
Row = create_model("Row", **{f["name"]: (KINDS[f["kind"]] | None if f["nullable"] else KINDS[f["kind"]], ...) for f in json.loads(os.environ["FIELDS"])})


class Rows(BaseModel):
    rows: list[Row]


app = FastAPI()


@app.post("/predict")
def predict(asked: Rows) -> dict:
    return {"probabilities": model.predict_proba(pd.DataFrame([row.model_dump() for row in asked.rows])).tolist()}
