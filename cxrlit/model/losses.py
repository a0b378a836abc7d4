"""Losses that torch lacks, and the masking of unknown targets for any loss."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from torchvision.ops import sigmoid_focal_loss

from cxrlit.config import Instantiable
from cxrlit.config.build import build_target, check_target, takes_argument
from cxrlit.core.distributed import sum_over_ranks
from cxrlit.core.errors import ConfigError, first_line
from cxrlit.core.ranks import n_ranks

Loss = Callable[[Tensor, Tensor], Tensor]
"""Takes (B, L) logits and (B, L) float targets, 0 or 1, and returns (B, L) losses."""

TINY = 1e-8
"""Replaces 0 as the base of a power, whose slope at 0 may be infinite."""


class FocalLoss(nn.Module):
    """Binary cross-entropy, scaled down where the network is confident and right.

    Args:
        gamma: Strength of the scaling, 0 or >= 1 (between them, the gradient is infinite at certainty); 0 gives
            weighted binary cross-entropy.
        alpha: Weight of the positives, 0 to 1; that of the negatives is 1 - ``alpha``. -1: both are 1.

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017; computed by torchvision.

    >>> FocalLoss(gamma=2.0, alpha=-1.0)(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    tensor([[0.1733, 0.1733]])
    """

    def __init__(self, gamma: float = 2.0, alpha: float = 0.25) -> None:
        super().__init__()
        if not (gamma == 0 or gamma >= 1) or not (alpha == -1 or 0 <= alpha <= 1):
            raise ValueError(f"gamma={gamma:g} must be 0, or 1 or more; alpha={alpha:g} from 0 to 1, or -1")
        self.gamma, self.alpha = gamma, alpha

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Map (B, L) logits and targets, 0 or 1, to (B, L) losses."""
        losses: Tensor = sigmoid_focal_loss(logits, targets, self.alpha, self.gamma, reduction="none")
        return losses


class AsymmetricLoss(nn.Module):
    """Focal loss that focuses negatives harder than positives, and ignores the easiest negatives.

    Args:
        gamma_neg: Focus of the negatives, >= 0.
        gamma_pos: Focus of the positives, >= 0.
        clip: Margin, 0 to 1, subtracted from the probability of a negative; below the margin, the loss is 0.
        pos_weight: (L,) weight of the positive term; None: 1.

    Source: Ridnik et al., "Asymmetric Loss For Multi-Label Classification", ICCV 2021.

    >>> AsymmetricLoss(gamma_neg=4.0, gamma_pos=1.0, clip=0.05)(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    tensor([[0.3466, 0.0245]])
    """

    pos_weight: Tensor | None

    def __init__(
        self, gamma_neg: float = 4.0, gamma_pos: float = 1.0, clip: float = 0.05, pos_weight: Tensor | None = None
    ) -> None:
        super().__init__()
        if min(gamma_neg, gamma_pos) < 0 or not 0 <= clip < 1:
            raise ValueError("gamma_neg and gamma_pos must be 0 or more, and clip from 0 to below 1")
        self.gamma_neg, self.gamma_pos, self.clip = gamma_neg, gamma_pos, clip
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Map (B, L) logits and targets, 0 or 1, to (B, L) losses."""
        absent = (-logits).sigmoid().clamp(min=TINY)
        shifted = (logits.sigmoid() - self.clip).clamp(min=TINY)
        log_absent = torch.log1p(-shifted) if self.clip else logsigmoid(-logits)  # exact if the sigmoid rounds to 1
        positive = -(absent**self.gamma_pos) * logsigmoid(logits)
        if self.pos_weight is not None:
            positive = positive * self.pos_weight
        return targets * positive - (1 - targets) * shifted**self.gamma_neg * log_absent


def build_loss(spec: Instantiable, pos_weight: Tensor) -> nn.Module:
    """Build the loss that a config names, and try it on two images.

    Args:
        spec: ``loss`` of the config: a dict with ``_target_`` and its arguments. ``pos_weight_cap`` is handled here: if
            it is a number, the class gets ``pos_weight``. A class that takes ``reduction`` gets "none" unless it is
            set.
        pos_weight: (L,) weight of the positive term.

    Raises:
        ConfigError: It cannot be built, takes no ``pos_weight``, or does not return one loss per target.
    """
    spec = dict(spec)
    given: dict[str, Any] = {} if spec.pop("pos_weight_cap", None) is None else {"pos_weight": pos_weight}
    check_target("loss", spec)
    if "reduction" not in spec and takes_argument(spec, "reduction"):
        given["reduction"] = "none"
    if "pos_weight" in given and not takes_argument(spec, "pos_weight"):
        raise ConfigError(f"loss.pos_weight_cap: {spec['_target_']} takes no pos_weight: set loss.pos_weight_cap=null")
    loss: nn.Module = build_target("loss", spec, **given)
    _try_loss(f"loss._target_={spec['_target_']}", loss, n_labels=len(pos_weight))
    return loss


def _try_loss(name: str, loss: nn.Module, n_labels: int) -> None:
    if not isinstance(loss, nn.Module):
        raise ConfigError(f"{name}: it must be a torch.nn.Module, not a {type(loss).__name__}")
    logits = torch.zeros(2, n_labels, requires_grad=True)
    targets = torch.tensor([[0.0], [1.0]]).repeat(1, n_labels)
    try:
        losses = loss(logits, targets)
        shape = tuple(losses.shape)
    except Exception as error:  # a user's class may raise anything
        raise ConfigError(
            f"{name}: it fails on logits and targets: {type(error).__name__}: {first_line(error)}"
        ) from None
    if shape != tuple(logits.shape):
        raise ConfigError(
            f"{name}: it must return a loss for each image and label, {tuple(logits.shape)} for two images, and "
            f"returns {shape}: take no mean or sum in it (loss.reduction=none)"
        )
    if not losses.requires_grad:
        raise ConfigError(f"{name}: its losses have no gradient")


def mask_loss(loss: Loss, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the losses of the known targets, and count them.

    Args:
        loss: It gets 0 for an unknown target; its value there is ignored.
        logits: (B, L) float32.
        targets: (B, L) float32; 1 present, 0 absent, NaN unknown.

    Returns:
        () the sum, and () int64 the number.
    """
    known = ~targets.isnan()
    losses = loss(logits, targets.nan_to_num())
    return torch.where(known, losses, 0.0).sum(), known.sum()


def share_loss(total: Tensor, n_known: Tensor, n_images: int) -> dict[str, Any]:
    """Compute the mean loss over the known targets of the global batch, on one of its devices.

    Args:
        total: () sum of the losses on this device.
        n_known: () number of known targets on this device; may be 0.
        n_images: Images on this device.

    Returns:
        ``loss``, whose gradient averaged over the devices is that of the mean loss; ``mean_loss`` and ``n_images`` of
        the global batch.
    """
    if n_ranks() == 1:
        loss = total / n_known.clamp(min=1)
        return {"loss": loss, "mean_loss": loss.detach(), "n_images": n_images}
    shares = [total.detach(), n_known.to(total.dtype), total.new_tensor(n_images)]
    total_of_all, n_known_of_all, n_images_of_all = sum_over_ranks(torch.stack(shares))
    n_known_of_all = n_known_of_all.clamp(min=1)
    mean = total_of_all / n_known_of_all
    # A NaN or infinite loss on one device becomes NaN on all, so that all of them stop.
    return {"loss": n_ranks() * total / n_known_of_all + 0 * mean, "mean_loss": mean, "n_images": n_images_of_all}
