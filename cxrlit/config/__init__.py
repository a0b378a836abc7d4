"""Every key that a user may set: its type, its range, what it means. The values stand in ``conf/``.

Hydra composes the files of ``conf/`` and the command line; ``read_config`` checks the outcome here, so that
a typo, a wrong type, a value out of range or a contradiction is one line that names the key.
"""

from cxrlit.config.commands import CompareConfig, CompareThresholds, ExportConfig, InspectConfig, PrepareConfig
from cxrlit.config.data import (
    AnySource,
    CheXpertConfig,
    DataConfig,
    MIMICConfig,
    NIHConfig,
    NIHData,
    PadChestConfig,
    SeveralData,
    SplitConfig,
    SyntheticConfig,
    SyntheticData,
    TableConfig,
    TableData,
    Uncertain,
    VinDrConfig,
)
from cxrlit.config.evaluate import EvaluateConfig, InternalData
from cxrlit.config.read_config import SectionT, list_keys, read_config, read_sweeper, suggest_key
from cxrlit.config.sweep import Choices, GridConfig, SearchInterval, SweepConfig, Value, quote, write_override
from cxrlit.config.train import (
    FLAT_KEYS,
    AugmentConfig,
    MachineConfig,
    PhaseConfig,
    SamplerConfig,
    TrainConfig,
    TrainerConfig,
)
from cxrlit.config.types import (
    BATCH_NORM_MODES,
    N_LAYERS,
    BatchNormMode,
    ConfigSection,
    Instantiable,
    PhaseName,
    Precision,
    PrecisionChoice,
)

__all__ = [
    "BATCH_NORM_MODES",
    "FLAT_KEYS",
    "N_LAYERS",
    "AnySource",
    "AugmentConfig",
    "BatchNormMode",
    "CheXpertConfig",
    "Choices",
    "CompareConfig",
    "CompareThresholds",
    "ConfigSection",
    "DataConfig",
    "EvaluateConfig",
    "ExportConfig",
    "GridConfig",
    "InspectConfig",
    "Instantiable",
    "InternalData",
    "MIMICConfig",
    "MachineConfig",
    "NIHConfig",
    "NIHData",
    "PadChestConfig",
    "PhaseConfig",
    "PhaseName",
    "Precision",
    "PrecisionChoice",
    "PrepareConfig",
    "SamplerConfig",
    "SearchInterval",
    "SectionT",
    "SeveralData",
    "SplitConfig",
    "SweepConfig",
    "SyntheticConfig",
    "SyntheticData",
    "TableConfig",
    "TableData",
    "TrainConfig",
    "TrainerConfig",
    "Uncertain",
    "Value",
    "VinDrConfig",
    "list_keys",
    "quote",
    "read_config",
    "read_sweeper",
    "suggest_key",
    "write_override",
]
