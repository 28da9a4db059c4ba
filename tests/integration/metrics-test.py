"""posternd's metrics: what real VMs, callers and failures look like on the page, and to a real Prometheus.

usage: metrics-test.py HOST-PROGRAMS-FOLDER AGENT HOSTILE-GUEST HOSTILE-CALLER [unittest arguments]

tests/integration/fetch-prometheus puts Prometheus into the cache. It runs as a plain process on loopback, with its data
in the test's folder.
"""
import grp
import json
import os
import pathlib
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
import unittest
import urllib.parse
import urllib.request

import channels
import lab as labs
from channels import allow, connect_to, is_refused, read_exactly

PROGRAMS = labs.Programs(*sys.argv[1:5])
HERE = pathlib.Path(__file__).resolve().parent
PACKAGING = HERE.parent.parent / "packaging/prometheus"
MANUAL = HERE.parent.parent / "docs/OPERATIONS.md"

sys.path.insert(0, str(HERE.parent / "vm"))
from guestlab.cache import cache_folder  # noqa: E402


def tool(name):
    path = cache_folder() / "prometheus" / name
    if not path.exists():
        raise AssertionError(f"no {path}: run tests/integration/fetch-prometheus once (it downloads 20 MB)")
    return str(path)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def exchange(where, request, seconds=20):
    """What a server answers until it closes the connection."""
    with socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET) as client:
        client.settimeout(seconds)
        client.connect(where)
        client.sendall(request)
        answer = b""
        while True:
            some = client.recv(1 << 16)
            if not some:
                return answer
            answer += some


