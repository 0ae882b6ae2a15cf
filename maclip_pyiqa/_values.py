"""Checks of single values that functions are given: whole numbers, numbers and flags, of Python or NumPy.

Imports neither NumPy nor torch, so that the command line can check options before they are loaded.
"""

from __future__ import annotations

import math
import operator
from typing import Any


def integer(name: str, value: Any, least: int = 1) -> int:
    """A whole number of at least `least`, as an int; TypeError or ValueError for anything else."""
    try:
        if str(getattr(value, 'dtype', type(value).__name__)).endswith('bool'):
            raise TypeError
        count = operator.index(value)
    except TypeError:
        raise TypeError(f'{name}={value!r}; expected a whole number') from None
    if count < least:
        raise ValueError(f'{name}={value}; expected at least {least}')
    return count


def number(name: str, value: Any) -> float:
    """A finite number, as a float; TypeError or ValueError for anything else, also for a tensor, whose gradient would
    be lost."""
    kind = getattr(getattr(value, 'dtype', None), 'kind', '')  # of NumPy: torch's dtypes have none
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not plain and (kind not in ('i', 'u', 'f') or value.ndim):
        raise TypeError(f'{name}={value!r}; expected a number')
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not -1e300 < result < 1e300:  # false for NaN too
        raise ValueError(f'{name}={value!r}; expected a finite number')
    return result + 0.0  # no -0.0


def flag(name: str, value: Any) -> bool:
    """True or False, as a bool; TypeError for anything else."""
    if not isinstance(value, bool) and getattr(getattr(value, 'dtype', None), 'kind', '') != 'b':
        raise TypeError(f'{name}={value!r}; expected True or False')
    return bool(value)
