"""From batches to logits: the network, what of it trains, the loss, the LightningModule."""
