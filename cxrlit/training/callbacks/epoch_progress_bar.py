"""The progress bar of an epoch."""

from pytorch_lightning.callbacks import RichProgressBar


class EpochProgressBar(RichProgressBar):
    """Lightning's bar, with epochs counted from 1 as everywhere else. Takes the arguments of ``RichProgressBar``."""

    def _get_train_description(self, current_epoch: int) -> str:
        text = f"Epoch {current_epoch + 1}"
        if self.trainer.max_epochs is not None and self.trainer.max_epochs > 0:  # -1: no limit
            text += f"/{self.trainer.max_epochs}"
        return text.ljust(len(self.validation_description))  # keeps the bar in place
