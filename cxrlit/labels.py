"""The labels, their one order, and the names that data sets give them."""

LABELS: tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
)
"""The 8 findings. Every (N, 8) array, CSV column and network output is in this order."""

NIH_OTHER_FINDINGS: frozenset[str] = frozenset(
    {"Consolidation", "Edema", "Emphysema", "Fibrosis", "Hernia", "Pleural_Thickening"}
)
"""Findings of the NIH table beside ``LABELS``: known, and not targets.

Source: Wang et al., "ChestX-ray8", CVPR 2017, and the data set's later release with 14 findings.
"""

NIH_NO_FINDING = "No Finding"
