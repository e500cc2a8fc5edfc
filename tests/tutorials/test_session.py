# SPDX-License-Identifier: BSD-2-Clause
import pytest

from tests.tutorials.session import Shown, Typed, is_open, is_whole, matches, parse, plain

DOCUMENT = """\
Words.

```sh
# terminal 1
netmapd --foreground
```

```text
... listens ...
```

```sh
# terminal 2
touch file
```

```sh
# terminal 2
qemu
```

```text
guest#
```

```sh
# terminal 2, in the guest
uname
```

```text
Linux
$
```

```sh
# terminal 1
^C
```

```text
...
```

```text
# terminal 2
more
```
"""


def test_a_document_is_what_is_typed_and_shown_in_order():
    assert parse(DOCUMENT) == [
        Typed(3, 1, "netmapd --foreground\n"),
        Shown(8, 1, "... listens ...\n"),
        Typed(12, 2, "touch file\n"),
        Shown(12, 2, "", ends=True),
        Typed(17, 2, "qemu\n"),
        Shown(22, 2, "guest#\n"),
        Typed(26, 2, "uname\n", inside=True),
        Shown(31, 2, "Linux\n", ends=True),
        Typed(36, 1, "^C\n", inside=True),
        Shown(41, 1, "...\n"),
        Shown(45, 2, "more\n"),
    ]


def test_what_is_typed_last_and_shows_nothing_comes_to_its_end():
    assert parse("```sh\n# terminal 3\nrm file\n```\n")[-1] == Shown(1, 3, "", ends=True)


def test_programs_are_left_to_others():
    assert parse("```python\nprint(1)\n```\n\nprints\n\n```\n1\n```\n") == []


@pytest.mark.parametrize(
    "document",
    [
        "```sh\nls\n```\n",
        "```text\nnothing was typed\n```\n",
        "```sh\n# terminal 1\nls\n```\n```text\n```\n",
        "```\nls\n```\n",
        "```console\n# terminal 1\nls\n```\n",
        "```sh\n# terminal 1\nls\n```\n\n```\nfile\n```\n",
    ],
)
def test_a_block_that_would_not_be_followed_is_refused(document):
    with pytest.raises(ValueError, match="line "):
        parse(document)


@pytest.mark.parametrize(
    ("expected", "shown"),
    [
        ("a b\nc", "a b\nc\n"),
        ("a b", "\n  a    b  \n\n"),
        ("a=... b", "a=1 b"),
        ("a=... b", "a= b"),
        ("...\nb", "a\na\nb"),
        ("...\nb", "b"),
        ("a\n...\nb", "a\nb"),
        ("a\n...", "a\n1\n2"),
        ("...", ""),
        ("", "\n"),
        ("[1] (x*)", "[1] (x*)"),
    ],
)
def test_anything_and_blanks_match(expected, shown):
    assert matches(expected, shown)


@pytest.mark.parametrize(
    ("expected", "shown"),
    [
        ("a", "b"),
        ("a", "a\nb"),
        ("a\nb", "a"),
        ("a=... b", "a=1 c"),
        ("a=... b", "a=1\n b"),
        ("a...", "a\nb"),
        ("...\nb", "a\nbb"),
        ("a b", "ab"),
        ("", "a"),
        ("a.c", "abc"),
    ],
)
def test_whatever_else_is_different_does_not_match(expected, shown):
    assert not matches(expected, shown)


def test_more_may_follow_only_a_line_of_dots():
    assert [is_open(text) for text in ("...", "a\n...\n", "a...", "", "...\na")] == [True, True, False, False, False]


def test_what_ends_in_dots_is_not_whole_before_its_line_is():
    assert [is_whole(text) for text in ("a\n...", "a", "a=...", "a=... b")] == [True, True, False, False]


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("a\r\nb\r\n", "a\nb\n"),
        ("\x1b[1;32mgreen\x1b[0m\r\n", "green\n"),
        ("\r\x1b[K1 packet\r\x1b[K2 packets\r\x1b[Kall\r\n", "all\n"),
        ("guest# \x1b[6n", "guest#"),
        ("\x1b]0;title\x07text", "text"),
        ("ptnetmap: starting netmapd, and so on (half a minute) ... 1 s\r\nready\r\n", "ready\n"),
        ("one\r\nbhyve: building the built-in guest, once (some seconds) ...\r\ntwo", "one\ntwo"),
        ("ptnetmap: compiling the runtime's kernels, once (about half a minute) ...", ""),
        ("ptnetmap: something else\r\n", "ptnetmap: something else\n"),
    ],
)
def test_what_a_terminal_shows_is_plain_text(raw, shown):
    assert plain(raw) == shown
