# SPDX-License-Identifier: BSD-2-Clause
"""The other end of netmapd's socket: finding and starting the daemon, and ports that it serves."""
