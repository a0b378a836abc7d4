"""What ``cxrlit export`` takes."""

from pydantic import Field

from cxrlit.config.evaluate import HomeData
from cxrlit.config.types import Folder, Section


class ExportConfig(Section):
    """What becomes a bundle."""

    command = "export"

    ckpt: str = Field(min_length=1, description="a checkpoint or a phase folder")
    out: Folder = Field(description="folder of the bundle, which does not exist yet")
    evaluation: Folder | None = Field(description="folder of its evaluation; null: eval/ beside the checkpoint")
    data: HomeData
    cache_dir: Folder = Field(description="folder of decoded images and of the synthetic data")
