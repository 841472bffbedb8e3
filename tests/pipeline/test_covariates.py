"""What a panel's covariates promise: rows that are the panel's rows, nothing where nothing is known, one column for each name."""

import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.prepare.covariates import CovariateNames, PanelCovariates, require_names

NAMES = CovariateNames(("wind",), ("tariff",), ("area", "kind=pump"))
PAST_TBP = np.arange(8.0).reshape(4, 2, 1)
FUTURE_SBU = np.arange(12.0).reshape(6, 2, 1)
COVARIATES = PanelCovariates(NAMES, PAST_TBP, FUTURE_SBU, np.array([[1.0, 0.0], [2.0, 1.0]]))


def test_a_window_has_the_rows_asked_for_and_a_horizon_more_of_the_plan() -> None:
    past_TBP, future_SBU, static_BJ = COVARIATES.window(1, 3, horizon=2)
    np.testing.assert_array_equal(past_TBP, PAST_TBP[1:3])
    np.testing.assert_array_equal(future_SBU, FUTURE_SBU[1:5])
    assert static_BJ.shape == (2, 2)


def test_rows_that_are_not_there_are_not_known() -> None:
    """Shown to fail by letting a negative row count from the end."""
    early_TBP, _, _ = COVARIATES.window(-1, 2, horizon=0)
    np.testing.assert_array_equal(early_TBP[1:], PAST_TBP[:2])
    past_TBP, future_SBU, _ = COVARIATES.window(-2, 5, horizon=3)
    assert (len(past_TBP), len(future_SBU)) == (7, 10)
    assert np.isnan(past_TBP[[0, 1, 6]]).all()
    np.testing.assert_array_equal(past_TBP[2:6], PAST_TBP)
    np.testing.assert_array_equal(future_SBU[2:8], FUTURE_SBU)
    assert np.isnan(future_SBU[8:]).all()


def test_the_first_rows_of_each_series_know_nothing_of_what_comes_after() -> None:
    cut = COVARIATES.first_rows(np.array([3, 1]))
    np.testing.assert_array_equal(cut.past_TBP[:, 0, 0], PAST_TBP[:3, 0, 0])
    np.testing.assert_array_equal(np.isnan(cut.past_TBP[:, 1, 0]), [False, True, True])
    assert len(cut.future_SBU) == 3


def test_columns_are_those_of_the_series() -> None:
    one = COVARIATES.columns([1])
    np.testing.assert_array_equal(one.past_TBP, PAST_TBP[:, [1]])
    np.testing.assert_array_equal(one.static_BJ, [[2.0, 1.0]])


def test_names_tell_inputs_and_attributes() -> None:
    assert NAMES.metrics == {"wind", "tariff"}
    assert CovariateNames(static=("kind=pump", "area", "kind=fan")).attributes == ("kind", "area")


def test_an_array_without_a_column_for_each_name_is_refused() -> None:
    with pytest.raises(DataError, match="a column for each of"):
        PanelCovariates.of_past(("wind", "rain"), PAST_TBP)


@pytest.mark.parametrize("wanted", [((), (), ()), (("rain",), ("tariff",), NAMES.static)], ids=str)
def test_a_forecaster_refuses_covariates_that_are_not_its_own(wanted: tuple[tuple[str, ...], ...]) -> None:
    require_names(COVARIATES, NAMES)
    with pytest.raises(DataError, match="This forecaster requires"):
        require_names(COVARIATES, wanted)
