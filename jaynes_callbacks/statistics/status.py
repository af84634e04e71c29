"""Outcome of a fit: one code per stream instead of an exception in the midst of training."""

from enum import IntEnum

__all__ = ["Status"]


class Status(IntEnum):
    """Outcome of one stream's fit; a record's status column shows its `reason`."""

    CONVERGED = 0
    EMPTY = 1
    TOO_FEW_BINS = 2
    AT_BOUND = 3
    NOT_CONVERGED = 4
    SKEW_OUT_OF_RANGE = 5
    NO_INTERIOR_OPTIMUM = 6

    @property
    def reason(self) -> str:
        """Describe the outcome in one phrase."""
        return _REASONS[self]


_REASONS = {
    Status.CONVERGED: "ok",
    Status.EMPTY: "no finite non-zero value in float32's range",
    Status.TOO_FEW_BINS: "too few occupied bins",
    Status.AT_BOUND: "fit ended at a bound",
    Status.NOT_CONVERGED: "fit did not converge",
    Status.SKEW_OUT_OF_RANGE: "skewness of ln w outside (-2, 2)",
    Status.NO_INTERIOR_OPTIMUM: "no interior optimum",
}
