"""A phase is to leave the network no worse than it found it."""

from typing import Any

from pytorch_lightning import Trainer

from cxrlit.config import Precision, TrainConfig
from cxrlit.core.distributed import device_options
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.metrics.classification import macro
from cxrlit.model.densenet import CXRNet
from cxrlit.model.module import CXRModule
from cxrlit.training.trainer import LIGHTNING_PRECISION


def measure_start(network: CXRNet, config: TrainConfig, precision: Precision, datamodule: CXRDataModule) -> float:
    """Validation macro AUROC of the weights that a phase starts from, at the phase's own image size, on its features
    where it has them.
    """
    options: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    trainer = Trainer(
        **device_options(config.trainer),
        precision=LIGHTNING_PRECISION[precision],
        deterministic=True,
        enable_model_summary=False,
        **options,
    )
    module = CXRModule(network, labels=datamodule.data.labels, n_cached=datamodule.n_cached)
    trainer.validate(module, datamodule=datamodule, verbose=False)
    return macro(module.auroc["val"]).value
