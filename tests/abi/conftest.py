# SPDX-License-Identifier: BSD-2-Clause
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


def read_layout(dtype: np.dtype[Any]) -> dict[str, tuple[int, int]]:
    return {name: (dtype.fields[name][1], dtype.fields[name][0].itemsize) for name in dtype.names}


@pytest.fixture
def layout() -> Callable[[np.dtype[Any]], dict[str, tuple[int, int]]]:
    """Read a structured type as {field: (offset, size)}."""
    return read_layout
