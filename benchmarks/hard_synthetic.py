"""Draw the synthetic set harder than the embedded one, for comparisons of recipes.

Positives of the train_val list lose their label with ``--missed`` and negatives gain one with ``--invented``, as labels
mined from reports do; the labels of the official test list stay as drawn. At 64 px a nodule is 4 to 5 pixels wide.

    python benchmarks/hard_synthetic.py FOLDER [--patients 400] [--missed 0.2] [--invented 0.01] [--seed 0]
    cxrlit ablate data=nih data.root=FOLDER ...
"""

import argparse
from pathlib import Path

import numpy as np

from cxrlit.core.labels import LABELS, NO_FINDING
from cxrlit.data.synthetic.drawn_set import write_synthetic

TABLE = "Data_Entry_2017_v2020.csv"


def main() -> None:
    """Draw the set, then change the labels of its train_val list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder to make")
    parser.add_argument("--patients", type=int, default=400)
    parser.add_argument("--missed", type=float, default=0.2, help="share of positive labels to remove")
    parser.add_argument("--invented", type=float, default=0.01, help="share of negative labels to set, for each label")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_synthetic(arguments.folder, n_patients=arguments.patients, seed=arguments.seed)
    rng = np.random.default_rng(arguments.seed)
    table = arguments.folder / TABLE
    header, *lines = table.read_text(encoding="utf-8").splitlines()
    noisy = set((arguments.folder / "train_val_list.txt").read_text(encoding="utf-8").split())
    n_missed = n_invented = 0
    for number, line in enumerate(lines):
        name, said, rest = line.split(",", 2)
        draws = rng.random(len(LABELS))
        if name not in noisy:
            continue
        old = set(said.split("|"))
        new = [
            label
            for label, draw in zip(LABELS, draws, strict=True)
            if (draw >= arguments.missed if label in old else draw < arguments.invented)
        ]
        n_missed += len(old & set(LABELS) - set(new))
        n_invented += len(set(new) - old)
        lines[number] = f"{name},{'|'.join(new) or NO_FINDING},{rest}"
    table.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    print(f"{arguments.folder}: {len(lines)} images; {n_missed} labels removed, {n_invented} invented")


if __name__ == "__main__":
    main()
