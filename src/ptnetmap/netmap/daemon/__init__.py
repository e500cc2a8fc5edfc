# SPDX-License-Identifier: BSD-2-Clause
"""netmapd: the process that owns regions, switches and pipes for all others.

How it comes into being and goes, whatever it serves: place (which socket), locks (one daemon per socket), spawn and
readiness (starting it from a client, and hearing how that went), listener (the socket itself), lifetime (when to leave),
startup (all of these in order, around the server).
"""
