"""The plain script that the recipe is measured against: fine-tuning as most people write it.

PIL and torchvision transforms in a DataLoader with as many workers as cores, DenseNet121 in fp32 and ``model.train()``,
``requires_grad`` set as the phase says, AdamW, scikit-learn's AUROC after each epoch, the best epoch kept. It uses
nothing of cxrlit.

    python benchmarks/plain.py --root NIH --split split.csv --weights densenet.pth --out FOLDER \\
        --phases 224:32:0:1e-3:5 224:32:100:1e-4:5 320:16:50:1e-5:2
"""

import argparse
import copy
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.models import densenet121

LABELS = ["Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"]


class Radiographs(Dataset[Any]):
    """The images of a part."""

    def __init__(self, table: pd.DataFrame, img_size: int, augmented: bool) -> None:
        self.paths = table["path"].tolist()
        self.targets = torch.tensor(table[LABELS].to_numpy(np.float32))
        change = [
            transforms.RandomHorizontalFlip(),
            transforms.RandomAffine(7, scale=(0.9, 1.1)),
            transforms.ColorJitter(contrast=0.15),
        ]
        self.transform = transforms.Compose(
            [
                transforms.Resize((img_size, img_size)),
                *(change if augmented else []),
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        with Image.open(self.paths[row]) as image:
            return self.transform(image.convert("RGB")), self.targets[row]


def main() -> None:
    """Train the phases one after another; write the predictions after each, and the seconds of each epoch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of an NIH data set")
    parser.add_argument("--split", type=Path, required=True, help="CSV with image, patient, split")
    parser.add_argument(
        "--weights", type=Path, required=True, help="state dict of torchvision's densenet121; a head of 8 is kept"
    )
    parser.add_argument("--phases", nargs="+", required=True, help="img_size:batch_size:n_unfreeze:lr:epochs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder of figures.json and predictions-1.csv, ...")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    parts = read_parts(arguments.root, arguments.split)
    weights = torch.load(arguments.weights, weights_only=True)
    model = densenet121(weights=None, num_classes=len(weights["classifier.bias"]))
    model.load_state_dict(weights)
    if model.classifier.out_features != len(LABELS):
        model.classifier = nn.Linear(model.classifier.in_features, len(LABELS))
    arguments.out.mkdir(parents=True, exist_ok=True)
    epochs: list[float] = []
    predicting = 0.0
    for number, phase in enumerate(arguments.phases, start=1):
        epochs += train_phase(model, parts, phase)
        start = time.perf_counter()
        img_size, batch_size = (int(number) for number in phase.split(":")[:2])
        predictions = predict_parts(model, parts, img_size, batch_size)
        predictions.to_csv(arguments.out / f"predictions-{number}.csv", index=False)
        predicting += time.perf_counter() - start
    (arguments.out / "figures.json").write_text(json.dumps({"epochs": epochs, "predicting": predicting}))


def read_parts(root: Path, split: Path) -> dict[str, pd.DataFrame]:
    """The label table with a column for each label, by part."""
    table = pd.read_csv(root / "Data_Entry_2017_v2020.csv", index_col=False)
    table = pd.read_csv(split, dtype=str).merge(table, left_on="image", right_on="Image Index")
    paths = {path.name: str(path) for path in root.rglob("*.png")}
    table["path"] = table["image"].map(paths)
    for label in LABELS:
        table[label] = table["Finding Labels"].str.split("|").map(lambda found, label=label: label in found)
    return {part: table[table["split"] == part] for part in ("train", "val", "test")}


def make_loader(table: pd.DataFrame, img_size: int, batch_size: int, augmented: bool) -> DataLoader[Any]:
    """As many workers as cores."""
    dataset = Radiographs(table, img_size, augmented)
    return DataLoader(dataset, batch_size=batch_size, shuffle=augmented, num_workers=os.cpu_count() or 1)


def train_phase(model: nn.Module, parts: dict[str, pd.DataFrame], phase: str) -> list[float]:
    """Train one phase; the model ends with the weights of its best epoch. Returns the seconds of each epoch."""
    img_size, batch_size, n_unfreeze, epochs = (int(phase.split(":")[number]) for number in (0, 1, 2, 4))
    unfreeze(model, n_unfreeze)
    train = make_loader(parts["train"], img_size, batch_size, augmented=True)
    val = make_loader(parts["val"], img_size, batch_size, augmented=False)
    positives = parts["train"][LABELS].sum().to_numpy(np.float32)
    pos_weight = torch.tensor((len(parts["train"]) - positives) / positives.clip(1)).clamp(max=10)
    criterion = nn.BCEWithLogitsLoss(pos_weight=pos_weight)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=float(phase.split(":")[3]), weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=0.3, patience=1)
    best, best_state, seconds = -1.0, model.state_dict(), []
    for epoch in range(epochs):
        start = time.perf_counter()
        model.train()
        for images, targets in train:
            loss = criterion(model(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        probs, targets = predict(model, val)
        auroc = float(roc_auc_score(targets, probs, average="macro"))
        scheduler.step(auroc)
        if auroc > best:
            best, best_state = auroc, copy.deepcopy(model.state_dict())
        seconds.append(time.perf_counter() - start)
        print(f"{phase} epoch {epoch + 1}: validation AUROC {auroc:.4f}, {seconds[-1]:.1f} s", flush=True)
    model.load_state_dict(best_state)
    return seconds


def unfreeze(model: nn.Module, n_unfreeze: int) -> None:
    """The classifier and the convolutions among the last layers, counted as Keras does: seven to a dense layer."""
    model.requires_grad_(False)
    model.get_submodule("classifier").requires_grad_(True)
    layers: list[nn.Module | None] = [None, None]  # the last norm and relu
    block = model.get_submodule("features.denseblock4")
    for dense in reversed(list(block.children())):
        layers += [None, dense.get_submodule("conv2"), None, None, dense.get_submodule("conv1"), None, None]
    assert n_unfreeze <= len(layers)
    for layer in layers[:n_unfreeze]:
        if layer is not None:
            layer.requires_grad_(True)


def predict_parts(model: nn.Module, parts: dict[str, pd.DataFrame], img_size: int, batch_size: int) -> pd.DataFrame:
    """The predictions table of validation and test."""
    tables = []
    for part in ("val", "test"):
        probs, _ = predict(model, make_loader(parts[part], img_size, batch_size, augmented=False))
        true = parts[part][["image", "patient", "split", *LABELS]].reset_index(drop=True)
        table = pd.DataFrame(probs, columns=[f"prob_{label}" for label in LABELS])
        tables.append(true.rename(columns={label: f"target_{label}" for label in LABELS}).join(table))
    return pd.concat(tables)


def predict(model: nn.Module, loader: DataLoader[Any]) -> tuple[Any, Any]:
    """(N, 8) probs and targets."""
    model.eval()
    with torch.no_grad():
        made = [(model(images).sigmoid(), targets) for images, targets in loader]
    probs, targets = (torch.cat(column).numpy() for column in zip(*made, strict=True))
    return probs, targets


if __name__ == "__main__":
    main()
