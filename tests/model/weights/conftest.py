"""What the tests of weights share."""

import pytest
import torch
from torch import Tensor
from torchvision.models import densenet121


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(5)
    return dict(densenet121(weights=None).state_dict())
