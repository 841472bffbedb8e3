"""The name of a series says which device and which metric it is of, and no two pairs share a name."""

import polars as pl
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.store.identity import device_and_metric, series_id, series_id_of, with_series_id

name = st.text(alphabet="ab/%25F", min_size=1, max_size=12)


def named(*pairs):
    return pl.DataFrame(pairs, schema={"device_id": pl.String, "metric": pl.String}, orient="row")


@given(device=name, metric=name)
@example(device="a", metric="%252F/%25%2F")
def test_a_name_says_its_device_and_its_metric(device, metric):
    """So two pairs never share one. Shown to fail by writing out the slash alone: %2F and a slash are then the same metric."""
    names = named((device, metric)).select(series_id())
    assert names.select(device_and_metric("series_id")).row(0) == (device, metric)
    assert names.item() == series_id_of(device, metric) == with_series_id(named((device, metric)))["series_id"][0]


def test_a_device_may_have_slashes_and_most_metrics_are_named_as_they_are():
    pairs = named(("a/b", "c"), ("a", "b/c"), ("a", "humidity (%)"), ("a", None))
    assert with_series_id(pairs)["series_id"].to_list() == ["a/b/c", "a/b%2Fc", "a/humidity (%)", None]
