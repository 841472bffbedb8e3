"""Forecasters as a stranger would write them: one that is causal, and the classical ways to leak, one each.

Each takes values (batch, time) and answers (batch, time, horizon); `tidecast verify tests/leaks.py:NAME` reads this file too.
"""
# ruff: noqa: D102 (each class says what its methods do)

import torch
from torch import Tensor, nn

HORIZON, WIDTH = 4, 16


class Causal(nn.Module):
    """An LSTM that reads forward, with its state carried by `step`."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(1, WIDTH, batch_first=True), nn.Linear(WIDTH, HORIZON)

    def forward(self, values: Tensor) -> Tensor:
        return self.head(self.lstm(values.unsqueeze(-1))[0])

    def step(self, values: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        answer, after = self.lstm(values[:, None, None], state)
        return self.head(answer[:, 0]), after

    def training_origins(self, num_ticks: int, train_end: int) -> range:
        return range(train_end - HORIZON + 1)


class Bidirectional(nn.Module):
    """The backward direction at tick t has read what comes after t."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(1, WIDTH, batch_first=True, bidirectional=True), nn.Linear(2 * WIDTH, HORIZON)

    def forward(self, values: Tensor) -> Tensor:
        return self.head(self.lstm(values.unsqueeze(-1))[0])


class CentredConvolution(nn.Module):
    """Padding on both sides: the kernel at tick t covers t + 1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv1d(1, WIDTH, 3, padding=1), nn.Linear(WIDTH, HORIZON)

    def forward(self, values: Tensor) -> Tensor:
        return self.head(self.conv(values.unsqueeze(1)).relu().transpose(1, 2))


class BatchNormOverTime(Causal):
    """In training, the statistics are those of the whole window; served, they are fixed and nothing leaks."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1)

    def forward(self, values: Tensor) -> Tensor:
        return super().forward(self.norm(values.unsqueeze(1)).squeeze(1))

    step = None


class WindowNormalisation(Causal):
    """RevIN with forking sequences: the mean and deviation of the window hold what comes after most of its origins."""

    def forward(self, values: Tensor) -> Tensor:
        mean, deviation = values.mean(1, keepdim=True), values.std(1, keepdim=True)
        return super().forward((values - mean) / deviation) * deviation.unsqueeze(-1) + mean.unsqueeze(-1)

    step = None


class TargetAmongCovariates(nn.Module):
    """Reads its covariates one tick ahead, as if they were known: with the target among them, that is the answer."""

    num_covariates = 1

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, WIDTH, batch_first=True), nn.Linear(WIDTH, HORIZON)

    def forward(self, values: Tensor, covariates: Tensor) -> Tensor:
        ahead = torch.cat([covariates[:, 1:], covariates[:, -1:]], dim=1)
        return self.head(self.lstm(torch.cat([values.unsqueeze(-1), ahead], dim=-1))[0])


class PastCovariates(nn.Module):
    """Reads its covariates of tick t at tick t, which is what past-only means."""

    num_covariates = 1

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, WIDTH, batch_first=True), nn.Linear(WIDTH, HORIZON)

    def forward(self, values: Tensor, covariates: Tensor) -> Tensor:
        return self.head(self.lstm(torch.cat([values.unsqueeze(-1), covariates], dim=-1))[0])


class HiddenState(Causal):
    """Keeps a part of its state to itself: after a restart it is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: tuple[Tensor, Tensor] | None = None

    def step(self, values: Tensor, state: int | None) -> tuple[Tensor, int]:
        answer, self.kept = self.lstm(values[:, None, None], None if state is None else self.kept)
        return self.head(answer[:, 0]), 1


class TrainsAcrossTheBorder(Causal):
    """Trains at every origin up to the border, whose targets lie after it."""

    def training_origins(self, num_ticks: int, train_end: int) -> range:
        return range(train_end + 1)


class Constant(nn.Module):
    """Says the same whatever it reads."""

    def forward(self, values: Tensor) -> Tensor:
        return torch.zeros(*values.shape, HORIZON) + 0 * values.unsqueeze(-1)


class LastTickOnly(Causal):
    """Forecasts from the end of the window alone, which no law can ask about."""

    def forward(self, values: Tensor) -> Tensor:
        return super().forward(values)[:, -1]


class MixesSeries(Causal):
    """Subtracts the mean over the batch: a forecast depends on which other series are there."""

    def forward(self, values: Tensor) -> Tensor:
        return super().forward(values - values.mean(0))

    step = None


class CountsFromTheEnd(Causal):
    """Position encoding counted from the end of the sequence: no reading leaks, yet its length does."""

    def forward(self, values: Tensor) -> Tensor:
        return super().forward(values) + torch.arange(values.shape[1], 0, -1).unsqueeze(-1)

    step = None


class Raises(Causal):
    """Has a fault of its own."""

    def forward(self, values: Tensor) -> Tensor:
        return values[:, :, 0]


class Deaf(nn.Module):
    """Learns a forecast, the same whatever the readings."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = nn.Parameter(torch.zeros(HORIZON))

    def forward(self, values: Tensor) -> Tensor:
        return self.answer.expand(*values.shape, HORIZON)
