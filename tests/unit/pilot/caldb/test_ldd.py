"""What ldd(1) says of a server, for a snapshot that takes it along."""

from __future__ import annotations

import pytest

from pilot.caldb.template import BadSnapshot, parse_ldd

TOLD = """\
	linux-vdso.so.1 (0x00007f50a1ffa000)
	libz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f509fc65000)
	libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f509f41e000)
	/lib64/ld-linux-x86-64.so.2 (0x00007f50a1ffc000)
"""


def test_libraries_and_the_loader_are_named():
    loader, libraries = parse_ldd(TOLD)
    assert loader == "/lib64/ld-linux-x86-64.so.2"
    assert libraries == {
        "libz.so.1": "/lib/x86_64-linux-gnu/libz.so.1",
        "libc.so.6": "/lib/x86_64-linux-gnu/libc.so.6",
    }


def test_a_library_that_is_not_found_is_an_error():
    with pytest.raises(BadSnapshot, match=r"liburing\.so\.2 => not found"):
        parse_ldd("\tliburing.so.2 => not found\n")


def test_a_server_that_is_no_dynamic_program_has_no_loader():
    assert parse_ldd("\tnot a dynamic executable\n") == (None, {})
