"""NumPy's products of matrices: one thread each. Stage: process."""

from __future__ import annotations

from threadpoolctl import threadpool_limits


def compute_in_one_thread() -> None:
    """Has the libraries for products (BLAS) that are loaded by now compute in the thread that asks.

    What tasks prepare is small, and many callers have it prepared at once. OpenBLAS's other threads look for more work
    for tens of milliseconds after each product, on the cores on which models run: three tenths of the CPU time of a
    service that recognized speech were that.
    """
    threadpool_limits(1, user_api="blas")
