# SPDX-License-Identifier: BSD-2-Clause
"""The other side of each protocol, for tests: of this package, and of what is built on it.

These are drivers and peers that behave, and that misbehave on request. Nothing else of the package imports them.
"""

from ptnetmap.testing.packedqueue import PackedDriver
from ptnetmap.testing.virtqueue import MockDriver, Used

__all__ = ["MockDriver", "PackedDriver", "Used"]
