# SPDX-License-Identifier: BSD-2-Clause
"""What upstream's ptnet drivers do in each phase of their lives, and what a hostile one may do (netmap-abi 5b).

:mod:`.transcript` explains the lines. The name ``t`` is where TX ring 0 stands, ``r`` where RX ring 0 does.
"""

# The memdev's driver looks for the registers alone; the region is mapped when the first ptnet wants it.
PROBE_MEMDEV = """
config memdev ID = 0x000c1b36
read memdev MEMID = mem_id
"""

PROBE_PTNET = """
config ptnet ID = 0x000d1b36
config ptnet CLASS = 0x02000000
write ptnet PTFEAT 1                # wanted: VNET_HDR
read ptnet PTFEAT = features
read ptnet NUM_TX_RINGS = rings
read ptnet NUM_RX_RINGS = rings
"""

# Two pages, one for each writer; the high half first, as the low half makes the device take them.
GIVE_CSB = """
zero
write ptnet CSB_GH_BAH gh.hi
write ptnet CSB_GH_BAL gh.lo
write ptnet CSB_HG_BAH hg.hi
write ptnet CSB_HG_BAL hg.lo
"""

ATTACH = """
msix vectors                        # one per ring, TX rings first
read ptnet MAC_HI = 0x020a
read ptnet MAC_LO = 0x0b0c0d0e
read ptnet NIFP_OFS -> nifp
read ptnet NUM_TX_SLOTS = 1024
read ptnet NUM_RX_SLOTS = 1024
read ptnet HOSTMEMID = mem_id
read memdev MEMSIZE_LO = memsize.lo
read memdev MEMSIZE_HI = memsize.hi
read memdev IF_POOL_OFS = 0
read memdev IF_POOL_OBJNUM = if_objects
read memdev IF_POOL_OBJSZ = if_size
read memdev RING_POOL_OFS = ring_offset
read memdev RING_POOL_OBJNUM = ring_objects
read memdev RING_POOL_OBJSZ = ring_size
read memdev BUF_POOL_OFS = buf_offset
read memdev BUF_POOL_OBJNUM = buf_objects
read memdev BUF_POOL_OBJSZ = buf_size
served no
"""

# The host says where the rings stand, and asks for everything at first; the driver takes its indices from there.
UP = """
read ptnet NUM_TX_RINGS = rings
read ptnet NUM_RX_RINGS = rings
read ptnet NUM_TX_SLOTS = 1024
read ptnet NUM_RX_SLOTS = 1024
set * kern_need_kick 1
set tx* appl_need_kick 0
set rx* appl_need_kick 1
write ptnet VNET_HDR_LEN header
read ptnet VNET_HDR_LEN = header
write ptnet PTCTL 1                 # CREATE
read ptnet PTCTL = 0
served yes
see tx0 head -> t
see tx0 cur = t
see tx0 hwcur = t
see tx0 hwtail = t+1023
see rx0 head -> r
see rx0 cur = r
see rx0 hwcur = r
see rx* appl_need_kick = 1
see * sync_flags = 1
await tx* kern_need_kick = 1        # an RX ring asks for kicks only when it is out of free slots
"""

AT_FIRST = """
see * head = 0
see * cur = 0
see * hwcur = 0
see tx* hwtail = 1023
see rx* hwtail = 0
"""

SEND = """
set tx0 appl_need_kick 0
forget
see tx0 hwcur = t
fill tx0 t guest
set tx0 cur t+1                     # cur before head: the host reads them the other way round
set tx0 head t+1
see tx0 kern_need_kick = 1
kick tx0
await tx0 hwcur = t+1
await tx0 hwtail = t
host receives guest
await tx0 kern_need_kick = 1        # the kthread rests, and asks for the next kick
quiet tx0
"""

# cur reaches hwtail: the sync "would block", so that the driver wants to hear of space.
FILL_THE_RING = """
see tx0 hwtail = t
fill tx0 * guest
set tx0 appl_need_kick 1
set tx0 cur t
set tx0 head t
kick? tx0
irq tx0
await tx0 hwcur = t
await tx0 hwtail = t+1023
see tx0 appl_need_kick = 1          # unlike 2015, it is the driver that takes it back
set tx0 appl_need_kick 0
host receives guest 1023
await tx0 kern_need_kick = 1
forget                              # there may have been one interrupt for each part of the ring
"""

