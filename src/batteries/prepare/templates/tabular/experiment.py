"""Diabetes, 442 patients (scikit-learn's copy of Efron et al. 2004): how far the disease goes within a year.

To beat, RMSE on the same folds: 78.5 by saying the mean of the training rows, 53.5 by linear regression.
"""

from dataclasses import dataclass

import polars as pl
import torch
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

import batteries as bt

NUMBERS = ["age", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]
SEXES = ["1", "2"]


def patients(*, test: bool) -> pl.DataFrame:
    """353 patients to train on, or 89 to test on: id, ten columns as they were measured, target."""
    data = load_diabetes(scaled=False)
    columns = {name: data.data[:, place] for place, name in enumerate(data.feature_names)}
    table = pl.DataFrame({**columns, "target": data.target}).with_row_index("id")
    rows = train_test_split(range(len(table)), test_size=89, random_state=0)[test]
    return table[sorted(rows)].with_columns(pl.col("sex").cast(pl.Int64).cast(pl.String))


class Net(nn.Module):
    """A straight line, and beside it a network for what bends."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.numbers = bt.Standardise(len(NUMBERS))  # means and deviations of the training rows alone
        self.sex = nn.Embedding(len(SEXES) + 1, 2)
        inputs = len(NUMBERS) + 2
        self.line = nn.Linear(inputs, 1)
        self.bent = nn.Sequential(
            *(nn.Linear(inputs, width), nn.SiLU(), nn.Dropout(dropout)),
            *(nn.Linear(width, width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, 1)),
        )

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        joined = torch.cat([self.numbers(inputs["numbers"]), self.sex(inputs["sex"])], dim=1)
        return (self.line(joined) + self.bent(joined))[:, 0]


@dataclass(kw_only=True)
class Diabetes(bt.Experiment):
    """Progression of diabetes, a number from 25 to 346."""

    batch_size: int = 32
    lr: float = 3e-3
    width: int = 64
    dropout: float = 0.3

    metric = bt.Metric.rmse()
    also = (bt.Metric.mae(),)
    folds = bt.KFold(n=5)

    def table(self) -> pl.DataFrame:
        return patients(test=False)

    def test_table(self) -> pl.DataFrame:
        return patients(test=True)

    def sample_submission(self) -> pl.DataFrame:
        return self.test_table().select("id", target=pl.lit(0.0))

    def dataset(self, rows: pl.DataFrame, *, training: bool) -> tuple[dict[str, Tensor], Tensor]:
        numbers = torch.from_numpy(rows.select(NUMBERS).to_numpy().astype("float32"))  # an empty value becomes NaN
        sex = torch.from_numpy(bt.category_codes(rows["sex"], SEXES).copy())
        return {"numbers": numbers, "sex": sex}, torch.from_numpy(self.targets(rows).astype("float32"))

    def model(self) -> nn.Module:
        return Net(self.width, self.dropout)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.mse_loss(outputs, (targets - 150) / 80)  # near 0 and 1, where learning is easiest

    def predict_step(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        return model(inputs).float() * 80 + 150

    def stages(self) -> list[bt.Stage]:
        return [
            bt.Stage("fast", epochs=30, lr=self.lr, warmup=0.1, weight_decay=0.1),
            bt.Stage("fine", epochs=10, lr=self.lr / 4, start="best", average="ema", decay=0.98, weight_decay=0.1),
        ]
