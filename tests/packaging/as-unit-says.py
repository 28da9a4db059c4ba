#!/usr/bin/python3
"""Runs a unit's program under what the unit takes away, where there is no systemd to do it: user, capabilities, new
privileges, system calls and address families. Folders and devices are left as they are.

usage: as-unit-says.py UNIT-FILE [arguments of the program]
"""
import ctypes
import os
import re
import subprocess
import sys

ALLOW, ERRNO_EPERM = 0x7FFF0000, 0x00050001
PR_SET_NO_NEW_PRIVS = 38
SCMP_CMP_EQ = 4


class Compare(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def read_unit(path):
    settings = {}
    with open(path) as file:
        for line in file:
            found = re.match(r"([A-Za-z]+)=(.*)", line)
            if found:
                settings.setdefault(found[1], []).append(found[2].strip())
    return settings


def groups_of_calls():
    out = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True).stdout
    groups, current = {}, None
    for line in out.splitlines():
        if line.startswith("@"):
            current = groups.setdefault(line.split()[0], [])
        elif current is not None and line.strip() and not line.strip().startswith("#"):
            current.append(line.strip())
    return groups


def calls_of(name, groups):
    if not name.startswith("@"):
        return {name}
    return set().union(*(calls_of(member, groups) for member in groups[name]))


def allowed_calls(lines):
    """As systemd has it: the first line is a list of what is allowed, later ones add or, with ~, take away."""
    groups = groups_of_calls()
    allowed = calls_of("@default", groups)
    for line in lines:
        named = set().union(*(calls_of(word, groups) for word in line.lstrip("~").split()))
        allowed = allowed - named if line.startswith("~") else allowed | named
    # systemd never takes away what a process needs to be started and to end.
    return allowed | calls_of("@default", groups) | {"execve"}


def enter_filter(calls, families):
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    context = ctypes.c_void_p(library.seccomp_init(ERRNO_EPERM))
    by_family = {library.seccomp_syscall_resolve_name(b"socket")}
    for call in sorted(calls):
        number = library.seccomp_syscall_resolve_name(call.encode())
        if number >= 0 and number not in by_family:
            assert library.seccomp_rule_add(context, ctypes.c_uint32(ALLOW), number, 0) == 0, call
    for family in families:
        compare = Compare(0, SCMP_CMP_EQ, family, 0)
        for number in by_family:
            library.seccomp_rule_add_array(context, ctypes.c_uint32(ALLOW), number, 1, ctypes.byref(compare))
    assert library.seccomp_load(context) == 0, "the filter cannot be loaded"


FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16, "AF_VSOCK": 40}


def main():
    unit = read_unit(sys.argv[1])
    command = [*unit["ExecStart"][0].split(), *sys.argv[2:]]
    if os.environ.get("POSTERN_FILTERED") != "yes":
        bounds = ",".join(["-all", *("+" + name.removeprefix("CAP_").lower()
                                      for name in " ".join(unit["CapabilityBoundingSet"]).split())])
        setpriv = ["setpriv", f"--bounding-set={bounds}", "--no-new-privs"]
        if "User" in unit:
            user, group = unit["User"][0], unit["Group"][0]
            setpriv += [f"--reuid={user}", f"--regid={group}", "--clear-groups", "--inh-caps=-all"]
        os.environ["POSTERN_FILTERED"] = "yes"
        os.execvp("setpriv", [*setpriv, "/usr/bin/python3", *sys.argv])
    del os.environ["POSTERN_FILTERED"]
    families = [FAMILIES[name] for name in unit["RestrictAddressFamilies"][0].split()]
    os.umask(int(unit.get("UMask", ["0022"])[0], 8))
    enter_filter(allowed_calls(unit["SystemCallFilter"]), families)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