SAMPLE = re.compile(r'^([a-z_]+)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


class Page:
    """One page of metrics, parsed."""

    def __init__(self, where):
        head, _, body = exchange(where, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK"), head
        self.text = body.decode()
        self.samples = {}
        self.families = set()
        for line in self.text.splitlines():
            if line.startswith("# TYPE "):
                self.families.add(line.split()[2])
            if line.startswith("#"):
                continue
            name, labels, value = SAMPLE.match(line).groups()
            key = (name, frozenset(LABEL.findall(labels or "")))
            assert key not in self.samples, line
            self.samples[key] = float(value)

    def get(self, name, **labels):
        """The value of that series; 0 if there is none."""
        return self.samples.get((name, frozenset(labels.items())), 0)


class MetricsTest(unittest.TestCase):
    def setUp(self):
        self.lab = channels.ChannelLab(PROGRAMS)
        self.addCleanup(self.lab.close)
        self.socket = os.path.join(self.lab.folder, "metrics.sock")

    def start(self, listen=None, more=""):
        self.lab.write("etc/postern/postern.toml", f'{more}[metrics]\nlisten = "{listen or "unix:" + self.socket}"\n')
        self.lab.start_posternd()

    def page(self):
        time.sleep(0.3)  # one that is not of a moment ago
        return Page(self.socket)

    def wait_for(self, condition, seconds=labs.PATIENCE):
        """The page for which condition(page) holds."""
        last = {}

        def look():
            last["page"] = self.page()
            return condition(last["page"])

        labs.wait_until(look, lambda: last["page"].text, seconds)
        return last["page"]

    # The page --------------------------------------------------------------------------------------------------------

    def test_by_default_nothing_listens(self):
        self.lab.start_posternd()
        self.assertNotIn("metrics", self.lab.posternd.said())
        sockets = [name for name in os.listdir(self.lab.path("run/postern")) if "metrics" in name]
        self.assertEqual(sockets, [])

    def test_the_page_says_what_was_done_and_is_as_promtool_wants_it(self):
        self.lab.write("etc/postern/policy.d/10-test.toml",
                       'policy = 1\n[[deny]]\nid = "no-shutdown"\nfrom = "host"\nto = "web1"\ncall = ["power.shutdown"]\n')
        self.start()
        guest = self.lab.pair("web1")
        self.lab.good("ping", "web1", "-c", "7")
        self.lab.good("info", "web1")
        self.assertEqual(self.lab.run("shutdown", "web1").status, 3)
        page = self.wait_for(lambda page: page.get("postern_ping_seconds_count", vm="web1") == 7)
        self.assertEqual(page.get("postern_vm_state", vm="web1", state="green"), 1)
        self.assertEqual(page.get("postern_vm_state", vm="web1", state="red"), 0)
        self.assertEqual(page.get("postern_vm_state_reason", vm="web1", reason="on-time"), 1)
        self.assertEqual(page.get("postern_vm_connected", vm="web1"), 1)
        self.assertEqual(page.get("postern_vm_enrolments_total", vm="web1"), 1)
        self.assertLess(page.get("postern_vm_heartbeat_age_seconds", vm="web1"), 3)
        self.assertEqual(page.get("postern_vm_handshakes_total", vm="web1", outcome="accepted", reason="none"), 1)
        self.assertEqual(page.get("postern_operations_total", call="info", outcome="done"), 1)
        self.assertEqual(page.get("postern_denials_total", rule="no-shutdown"), 1)
        self.assertGreaterEqual(page.get("postern_control_calls_total", call="open"), 3)
        self.assertGreaterEqual(page.get("postern_events_total", kind="connected"), 1)
        self.assertEqual(page.get("postern_vms"), 1)
        self.assertEqual(page.get("postern_board_used_slots"), 1)
        self.assertGreater(page.get("postern_audit_lines_total"), 3)
        self.assertEqual(page.get("postern_audit_file_bytes"), os.stat(self.lab.path("var/log/postern/audit.log")).st_size)
        pid = self.lab.posternd.pid
        self.assertLess(abs(page.get("process_resident_memory_bytes") / 1024 - labs.memory_kib(pid)), 4096)
        self.assertLess(abs(page.get("process_open_fds") - labs.descriptors_of(pid)), 8)
        self.assertLess(abs(page.get("process_start_time_seconds") - time.time()), 120)
        self.assertLess(page.get("postern_ping_seconds_sum", vm="web1"), 7)
        self.assertGreater(page.get("postern_loop_lag_seconds_count"), 0)
        checked = subprocess.run([tool("promtool"), "check", "metrics"], input=page.text, capture_output=True, text=True)
        self.assertEqual((checked.returncode, checked.stdout + checked.stderr), (0, ""))

        guest.program.end()
        page = self.wait_for(lambda page: page.get("postern_vm_state", vm="web1", state="gray") == 1)
        self.assertEqual(page.get("postern_vm_goodbyes_total", vm="web1", reason="agent-stopped"), 1)
        self.assertEqual(page.get("postern_vm_connected", vm="web1"), 0)
        self.lab.run("ping", "web1", "-c", "1")
        self.wait_for(lambda page: page.get("postern_ping_failures_total", vm="web1") >= 1)
        self.lab.good("vm", "remove", "web1")
        self.wait_for(lambda page: 'vm="web1"' not in page.text)

    def test_what_goes_wrong_with_a_vm_shows(self):
        self.start()
        guest = self.lab.pair("web1")
        os.kill(guest.agent_pid(), signal.SIGKILL)
        self.wait_for(lambda page: page.get("postern_vm_session_losses_total", vm="web1", reason="cut") == 1)
        self.wait_for(lambda page: page.get("postern_vm_handshakes_total", vm="web1", outcome="accepted", reason="none") == 2)
        guest.program.kill()
        self.wait_for(lambda page: page.get("postern_vm_state", vm="web1", state="red") == 1)
        # Another VM's guest at this VM's socket.
        other = self.lab.enroll("web2")
        other.connect = guest.connect
        other.start()
        self.wait_for(lambda page: page.get("postern_vm_handshakes_total", vm="web1", outcome="refused", reason="keys") >= 1)
        os.kill(self.lab.session_pid("web2"), signal.SIGKILL)
        self.wait_for(lambda page: page.get("postern_vm_session_process_deaths_total", vm="web2") == 1)
        self.wait_for(lambda page: page.get("postern_vm_session_process_up", vm="web2") == 1)

    def test_a_policy_with_an_error_and_an_audit_log_that_cannot_be_written_show(self):
        self.start()
        self.lab.pair("web1")
        good = self.page()
        self.assertEqual(good.get("postern_policy_last_load_successful"), 1)
        self.lab.write("etc/postern/policy.d/10-test.toml", "policy = 1\n[[allow]]\n")
        self.lab.run("policy", "reload")
        page = self.page()
        self.assertEqual(page.get("postern_policy_last_load_successful"), 0)
        self.assertEqual(page.get("postern_policy_loads_total", outcome="failed"), 1)
        self.assertEqual([key for key in page.samples if key[0] == "postern_policy_info"],
                         [key for key in good.samples if key[0] == "postern_policy_info"])
        self.lab.write("etc/postern/policy.d/10-test.toml", "policy = 1\n")
        self.lab.good("policy", "reload")
        self.assertEqual(self.page().get("postern_policy_last_load_successful"), 1)

        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.prlimit(self.lab.posternd.pid, resource.RLIMIT_FSIZE, (0, hard))
        self.assertEqual(self.lab.run("info", "web1").status, 1)
        page = self.wait_for(lambda page: page.get("postern_audit_failing") == 1)
        self.assertGreaterEqual(page.get("postern_audit_failures_total"), 1)
        self.assertGreaterEqual(page.get("postern_audit_dropped_total"), 1)
        resource.prlimit(self.lab.posternd.pid, resource.RLIMIT_FSIZE, (hard, hard))
        self.lab.run("shutdown", "nobody")
        self.lab.good("info", "web1")
        self.wait_for(lambda page: page.get("postern_audit_failing") == 0)

    def test_channels_show_at_the_ports_of_both_vms(self):
        self.lab.policy(allow("pair", "web1", "db1", "service.echo"))
        self.start()
        web, db = self.lab.vm_of("web1"), self.lab.vm_of("db1")
        service = db.export("echo")
        door, forbidden = web.consume("db1", "echo"), web.consume("db1", "other")
        web.start()
        db.start()
        near = connect_to(door)
        self.addCleanup(near.close)
        near.sendall(b"x" * 1000)
        far = service.accept()
        self.addCleanup(far.close)
        read_exactly(far, 1000)
        far.sendall(b"y" * 10)
        read_exactly(near, 10)
        self.assertTrue(is_refused(forbidden))

        def wait_for_ports(live, **of_both):
            def holds(page):
                ports = [page.get(f"postern_port_{name}", vm=vm) for name in of_both for vm in ("web1", "db1")]
                bytes_ = [page.get("postern_port_bytes_total", vm=vm, direction=direction)
                          for vm in ("web1", "db1") for direction in ("out", "in")]
                wanted = [value for value in of_both.values() for _ in ("web1", "db1")]
                return page.get("postern_channels") == live and ports == wanted and bytes_ == [1000, 10, 10, 1000]
            return self.wait_for(holds)

        page = wait_for_ports(1, channels=1, opened_total=1, denied_total=1, refused_total=0)
        for vm in ("web1", "db1"):
            self.assertGreaterEqual(page.get("postern_port_messages_total", vm=vm, direction="out"), 1)
            self.assertEqual(page.get("postern_port_blocked", vm=vm, by="hand"), 0)
        self.lab.good("channel", "block", "db1")
        page = wait_for_ports(0, channels=0, opened_total=1, denied_total=1, refused_total=0)
        self.assertEqual(page.get("postern_port_blocked", vm="db1", by="hand"), 1)
        self.assertEqual(page.get("postern_port_blocked", vm="db1", by="policy"), 0)
        self.assertEqual(page.get("postern_port_blocked", vm="web1", by="hand"), 0)

    # The socket ------------------------------------------------------------------------------------------------------

    def test_the_socket_is_for_its_group_comes_back_after_a_kill_and_goes_with_posternd(self):
        group = grp.getgrgid(os.getgid()).gr_name
        self.start(more=f'group = "{group}"\n')
        status = os.stat(self.socket)
        self.assertEqual(stat.S_IMODE(status.st_mode), 0o660)
        self.assertEqual(status.st_gid, os.getgid())
        self.lab.posternd.kill()
        self.lab.start_posternd()
        self.page()
        self.lab.write("etc/postern/postern.toml", f'group = "{group}"\n[metrics]\nlisten = "tcp:127.0.0.1:1"\n')
        self.lab.posternd.send(signal.SIGHUP)
        self.lab.posternd.wait_for("[metrics] listen counts from the next start on")
        self.page()
        self.lab.posternd.end()
        self.assertFalse(os.path.exists(self.socket))

    def test_an_address_that_is_taken_keeps_no_vm_waiting(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            self.start(f"tcp:127.0.0.1:{taken.getsockname()[1]}")
            self.lab.posternd.wait_for("metrics-failed")
            self.lab.pair("web1")

    def test_an_address_of_another_machine_is_no_setting(self):
        self.lab.write("etc/postern/postern.toml", '[metrics]\nlisten = "tcp:0.0.0.0:9560"\n')
        checked = subprocess.run([PROGRAMS.posternd, "--root", self.lab.root, "--check-config"], capture_output=True, text=True)
        self.assertEqual(checked.returncode, 2)
        self.assertIn("this machine alone", checked.stdout + checked.stderr)

    def test_scrapers_that_are_silent_slow_or_many_disturb_no_vm(self):
        self.start()
        self.lab.pair("web1")
        witness = labs.Witness(self.lab, "web1")
        descriptors = labs.descriptors_of(self.lab.posternd.pid)
        idle = []
        for number in range(40):
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(20)
            client.connect(self.socket)
            client.sendall((b"", b"GET /met", b"GET /metrics HTTP/1.1\r\n\r\n" * 1000, b"\0" * 5000)[number % 4])
            idle.append(client)
        self.assertLessEqual(labs.descriptors_of(self.lab.posternd.pid), descriptors + 12)
        self.lab.good("ping", "web1", "-c", "3")
        for client in idle:
            client.close()
        end = time.monotonic() + 2
        while time.monotonic() < end:
            try:
                exchange(self.socket, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            except ConnectionError:
                pass
        self.lab.good("ping", "web1", "-c", "3")
        witness.end(self)
        self.page()

    # Prometheus ------------------------------------------------------------------------------------------------------

    def prometheus(self, target):
        """A Prometheus that scrapes the target every second, with the alerts that are shipped; asks it a query."""
        port = free_port()
        configuration = (PACKAGING / "prometheus.yml").read_text()
        configuration = configuration.replace("15s", "1s").replace("127.0.0.1:9560", target)
        configuration = configuration.replace("postern.rules.yml", str(PACKAGING / "postern.rules.yml"))
        path = self.lab.write("prometheus/prometheus.yml", configuration)
        self.lab.start("prometheus", [tool("prometheus"), "--config.file", path, "--web.listen-address", f"127.0.0.1:{port}",
                                      "--storage.tsdb.path", self.lab.path("prometheus/data"), "--log.level", "warn"])

        def ask(what, **arguments):
            url = f"http://127.0.0.1:{port}/api/v1/{what}?" + urllib.parse.urlencode(arguments)
            try:
                with urllib.request.urlopen(url, timeout=20) as answer:
                    return json.load(answer)["data"]
            except urllib.error.HTTPError as error:
                raise AssertionError(f"{arguments}: {error.read().decode()}") from error
            except urllib.error.URLError:
                return None  # not yet

        return ask

    def test_a_prometheus_scrapes_it_and_knows_the_alerts_and_the_dashboard_asks_what_there_is(self):
        port = free_port()
        self.start(f"tcp:127.0.0.1:{port}")
        self.lab.pair("web1")
        self.lab.good("ping", "web1", "-c", "2")
        ask = self.prometheus(f"127.0.0.1:{port}")

        def build_info():
            answer = ask("query", query="postern_build_info")
            return answer and answer["result"]

        found = labs.wait_until(build_info, "Prometheus has no postern_build_info", 60, 0.5)
        self.assertEqual([result["value"][1] for result in found], ["1"])
        version = subprocess.run([PROGRAMS.posternd, "--version"], capture_output=True, text=True).stdout.strip()
        self.assertEqual(found[0]["metric"]["version"], version)
        self.assertEqual(found[0]["metric"]["job"], "postern")
        green = ask("query", query='postern_vm_state{vm="web1",state="green"}')["result"]
        self.assertEqual(green[0]["value"][1], "1")
        up = ask("query", query='up{job="postern"}')["result"]
        self.assertEqual(up[0]["value"][1], "1")

        labs.wait_until(lambda: all(rule["health"] == "ok" for group in ask("rules")["groups"] for rule in group["rules"]),
                        lambda: ask("rules"), 60, 0.5)
        self.assertEqual(ask("alerts")["alerts"], [])

        page = Page(("127.0.0.1", port))
        dashboard = json.loads((PACKAGING / "postern-dashboard.json").read_text())
        expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
        self.assertGreater(len(expressions), 30)
        for expression in expressions:
            filled = expression.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$vm", ".*")
            self.assertNotIn("$", filled)
            ask("query", query=filled)
        for text in expressions + [(PACKAGING / "postern.rules.yml").read_text(), MANUAL.read_text()]:
            for name in re.findall(r"\b(?:postern|process)_[a-z_]+[a-z]\b", text):
                if name not in NOT_METRICS:
                    self.assertIn(re.sub("_(bucket|sum|count)$", "", name), page.families, name)
        described = set(re.findall(r"\b(?:postern|process)_[a-z_]+[a-z]\b", MANUAL.read_text()))
        self.assertEqual(page.families - described, set(), "not in docs/OPERATIONS.md")

    def test_alerts_and_examples_are_good_and_fire_when_they_should(self):
        for arguments in (["check", "rules", PACKAGING / "postern.rules.yml"], ["check", "config", PACKAGING / "prometheus.yml"]):
            checked = subprocess.run([tool("promtool"), *arguments], capture_output=True, text=True)
            self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)
        cases = (HERE / "alerts-test.yml").read_text().replace("ALERTS\n", str(PACKAGING / "postern.rules.yml") + "\n", 1)
        checked = subprocess.run([tool("promtool"), "test", "rules", self.lab.write("alerts-test.yml", cases)],
                                 capture_output=True, text=True)
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)


# Words of the manual that look like names of metrics.
NOT_METRICS = {"postern_metrics", "postern_agent_t", "postern_agent_exec_t"}

if __name__ == "__main__":
    labs.main()
