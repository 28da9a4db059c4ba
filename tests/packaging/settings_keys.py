"""The keys of Postern's files, as the sources that read them have them."""
import re

READERS = {
    "postern.toml": ("host/config/config.cpp", "transport/service/service-target.cpp"),
    "agent.toml": ("guest-agent/settings/settings.cpp", "guest-agent/settings/services-settings.cpp",
                   "transport/service/service-target.cpp"),
    "postern-policy": ("protocol/policy/grammar.cpp", "protocol/policy/grammar-parts.cpp",
                       "protocol/policy/grammar-expectation.cpp"),
}


def read_by(source):
    text = source.read_text()
    keys = set(re.findall(r'(?:(?:reader|inner|table)\.(?!refuse)\w+|readName|required|readUnit)\((?:table, )?"([a-z-]+)"', text))
    listed = re.search(r"\bKEYS\[\] =(.*?);", text, re.DOTALL)
    return keys | set(re.findall(r'"([a-z-]+)"_kj', listed[1]) if listed else ())


def known(sources, name):
    """Each key of the file, and which source reads it."""
    for source in READERS[name]:
        keys = read_by(sources / source)
        assert len(keys) > 2, source
        for key in sorted(keys):
            yield key, source
