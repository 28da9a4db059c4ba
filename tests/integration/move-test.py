"""Moving a VM between two hosts: same agent, same identity, no new enrolment; and what can be wrong with it.

usage: move-test.py HOST-PROGRAMS-FOLDER AGENT HOSTILE-GUEST HOSTILE-CALLER [unittest arguments]
"""
import os
import shutil
import signal
import subprocess
import sys
import unittest

import lab as labs

PROGRAMS = labs.Programs(*sys.argv[1:5])
HOOK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../packaging/libvirt/qemu-hook")


class MoveTest(unittest.TestCase):
    """web1 is on `here`, and may go `there`; its channel is one socket, wherever it is."""

    def setUp(self):
        self.here, self.there = labs.Lab(PROGRAMS), labs.Lab(PROGRAMS)
        for lab in (self.here, self.there):
            self.addCleanup(lab.close)
            lab.start_posternd()
        self.socket = os.path.join(self.here.folder, "web1.sock")
        self.key = self.there.good("vm", "host-key")["hostKey"]
        self.own_key = self.here.good("vm", "host-key")["hostKey"]

    def export(self):
        return self.here.good("vm", "export", "web1", "--to", self.key)["export"]

    def take(self, export, *more, lab=None):
        return self.run_import(export, "--transport", "unix:" + self.socket, *more, lab=lab)

    def run_import(self, export, *arguments, lab=None):
        return (lab or self.there).run("--json", "vm", "import", *arguments, text=export.encode())

    def moved(self, *more):
        result = self.take(self.export(), *more)
        self.assertEqual(result.status, 0, result)
        return result.json()

    def refused(self, result, status, words):
        self.assertEqual(result.status, status, result)
        self.assertIn(words, result.out + result.err)

    def rekeyed(self, lab=None):
        lab = lab or self.there
        labs.wait_until(lambda: lab.vm("web1")["enrolled"] and not lab.vm("web1")["inheritedKeys"],
                        lambda: f"no new keys: {lab.vm('web1')}\n{lab.posternd.said()[-2500:]}")
        lab.green("web1")

    def states_of(self, lab):
        return sorted(os.listdir(lab.path("var/lib/postern/vms")))

    # The way of a VM -----------------------------------------------------------------------------------------------

    def test_the_same_agent_is_green_on_the_other_host_with_its_identity_and_new_keys(self):
        guest = self.here.pair("web1")
        self.here.good("vm", "set", "web1", "--tag", "front,blue")
        self.here.good("channel", "block", "web1")
        agent, before = guest.agent_pid(), self.here.vm("web1")
        moved = self.moved()
        self.assertEqual((moved["vm"], moved["from"]), ("web1", self.own_key))
        self.rekeyed()
        after = self.there.vm("web1")
        self.assertEqual(guest.agent_pid(), agent)
        self.assertEqual((after["uuid"], after["tags"]), (before["uuid"], ["front", "blue"]))
        self.assertNotEqual(after["hostFingerprint"], before["hostFingerprint"])
        self.assertNotEqual(after["guestFingerprint"], before["guestFingerprint"])
        self.assertEqual(self.there.good("channel", "stats", "web1")["ports"][0]["blockedByHand"], True)
        self.assertEqual(guest.program.said().count("rekeying"), 1)
        # Here it is gone, and says where to.
        state = self.here.status("web1")
        self.assertEqual((state["state"], state["reason"]), ("gray", "moved"))
        gone = self.here.vm("web1")
        self.assertEqual((gone["movedTo"], gone["sessionPid"], gone["connected"]), (self.key, 0, False))
        self.assertEqual(self.here.run("status", "web1", "--check").status, 4)
        self.assertIn("exported", self.here.event_kinds("web1"))
        self.assertIn("imported", self.there.event_kinds("web1"))
        for lab, call, host in ((self.here, "vm.export", self.key), (self.there, "vm.import", self.own_key)):
            lines = [line for line in lab.good("audit", "tail", "-n", "100")["lines"] if f'"{call}"' in str(line)]
            self.assertTrue(lines and host in str(lines), lines)
            lab.verify_audit()

    def test_grants_come_along_where_the_other_host_takes_them_and_not_unasked(self):
        self.here.pair("web1", grants="ping,info")
        export = self.export()
        self.refused(self.here.run("ping", "web1", "-c", "1"), 4, "moved to another host")
        self.refused(self.here.run("doctor", "web1"), 2, "moved to another host")
        result = self.take(export, "--grants").json()
        self.assertIn("grant-web1", result["offeredGrants"])
        with open(result["grantFile"]) as file:
            self.assertEqual(file.read(), result["offeredGrants"])
        self.rekeyed()
        self.assertEqual(self.there.good("ping", "web1", "-c", "1")["count"], 1)

    def test_without_grants_nothing_is_allowed_there(self):
        self.here.pair("web1", grants="ping,info")
        self.assertEqual(self.moved()["grantFile"], "")
        self.rekeyed()
        self.assertEqual(self.there.run("ping", "web1", "-c", "1").status, 3)

    def test_it_comes_back_and_goes_again(self):
        guest = self.here.pair("web1")
        for source, target, key in ((self.here, self.there, self.key), (self.there, self.here, self.own_key)) * 2:
            export = source.good("vm", "export", "web1", "--to", key)["export"]
            result = target.run("--json", "vm", "import", "web1", "--from", self.key if source is self.there else self.own_key,
                                *(["--transport", "unix:" + self.socket] if source is self.here else []), text=export.encode())
            self.assertEqual(result.status, 0, result)
            self.rekeyed(target)
            self.assertEqual(source.vm("web1")["movedTo"], key)
        self.assertEqual(guest.program.process.poll(), None)

    def test_an_old_copy_of_the_old_host_is_nobody_to_the_agent(self):
        guest = self.here.pair("web1")
        copy = self.here.path("copy")
        shutil.copytree(self.here.path("var/lib/postern"), copy)
        self.moved()
        self.rekeyed()
        # The old host, as it was; and the agent, which is brought before it.
        self.assertEqual(self.here.posternd.end(signal.SIGINT), 0)
        shutil.rmtree(self.here.path("var/lib/postern"))
        shutil.copytree(copy, self.here.path("var/lib/postern"))
        self.assertEqual(self.there.posternd.end(signal.SIGINT), 0)
        self.here.start_posternd()
        self.assertEqual(self.here.vm("web1")["movedTo"], "")
        guest.program.wait_for("session-refused")
        labs.wait_until(lambda: "refused" in self.here.event_kinds("web1"), "the old host knows nobody")
        self.assertFalse(self.here.vm("web1")["connected"])
        self.assertNotIn("connected", self.here.event_kinds("web1"))
        self.here.wait_colour("web1", "red")
        # And back to the host that it is on.
        self.assertEqual(self.here.posternd.end(signal.SIGINT), 0)
        self.there.start_posternd()
        self.there.green("web1", 40)

    # libvirt's hook ------------------------------------------------------------------------------------------------

    def hook(self, lab, *arguments, text="<domain/>"):
        environment = {**os.environ, "POSTERN": PROGRAMS.postern, "POSTERN_ROOT": lab.root}
        return subprocess.run([HOOK, *arguments], input=text, capture_output=True, text=True, env=environment, timeout=60)

    def write_maps(self):
        call = f"POSTERN={PROGRAMS.postern} POSTERN_ROOT={self.there.root} {HOOK} --import \"$DOMAIN\""
        self.here.write("etc/postern/migration.map", f"# where to\nother* postern-host-1:x false\n* {self.key} {call}\n")
        self.there.write("etc/postern/migration.map", f"* {self.key} false\n* {self.own_key} false\n")

    def test_the_hook_of_libvirt_takes_the_identity_along_and_is_silent_else(self):
        self.here.pair("web1")
        self.write_maps()
        # What libvirt calls at the destination, at a start and at a stop.
        for lab, arguments in ((self.there, ("migrate", "begin", "-")), (self.there, ("prepare", "begin", "-")),
                               (self.there, ("start", "begin", "-")), (self.there, ("started", "begin", "-")),
                               (self.here, ("stopped", "end", "-")), (self.here, ("release", "end", "-")),
                               (self.here, ("release", "end", "shutdown")), (self.here, ("reconnect", "begin", "-"))):
            done = self.hook(lab, "web1", *arguments)
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""), arguments)
        self.assertEqual(self.here.vm("web1")["movedTo"], "")
        done = self.hook(self.here, "web1", "release", "end", "migrated")
        self.assertEqual((done.returncode, done.stdout), (0, ""), done)
        self.assertIn("went along", done.stderr)
        self.assertEqual(self.here.vm("web1")["movedTo"], self.key)
        self.assertEqual(self.there.vm("web1")["transport"], "libvirt:web1")
        # No libvirt is here: to where its agent is.
        self.there.good("vm", "set", "web1", "--transport", "unix:" + self.socket)
        self.rekeyed()

    def test_a_libvirt_that_gives_no_reason_is_told_by_a_file(self):
        self.here.pair("web1")
        self.write_maps()
        marker = self.here.write("run/postern/migrating/web1", "")
        self.assertIn("went along", self.hook(self.here, "web1", "release", "end", "-").stderr)
        self.assertFalse(os.path.exists(marker))
        self.assertEqual(self.here.vm("web1")["movedTo"], self.key)

    def test_a_hook_whose_delivery_fails_says_how_to_go_on_and_stops_no_domain(self):
        self.here.pair("web1")
        self.here.write("etc/postern/migration.map", f"* {self.key} false\n")
        done = self.hook(self.here, "web1", "release", "end", "migrated")
        self.assertEqual(done.returncode, 0)
        self.assertIn(f"postern vm export web1 --to {self.key} | false", done.stderr)
        self.assertTrue(self.export().startswith("postern-export-1:"))
        for name in ("none", "-x", "a;b", "../x", ""):
            done = self.hook(self.here, name, "release", "end", "migrated")
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""), name)

    def test_the_receiving_hook_takes_nothing_from_a_host_that_is_not_in_its_map(self):
        self.here.pair("web1")
        export = self.export()
        self.there.write("etc/postern/migration.map", f"* {self.key} false\n")
        done = self.hook(self.there, "--import", "web1", text=export)
        self.assertEqual(done.returncode, 1)
        self.assertIn("--from", done.stderr)
        self.write_maps()
        self.assertEqual(self.hook(self.there, "--import", "web2", text=export).returncode, 1)
        self.assertEqual(self.there.good("vm", "list")["vms"], [])
        self.assertEqual(self.hook(self.there, "--import", "web1", text=export).returncode, 0)

    # What can be wrong ---------------------------------------------------------------------------------------------

    def test_a_cancelled_export_leaves_the_vm_as_it_was(self):
        self.here.pair("web1")
        before = self.here.vm("web1")
        self.export()
        self.here.good("vm", "export", "web1", "--cancel")
        self.here.green("web1")
        after = self.here.vm("web1")
        self.assertEqual(after["guestFingerprint"], before["guestFingerprint"])
        self.assertFalse(after["inheritedKeys"])
        self.refused(self.here.run("vm", "export", "web1", "--cancel"), 2, "no export to cancel")

    def test_an_export_that_is_asked_for_again_is_the_same_one_and_for_no_other_host(self):
        self.here.pair("web1")
        export = self.export()
        self.assertEqual(self.export(), export)
        file = os.path.join(self.here.folder, "web1.export")
        self.here.good("vm", "export", "web1", "--to", self.key, "--file", file)
        self.assertEqual(os.stat(file).st_mode & 0o777, 0o600)
        with open(file) as read:
            self.assertEqual(read.read().strip(), export.strip())
        self.refused(self.here.run("vm", "export", "web1", "--to", self.key, "--file", file), 2, "exists")
        third = labs.Lab(PROGRAMS)
        self.addCleanup(third.close)
        third.start_posternd()
        other = third.good("vm", "host-key")["hostKey"]
        self.refused(self.here.run("vm", "export", "web1", "--to", other), 2, "moved already")
        self.refused(self.take(export, lab=third), 2, "another host's key")
        self.assertEqual(self.there.run("vm", "import", "--file", file, "--transport", "unix:" + self.socket).status, 0)

    def test_an_export_is_good_once(self):
        self.here.pair("web1")
        export = self.export()
        self.assertEqual(self.take(export).status, 0)
        self.refused(self.take(export), 2, "is here already")
        self.there.good("vm", "remove", "web1")
        self.refused(self.take(export), 2, "good once")
        self.assertEqual([name for name in self.states_of(self.there) if "web1" in name], [])
        # A restart forgets nothing of that, and an older one is no better than the same.
        self.there.posternd.end()
        self.there.start_posternd()
        self.refused(self.take(export), 2, "good once")
        self.here.good("vm", "export", "web1", "--cancel")
        again = self.export()
        self.assertEqual(self.take(again).status, 0)
        self.there.good("vm", "export", "web1", "--to", self.own_key)
        self.refused(self.take(again), 2, "good once")

    def test_what_is_no_whole_export_for_this_host_changes_nothing(self):
        self.here.pair("web1")
        export = self.export().strip()
        prefix = len("postern-export-1:")
        flip = lambda at: export[:at] + ("A" if export[at] != "A" else "B") + export[at + 1:]
        for text, words in ((export[:-1], "damaged"), (export[:200], "damaged"), (flip(prefix + 3), "damaged"), (flip(-3), "damaged"),
                            ("", "no export"), ("postern-bundle-1:AAAA", "no export"), ("x" * 70000, "too long")):
            self.refused(self.take(text), 2, words)
        self.refused(self.take(export, lab=self.here), 2, "another host's key")
        self.refused(self.take(export, "--from", self.key), 2, "--from")
        self.refused(self.run_import(export, "web2", "--transport", "unix:" + self.socket), 2, "is of web1, not of web2")
        self.refused(self.run_import(export), 2, "--transport")
        self.assertEqual(self.there.good("vm", "list")["vms"], [])
        self.assertEqual(self.take(export).status, 0)

    def test_a_name_that_is_taken_there_stays_what_it_is(self):
        self.here.pair("web1")
        self.there.enroll("web1", None, None)
        uuid = self.there.vm("web1")["uuid"]
        export = self.export()
        self.refused(self.take(export), 2, "another VM web1")
        self.assertEqual(self.there.vm("web1")["uuid"], uuid)
        self.there.good("vm", "remove", "web1")
        self.assertEqual(self.take(export).status, 0)
        self.rekeyed()

    def test_what_cannot_be_exported_says_why_and_goes_on(self):
        self.here.enroll("new", None, None)
        self.here.pair("web1")
        self.refused(self.here.run("vm", "export", "none", "--to", self.key), 2, "no VM none")
        self.refused(self.here.run("vm", "export", "new", "--to", self.key), 2, "not enrolled")
        self.refused(self.here.run("vm", "export", "web1", "--to", self.own_key), 2, "own key")
        self.refused(self.here.run("vm", "export", "web1", "--to", self.key[:-1] + "!"), 2, "host-key")
        self.refused(self.here.run("vm", "export", "web1"), 2, "--to")
        self.here.green("web1")
        self.assertTrue(self.here.vm("new")["offerPending"])

    def test_only_who_policy_lets_moves_vms(self):
        self.here.pair("web1")
        export = self.export()
        self.here.good("vm", "export", "web1", "--cancel")
        for lab in (self.here, self.there):
            os.chmod(lab.control_socket, 0o666)
            os.chmod(os.path.dirname(lab.control_socket), 0o755)
        if os.geteuid() != 0:
            self.skipTest("needs root, to be somebody else")
        nobody = 65534
        for arguments in (("vm", "export", "web1", "--to", self.key), ("vm", "export", "web1", "--cancel")):
            self.refused(self.here.run(*arguments, user=nobody), 3, "admin.export")
        result = self.there.run("vm", "import", "--transport", "unix:" + self.socket, user=nobody, text=export.encode())
        self.refused(result, 3, "admin.enroll")
        self.assertEqual(self.there.run("vm", "host-key", user=nobody).out.strip(), self.key)
        self.here.green("web1")

    def test_a_full_disk_leaves_the_vm_where_it_is(self):
        # What cannot be recorded would be refused before anything is tried.
        for lab in (self.here, self.there):
            lab.posternd.end()
            lab.write("etc/postern/postern.toml", '[audit]\non-failure = "continue"\n')
            lab.start_posternd()
        self.here.pair("web1")
        disk = self.here.path("var/lib/postern/vms")
        for name, lab, act in (("export", self.here, lambda: self.here.run("vm", "export", "web1", "--to", self.key)),
                               ("import", self.there, lambda: self.take(self.export()))):
            # A quota of the process: files of posternd grow no more.
            subprocess.run(["prlimit", f"--pid={lab.posternd.pid}", "--fsize=100:"], check=True)
            self.refused(act(), 1, "/var/lib/postern/vms/web1.")
            subprocess.run(["prlimit", f"--pid={lab.posternd.pid}", "--fsize=unlimited:"], check=True)
            if name == "export":
                # The session process that was started anew has the quota, too.
                subprocess.run(["prlimit", f"--pid={lab.session_pid('web1')}", "--fsize=unlimited:"], check=True)
                self.assertEqual(self.here.vm("web1")["movedTo"], "")
                self.here.green("web1", 40)
            else:
                self.assertEqual(self.there.good("vm", "list")["vms"], [])
        self.assertEqual(self.take(self.export()).status, 0)
        self.rekeyed()
        self.assertNotIn("web1.toml.new", os.listdir(disk))

    def test_a_file_that_cannot_be_written_says_how_to_get_at_the_export(self):
        self.here.pair("web1")
        full = self.here.run("vm", "export", "web1", "--to", self.key, "--file", "/no/such/folder/x")
        self.refused(full, 1, "cannot write the export")
        self.assertEqual(self.here.vm("web1")["movedTo"], "")
        with open("/dev/full", "w") as nowhere:
            command = self.here.command("vm", "export", "web1", "--to", self.key)
            self.assertNotEqual(subprocess.run(command, stdout=nowhere, stderr=subprocess.DEVNULL).returncode, 0)
        self.assertEqual(self.take(self.export()).status, 0)

    def test_posternd_killed_at_any_moment_of_an_export_or_import_loses_nothing(self):
        self.here.pair("web1")
        for delay in (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3):
            command = self.here.command("--json", "vm", "export", "web1", "--to", self.key)
            asked = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            labs.time.sleep(delay)
            self.here.posternd.kill()
            asked.wait(labs.PATIENCE)
            self.here.start_posternd()
            vm = self.here.vm("web1")
            self.assertIn(vm["movedTo"], ("", self.key))
            if vm["movedTo"]:
                self.assertTrue(self.export().startswith("postern-export-1:"))
                self.assertEqual(self.here.vm("web1")["sessionPid"], 0)
                self.here.good("vm", "export", "web1", "--cancel")
            self.here.green("web1", 30)
        export = self.export()
        for delay in (0.0, 0.003, 0.01, 0.03):
            command = self.there.command("vm", "import", "--transport", "unix:" + self.socket)
            asked = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            asked.stdin.write(export.encode())
            asked.stdin.close()
            labs.time.sleep(delay)
            self.there.posternd.kill()
            asked.wait(labs.PATIENCE)
            self.there.start_posternd()
            if self.there.good("vm", "list")["vms"]:
                break
        else:
            self.assertEqual(self.take(export).status, 0)
        self.rekeyed()


if __name__ == "__main__":
    labs.main()
