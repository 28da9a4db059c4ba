"""Rounds: every contender once a round, so that what the machine does meanwhile meets all of them."""

from .report import Sample

GB = 1e9


def interleave(setting, section, unit, contenders):
    """`contenders`: name -> function that makes one copy and gives its Sample. Each round begins with another one."""
    names = list(contenders)
    for number in range(setting.runs):
        first = number % len(names) if names else 0
        for name in names[first:] + names[:first]:
            section.add(name, unit, contenders[name]())


def fastest(tried, section):
    """Which scp is to be measured with: `tried` is cipher -> Sample of one copy. The notes say what came of it."""
    values = ", ".join(f"{cipher} {sample.value:.3g} MB/s" for cipher, sample in tried.items())
    section.notes.append(f"scp's ciphers, each tried once: {values}")
    return max(tried, key=lambda cipher: tried[cipher].value)


def speed(byte_count, seconds, host_cpu=None, guest_cpu=None):
    """MB/s, and CPU a GB."""

    def a_gb(cpu):
        return None if cpu is None else cpu / byte_count * GB

    return Sample(byte_count / 1e6 / seconds, a_gb(host_cpu), a_gb(guest_cpu))
