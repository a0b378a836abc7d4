"""Use a cxrlit checkpoint as starting weights, with the record of its training data."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cxrlit.config import LabelName, ModelConfig, PhaseName
from cxrlit.core.errors import CheckpointError, format_count
from cxrlit.model.seen_files import NOTHING_SEEN, read_seen_files
from cxrlit.model.weights.head import find_head
from cxrlit.model.weights.names import STEM, find_features, unwrap
from cxrlit.model.weights.seen import find_saw_of_ancestor
from cxrlit.model.weights.sources import NORMALIZE
from cxrlit.model.weights.start import AskedWeights, StartingWeights
from cxrlit.model.weights.stem import choose_normalize


class _Config(BaseModel):
    model_config = ConfigDict(extra="ignore")

    model: ModelConfig


class _Metadata(BaseModel):
    """The metadata of a checkpoint of any format that are needed here."""

    model_config = ConfigDict(extra="ignore")

    config: _Config
    labels: list[LabelName]
    phase: PhaseName
    phase_id: Annotated[str, Field(pattern=r"^\w{1,64}$")]
    trained_patients: list[str]


def is_own(content: Any) -> bool:
    """Whether a file's content is a cxrlit checkpoint."""
    return isinstance(content, dict) and any(str(key).startswith("cxrlit") for key in content)


def open_own(content: dict[str, Any], said: AskedWeights) -> StartingWeights:
    """Read features and head of a cxrlit checkpoint.

    Args:
        content: Content of the file.
        said: The user's settings.

    Raises:
        CheckpointError: It is a state that a phase resumes from, or its metadata are damaged.
        ConfigError: It was trained with another normalization.
    """
    what, weights = said.what, said.weights
    if "cxrlit" not in content:
        raise CheckpointError(f"{what}: a phase resumes from it; its weights so far are in best.ckpt beside it")
    try:
        metadata = _Metadata.model_validate(content["cxrlit"])
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"])[:80]
        raise CheckpointError(f"{what}: a checkpoint of cxrlit, but its {key} cannot be used") from None
    state, _, _ = unwrap(content, what)
    found, model = find_features(state, what), metadata.config.model
    theirs = model.normalize if model.normalize in NORMALIZE else None
    head = find_head(found.rest)
    if head is not None and len(head.bias) != len(metadata.labels):
        raise CheckpointError(
            f"{what}: a checkpoint of cxrlit, but its head has {format_count(len(head.bias), 'output')} and it names "
            f"{format_count(len(metadata.labels), 'label')}"
        )
    return StartingWeights(
        name=weights,
        normalize=choose_normalize(said, theirs, True, found.weights[STEM].shape[1]),
        saw=find_saw_of_ancestor(model, said.saw),
        note=f"{metadata.phase}-{metadata.phase_id} of cxrlit: its features, and a new chain of phases; "
        f"init_from={weights} would go on from it with its head",
        features=found.weights,
        head=head and head._replace(labels=tuple(metadata.labels)),
        trained_patients=frozenset(metadata.trained_patients),
        files=read_seen_files(content["files"], Path(weights)) if "files" in content else NOTHING_SEEN,
    )
