"""Ends of another version: a guest or a host that is older or newer than this one, with the real programs at the other end.

usage: skew-test.py HOST-PROGRAMS-FOLDER AGENT HOSTILE-GUEST HOSTILE-CALLER [unittest arguments]

The other version's schema is made here from protocol/guest.capnp, by what PROTOCOL.md lets a later version do (fields at the
end, methods, enumerants), and by taking the newest away. skewed-guest and skewed-host speak it; both announce versions 1 to 2
and every feature bit.
"""
import os
import socket
import sys
import unittest

import lab as labs

PROGRAMS = labs.Programs(*sys.argv[1:5])
SOURCE = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
LATER = "laterText @{0} :Text; laterNumber @{1} :UInt64;"
NEWER = {
    "suggestion @3 :Text;": "suggestion @3 :Text; " + LATER.format(4, 5),
    "inhibited @6;": "inhibited @6; laterReason @7;",
    "callsFor @0 (caller :Caller) -> (calls :GuestCalls);":
        "callsFor @0 (caller :Caller, laterText :Text) -> (calls :GuestCalls, laterText :Text);"
        "later @2 (laterText :Text) -> (laterText :Text);",
    "ping @0 () -> (refusal :Refusal);": "ping @0 (laterText :Text) -> (refusal :Refusal, laterText :Text);",
    "-> (info :Info, refusal :Refusal);": "-> (info :Info, refusal :Refusal, laterText :Text);",
    "-> (services :List(Text), refusal :Refusal);":
        "-> (services :List(Text), refusal :Refusal, laterText :Text); later @6 (laterText :Text) -> (laterText :Text);",
    "features @5 :List(Text);": "features @5 :List(Text); " + LATER.format(6, 7),
    "heartbeat @0 Heartbeat -> (intervalMilliseconds :UInt32);":
        "heartbeat @0 Heartbeat -> (intervalMilliseconds :UInt32, laterText :Text); later @3 (laterText :Text) -> ();",
    "agentVersion @14 :Text;": "agentVersion @14 :Text; " + LATER.format(15, 16),
}
OLDER = {
    "  rekey @1 (hostPublicKey :Data, token :Data) -> (refusal :Refusal);": "",
    "  file @3 (order :Transfer.FileOrder, channel :UInt32, credit :UInt32) -> (refusal :Refusal, problem :Transfer.Problem);": "",
    "  connect @4 (service :Text, channel :UInt32, credit :UInt32) -> (refusal :Refusal);": "",
    "  services @5 () -> (services :List(Text), refusal :Refusal);": "",
    "  connect @2 (to :Text, service :Text, channel :UInt32, credit :UInt32) -> (refusal :Refusal);": "",
    "  inhibited @6;": "",
    "policyHash @13 :Data;": "",
    "agentVersion @14 :Text;": "",
}
# What the oldest guest does not know.
CALLS = (("services", "web1"), ("connect", "web1", "http"), ("ls", "web1:/srv"), ("cp", "/etc/hostname", "web1:/srv/x"),
         ("cp", "web1:/srv/x", "/dev/null"), ("mkdir", "web1:/srv/d"), ("rm", "web1:/srv/x"))


def write_schema(folder, edits):
    """This version's schema, edited; gives its path."""
    with open(os.path.join(SOURCE, "protocol/guest.capnp")) as file:
        text = file.read()
    for old, new in edits.items():
        assert text.count(old) == 1, f"{old} is there {text.count(old)} times"
        text = text.replace(old, new)
    path = os.path.join(folder, "guest.capnp")
    with open(path, "w") as file:
        file.write(text)
    return path


def program(name):
    return os.path.join(os.path.dirname(PROGRAMS.hostile), name)


