# SPDX-License-Identifier: BSD-2-Clause
import pytest

pytestmark = pytest.mark.nest

INSIDE = """
echo to standard output
echo to standard error >&2
echo "$GREETING"
pwd
test -c /dev/kvm && echo kvm
echo changed >"$OUTSIDE" && cat "$OUTSIDE"
sleep 1000 &
exit 7
"""


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    file = tmp_path_factory.mktemp("outside") / "file"
    file.write_text("as it was\n")
    return file


@pytest.fixture(scope="module")
def done(nest, outside):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GREETING", "it's $HOME\n  and more")
        patch.setenv("OUTSIDE", str(outside))
        return nest("sh", "-c", INSIDE)


def test_command_runs_in_the_same_place_with_kvm_and_the_same_environment(done, request):
    words = ["to standard output", "it's $HOME", "  and more", str(request.config.rootpath), "kvm", "changed"]
    assert done.stdout.splitlines() == words


def test_standard_error_and_exit_status_come_back(done):
    assert (done.stderr, done.returncode) == ("to standard error\n", 7)


def test_nothing_written_inside_comes_back(done, outside):
    assert outside.read_text() == "as it was\n"


def test_out_of_time_is_an_exit_status_of_its_own(nest):
    done = nest("--seconds=0.5", "true")
    assert done.returncode == 124
    assert "out of time" in done.stderr


def test_tests_with_a_marker_run_inside(nest):
    done = nest("-m", "kvm", "--collect-only", "-q", "tests/vmm")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "deselected" in done.stdout


def test_nothing_to_run_is_refused_with_what_could_be(nest):
    done = nest()
    assert done.returncode == 2
    assert "either a COMMAND, -m MARKER, --kernel or --initramfs" in done.stderr


def test_modules_load_after_what_they_depend_on(initramfs):
    lines = [line for line in initramfs.read_bytes().split(b"\n") if line.startswith(b"/lib/") and line.isascii()]
    order = [line.decode().removeprefix("/lib/").removesuffix(".ko") for line in lines]
    assert order.index("virtio") < order.index("virtio_pci") < order.index("virtio_blk")
    assert order.index("virtio_ring") < order.index("virtio-rng")
