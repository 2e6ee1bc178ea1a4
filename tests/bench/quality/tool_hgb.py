"""scikit-learn's histogram boosting with its defaults on what pandas read: columns of text are categories, or codes
in the order of the alphabet where there are more than 255.
"""

from rows import answer, frames, job
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

MOST = 255  # categories that one column of it may have


def main() -> None:
    given = job()
    known, y, asked = frames(given)
    known, asked = known.loc[:, known.notna().any()], asked.loc[:, known.notna().any()]
    texts = [c for c in make_column_selector(dtype_exclude="number")(known) if known[c].dtype != bool]
    few = [c for c in texts if known[c].nunique() <= MOST]
    codes = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=float("nan"), encoded_missing_value=float("nan")
    )
    recipe = make_column_transformer((codes, few), (codes, [c for c in texts if c not in few]), remainder="passthrough")
    made = HistGradientBoostingRegressor if given.task == "regression" else HistGradientBoostingClassifier
    boosting = made(categorical_features=list(range(len(few))) or None, random_state=given.seed)
    model = make_pipeline(recipe, boosting).fit(known, y)
    if given.task == "regression":
        return answer(given, model.predict(asked))
    answer(given, model.predict_proba(asked), model.classes_)


if __name__ == "__main__":
    main()
