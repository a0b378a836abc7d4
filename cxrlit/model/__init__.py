"""The network, which layers train, the loss, and the LightningModule."""
