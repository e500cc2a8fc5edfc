# SPDX-License-Identifier: BSD-2-Clause
"""What the programs do, without their command lines: generating, bridging, balancing, capturing and replaying packets."""
