"""Training warns of an objective that leaves out an absent class, whichever metric it is."""

from hypothesis import given
from hypothesis import strategies as st

from segsweep.absent_classes import MEANS, objective_warning, rests_on

METRICS = ("loss", "accuracy", *MEANS, "iou/sky", "iou/sea")


@given(st.sampled_from(METRICS), st.sets(st.sampled_from(("sky", "sea"))), st.sampled_from(("binary", "multiclass")))
def test_an_objective_is_warned_of_unless_it_is_of_a_class_that_is_there(metric: str, absent: set[str], kind: str):
    warning = objective_warning(f"val/{metric}", sorted(absent), kind)
    of_another = metric.startswith("iou/") and metric.removeprefix("iou/") not in absent
    assert (warning is None) == (not absent or of_another)
    if warning is not None:
        assert f"objective=val/{metric}: " in warning
        assert all(name in warning for name in absent)


@given(st.sampled_from(METRICS))
def test_no_number_is_marked_where_every_class_is_there(metric: str):
    assert not rests_on(metric, ())