RECEIVE = """
set rx0 appl_need_kick 1
see rx0 hwtail = r
host sends host
irq rx0
see rx0 appl_need_kick = 1
set rx0 appl_need_kick 0
see rx0 hwtail = r+1
see rx0 hwcur = r
hold rx0 r host
set rx0 cur r+1
set rx0 head r+1
kick? rx0
await rx0 hwcur = r+1
host sends host                     # not asked for: no interrupt
await rx0 hwtail = r+2
quiet rx0
hold rx0 r+1 host
set rx0 cur r+2
set rx0 head r+2
set rx0 appl_need_kick 1            # would block: asked for, and looked at again
see rx0 hwtail = r+2
kick? rx0
await rx0 hwcur = r+2
"""

TRAFFIC = (SEND, FILL_THE_RING, RECEIVE)

DOWN = """
write ptnet PTCTL 2                 # DELETE
read ptnet PTCTL = 0
served no
"""

DETACH = """
write ptnet CSB_GH_BAH 0
write ptnet CSB_GH_BAL 0
write ptnet CSB_HG_BAH 0
write ptnet CSB_HG_BAL 0
served no
"""

AFTER_RESET = """
served no
read ptnet PTFEAT = 0
read ptnet PTCTL = 0
read ptnet VNET_HDR_LEN = 0
read ptnet CSB_GH_BAH = 0
read ptnet CSB_GH_BAL = 0
read ptnet CSB_HG_BAH = 0
read ptnet CSB_HG_BAL = 0
"""

# --- what no driver should do, in the order of a driver's life: what comes of it, before a driver that behaves

TOO_EARLY = """
kick tx0
kick rx0
write ptnet PTCTL 2
read ptnet PTCTL = 0
write ptnet PTCTL 1
read ptnet PTCTL = EINVAL           # no CSB
write ptnet CSB_GH_BAL gh.lo
write ptnet PTCTL 1
read ptnet PTCTL = EINVAL           # half of one
served no
"""

WRONG_PLACES = """
write ptnet CSB_GH_BAL gh.lo
write ptnet CSB_HG_BAH 0xffff       # far outside of its memory
write ptnet CSB_HG_BAL hg.lo
write ptnet PTCTL 1
read ptnet PTCTL = EFAULT
write ptnet CSB_HG_BAH 0
write ptnet CSB_HG_BAL 0x11004      # not aligned
write ptnet PTCTL 1
read ptnet PTCTL = EINVAL
served no
"""

WRONG_WORDS = """
write ptnet PTFEAT 0xffffffff
read ptnet PTFEAT = features        # what it does not know is not accepted
write ptnet VNET_HDR_LEN 11
read ptnet VNET_HDR_LEN = 0
write ptnet PTCTL 3
read ptnet PTCTL = EINVAL
write ptnet NUM_TX_RINGS 64
read ptnet NUM_TX_RINGS = rings
write ptnet HOSTMEMID 0
read ptnet HOSTMEMID = mem_id
write memdev MEMSIZE_LO 0
read memdev MEMSIZE_LO = memsize.lo
"""

UP_TWICE = """
write ptnet PTCTL 1
read ptnet PTCTL = EBUSY
served yes
"""

FORGED_HOST_INDICES = """
set * hwcur 77
set * hwtail 0xffffffff
set * kern_need_kick 0
fill tx0 t guest
set tx0 cur t+1
set tx0 head t+1
kick tx0
await tx0 hwcur = t+1               # the host goes by its own, and writes them over the guest's
await tx0 hwtail = t
host receives guest
"""

WRONG_INDICES = """
set * appl_need_kick 0xffffffff
set * sync_flags 0xffffffff
set tx0 cur 0x80000000
set tx0 head 0xffffffff
kick tx0
set rx0 head 1024
kick rx0
"""

CLEARED_CSB = """
zero
kick tx0
kick rx0
"""

CSB_TAKEN_AWAY = """
write ptnet CSB_GH_BAH 0
write ptnet CSB_GH_BAL 0            # stops the loop
served no
kick tx0
kick rx0
"""

HEADER_WHILE_UP = """
write ptnet VNET_HDR_LEN 12
write ptnet VNET_HDR_LEN 0
read ptnet VNET_HDR_LEN = 0
served yes
"""

AFTER_DOWN = """
write ptnet PTCTL 2
read ptnet PTCTL = 0
set tx0 cur t+5
set tx0 head t+5
kick tx0
kick rx0
see tx0 hwcur = t                   # nobody looks
"""

LOAD = (PROBE_MEMDEV, PROBE_PTNET, GIVE_CSB, ATTACH)