class SkewTest(unittest.TestCase):
    def setUp(self):
        self.lab = labs.Lab(PROGRAMS)
        self.addCleanup(self.lab.close)

    # A guest of another version, with the real host ------------------------------------------------------------------

    def start_guest(self, edits):
        self.lab.start_posternd()
        grants = "ping,info,service.http,file:/srv"
        guest = self.lab.enroll("web1", None, grants)
        self.other = self.lab.start("other", [program("skewed-guest"), write_schema(self.lab.folder, edits), SOURCE, guest.bundle,
                                              guest.connect.removeprefix("unix:")])
        self.lab.green("web1")

    def speaks_with_it(self):
        self.assertIn("enrolled, features 0", self.other.said())
        self.lab.good("ping", "web1", "-c", "3")
        self.lab.good("info", "web1")
        before = self.lab.sequence("web1")
        labs.wait_until(lambda: self.lab.sequence("web1") >= before + 3, "heartbeats")
        vm = self.lab.vm("web1")
        self.assertEqual((vm["sessions"], vm["status"]["state"]), (1, "green"), vm)

    def test_a_newer_guest_is_spoken_with_and_what_it_asks_beyond_is_answered_as_unimplemented(self):
        self.start_guest(NEWER)
        self.speaks_with_it()
        self.other.wait_for("later: unimplemented")
        self.assertEqual(self.lab.good("services", "web1")["services"], [])

    def test_an_older_guest_is_spoken_with_and_each_call_that_it_lacks_says_so_with_status_6(self):
        self.start_guest(OLDER)
        self.speaks_with_it()
        for call in CALLS:
            with self.subTest(call):
                result = self.lab.run(*call)
                self.assertEqual(result.status, 6, repr(result))
                self.assertIn("the guest's agent is older and does not know this call: update it", result.err)
                self.assertEqual(result.err.count("\n"), 1, repr(result))
                self.assertEqual(self.lab.run("--json", *call).json()["ok"], False)
        self.speaks_with_it()

    # A host of another version, with the real agent ------------------------------------------------------------------

    def start_host(self, edits):
        path = os.path.join(self.lab.folder, "web1.sock")
        schema = write_schema(self.lab.folder, edits)
        self.other = self.lab.start("other", [program("skewed-host"), schema, SOURCE, path])
        self.other.wait_for("bundle ")
        bundle = os.path.join(self.lab.folder, "web1.bundle")
        with open(bundle, "w") as file:
            file.write(self.other.said().split("bundle ")[1].split()[0])
        os.chmod(bundle, 0o600)
        self.door = os.path.join(self.lab.folder, "door")
        guest = labs.Guest(self.lab, "web1", "unix:" + path, bundle)
        guest.write("etc/postern/agent.toml", 'policy = 1\n[[allow]]\nid = "a"\ncall = "ping"\n'
                    f'[[consume]]\nlisten = "unix:{self.door}"\nfrom = "db1"\nservice = "postgres"\n')
        guest.start()
        self.other.wait_for("asked")

    def goes_on(self, beats=3):
        before = self.other.said().count("called heartbeat")
        labs.wait_until(lambda: self.other.said().count("called heartbeat") >= before + beats, self.other.said)
        self.assertIn("ping ok", self.other.said())
        self.assertIn("session 1\n", self.other.said())
        self.assertNotIn("session over", self.other.said())
        self.assertNotIn("failed", self.other.said())

    def test_the_agent_speaks_with_a_newer_host_and_answers_what_it_does_not_know_as_unimplemented(self):
        self.start_host(NEWER)
        self.assertEqual(self.other.said().count("later: unimplemented"), 2, self.other.said())
        self.goes_on()

    def test_the_agent_speaks_with_an_older_host_and_a_consumer_of_what_it_lacks_is_thrown_out(self):
        self.start_host(OLDER)
        self.goes_on()
        labs.wait_until(lambda: os.path.exists(self.door), "the consumer's socket")
        with socket.socket(socket.AF_UNIX) as near:
            near.settimeout(labs.PATIENCE)
            near.connect(self.door)
            self.assertEqual(near.recv(1), b"")
        self.goes_on()


if __name__ == "__main__":
    labs.main()
