# SPDX-License-Identifier: BSD-2-Clause
from ptnetmap.netmap.nic.program import redirect_program


def test_the_program_is_six_instructions_that_look_the_queue_up_in_the_map():
    # As llvm-mc -triple bpfel assembles r2 = *(u32 *)(r1 + 16); r1 = 0x1234 ll; r3 = 2; call 51; exit,
    # with the source register of the second set to BPF_PSEUDO_MAP_FD.
    expected = "6112100000000000 1811000034120000 0000000000000000 b703000002000000 8500000033000000 9500000000000000"
    assert redirect_program(0x1234).tobytes() == bytes.fromhex(expected)
