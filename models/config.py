"""What a causal stacked LSTM is made of: one frozen object, saved beside the weights as JSON.

Called by `pipeline.settings` (which embeds the choices), by `models.forecaster` and by whoever loads a saved model.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

BIDIRECTIONAL_REFUSED = (
    "A forecaster requires layers that read the target forward in time only; got bidirectional=True. "
    "The backward direction at time t has read the readings after t, which do not exist yet when the forecast is issued: "
    "validation looks excellent, the live score does not, and no state can be carried (measured in docs/causality.md). "
    "Use bidirectional=False. Both directions are honest over closed windows: models.offline.SequenceClassifier labels them, and "
    "pipeline.offline.fill.fill_history, or `tidecast fill`, does gap filling in history for reports."
)


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The choices a user makes about the network; counts are ticks.

    Attributes:
        cell: recurrent cell of every layer.
        num_layers: depth of the stack.
        hidden_size: width of every layer.
        wiring: `residual` is pre-norm, y_l = y_{l-1} + Dropout(LSTM_l(Norm(y_{l-1}))); `plain` is the textbook stack,
            the hidden state of layer l-1 at time t is the input of layer l at time t, dropout between layers.
        input_skips: feed the step's inputs to every layer too (Graves 2013).
        dropout: on the output of each layer but the last (plain) or on each residual branch (residual), and on what the decoder reads.
        bidirectional: refused when True; here so that the refusal can explain itself.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    cell: Literal["lstm", "gru"] = "lstm"
    num_layers: int = 2
    hidden_size: int = 64
    wiring: Literal["residual", "plain"] = "residual"
    input_skips: bool = False
    dropout: float = 0.3
    bidirectional: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be a causal stack, naming the field.

        Raises:
            ValueError: with the sentence to show the user.
        """
        if self.bidirectional:
            raise ValueError(BIDIRECTIONAL_REFUSED)
        if self.cell not in ("lstm", "gru") or self.wiring not in ("residual", "plain"):
            raise ValueError(f"A network requires cell lstm|gru and wiring residual|plain; got {self.cell!r} and {self.wiring!r}.")
        if self.num_layers < 1 or self.hidden_size < 1:
            raise ValueError(f"A network requires num_layers >= 1 and hidden_size >= 1; got {self.num_layers} and {self.hidden_size}.")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"A network requires 0 <= dropout < 1; got {self.dropout}.")


@dataclass(frozen=True, kw_only=True)
class ForecasterConfig:
    """Everything that decides what a saved model computes, apart from its weights.

    Attributes:
        sample_interval_s: grid spacing in seconds (calendar features need it).
        horizon: steps forecast from every origin.
        context_length: last ticks read by the autoregressive highway.
        seasons: lags in ticks of the seasonal anchors, ascending (a day and a week of hourly data: 24, 168).
        half_lives: of the normalisers in ticks, slowest first; the first scales inputs and targets, the others are features.
        quantile_levels: ascending, inside (0, 1), with 0.5 among them.
        network: the recurrent stack.
        calendar: whether time of day, week and year are read; False where ticks are no instants.
        past_covariates: what is measured when the target is, by name, in the order of `models.batch.Covariates`; read forward only.
        future_covariates: what is known a whole horizon ahead (schedules, tariffs, weather forecasts), likewise.
        static_covariates: what is known of a series and does not change, likewise.
    """

    sample_interval_s: float
    horizon: int = 24
    context_length: int = 168
    seasons: tuple[int, ...] = ()
    half_lives: tuple[float, ...] = (336.0, 24.0)
    quantile_levels: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    calendar: bool = True
    past_covariates: tuple[str, ...] = ()
    future_covariates: tuple[str, ...] = ()
    static_covariates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse impossible numbers, and covariates named twice.

        Raises:
            ValueError: with the sentence to show the user.
        """
        if self.sample_interval_s <= 0 or self.horizon < 1 or self.context_length < 1:
            raise ValueError(
                "A forecaster requires sample_interval_s > 0, horizon >= 1 and context_length >= 1; got "
                f"{self.sample_interval_s}, {self.horizon} and {self.context_length}."
            )
        levels = self.quantile_levels
        if 0.5 not in levels or list(levels) != sorted(set(levels)) or levels[0] <= 0 or levels[-1] >= 1:
            raise ValueError(f"A forecaster requires ascending quantile_levels inside (0, 1) with 0.5; got {levels}.")
        if any(season < 2 for season in self.seasons) or list(self.seasons) != sorted(set(self.seasons)):
            raise ValueError(f"A forecaster requires ascending seasons of at least 2 ticks; got {self.seasons}.")
        if not self.half_lives or any(half_life <= 0 for half_life in self.half_lives):
            raise ValueError(f"A forecaster requires at least one positive half-life; got {self.half_lives}.")
        for names in self.covariate_names:
            if len(set(names)) < len(names):
                raise ValueError(f"A forecaster requires covariates that are named once; got {names}.")

    @property
    def covariate_names(self) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        """Past, known-future and static covariates."""
        return self.past_covariates, self.future_covariates, self.static_covariates

    @property
    def has_covariates(self) -> bool:
        """Whether anything but the target is read."""
        return any(self.covariate_names)

    @property
    def history_length(self) -> int:
        """Ticks before the current one that a step reads directly: the longest season or the highway."""
        return max((self.context_length - 1, *self.seasons, 1))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form, as `from_dict` reads it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "ForecasterConfig":
        """Rebuild a configuration from its JSON form; what an older one does not name has its default."""
        fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
        return cls(**{**fields, "network": NetworkConfig(**fields["network"])})
