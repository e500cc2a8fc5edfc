# SPDX-License-Identifier: BSD-2-Clause
from hypothesis import settings

# No test asserts a time, and no property does either: machines that run tests are busy.
settings.register_profile("ptnetmap", deadline=None)
settings.load_profile("ptnetmap")
