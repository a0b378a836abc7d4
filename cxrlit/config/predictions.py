"""The keys of an evaluation of predictions, those of another program among them."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from cxrlit.config.types import Section

Scores = Literal["probs", "logits", "percent"]


def _list_one(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


ColumnName = Annotated[str, Field(min_length=1)]
ColumnNames = Annotated[list[ColumnName], BeforeValidator(_list_one)]
"""A name, or several, of which each table has one."""


class PredictionColumnsConfig(Section):
    """Names of the columns, in whichever of the two tables has them; null: the name of the key; []: not read."""

    image: ColumnNames | None = Field(description="name of the image, in both tables")
    patient: ColumnNames | None
    split: ColumnNames | None = Field(description="train, val or test; without such a column every row is test")
    view: ColumnNames | None
    age: ColumnNames | None = Field(description="years")
    sex: ColumnNames | None
    probs: dict[str, ColumnName] | None = Field(
        description="the column of each label's scores; null: prob_<label>, or <label>"
    )
    targets: dict[str, ColumnName] | None = Field(
        description="the column of each label's targets; null: target_<label>, or in the table of labels <label>"
    )


class PredictionsConfig(Section):
    """What a table of predictions is."""

    columns: PredictionColumnsConfig
    patient: Literal["image"] | None = Field(
        description="image: every image is a patient of its own, where no table tells patients apart"
    )
    scores: Scores = Field(description="what the scores are: probs in [0, 1], logits, or percent")
    missing: Literal["error", "drop"] = Field(description="what is done where an image of a part is not predicted")
