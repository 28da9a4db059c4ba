"""KVM where it works, emulation elsewhere."""

import os
import re


def usable_accelerator():
    """"kvm" or "tcg". $POSTERN_VM_ACCEL overrides.

    A device node is not enough: inside another VM /dev/kvm may exist while no guest gets past its firmware. So KVM
    counts only with the processor's flag, and QEMU still falls back to emulation when it cannot open the device.
    """
    chosen = os.environ.get("POSTERN_VM_ACCEL")
    if chosen:
        return chosen
    with open("/proc/cpuinfo") as cpuinfo:
        has_flag = re.search(r"^flags\s*:.*\b(svm|vmx)\b", cpuinfo.read(), re.MULTILINE)
    return "kvm" if has_flag and os.access("/dev/kvm", os.R_OK | os.W_OK) else "tcg"


def accelerator_arguments(name):
    fallback = ["-accel", "tcg"] if name == "kvm" else []
    return ["-accel", name, *fallback, "-cpu", "max"]
