#
# SPDX-License-Identifier: MIT OR Apache-2.0
#

import re

from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage

# systemd-analyze's exposure of the daemon; image/README.md and tests/boot have the same limit.
EXPOSURE = 1.9


class LadewartDaemonTest(OERuntimeTestCase):
    """The daemon on the target: running, answering, confined. Needs an image in which root can log in."""

    def succeed(self, command):
        status, output = self.target.run(command)
        self.assertEqual(status, 0, msg=f"{command}: {output}")
        return output

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["ladewart"])
    def test_daemon_is_ready(self):
        """Type=notify: active means that it said READY."""
        self.assertEqual(self.succeed("systemctl is-active ladewartd.service").strip(), "active")

    @OETestDepends(["ladewart_daemon.LadewartDaemonTest.test_daemon_is_ready"])
    @OEHasPackage(["ladewart-ctl"])
    def test_daemon_answers(self):
        self.assertIn("not commissioned", self.succeed("ladewartctl status"))

    @OETestDepends(["ladewart_daemon.LadewartDaemonTest.test_daemon_answers"])
    def test_limit_is_in_the_journal(self):
        """An acknowledged limit is evidence, and the chain of the evidence holds."""
        self.succeed("ladewartctl limit set --id oeqa 4200 --reason testimage")
        self.addCleanup(self.target.run, "ladewartctl limit clear oeqa")
        self.assertIn("oeqa", self.succeed("ladewartctl --output json journal export"))
        self.succeed("ladewartctl journal verify")

    @OETestDepends(["ladewart_daemon.LadewartDaemonTest.test_daemon_is_ready"])
    def test_daemon_comes_back_after_a_kill(self):
        """A killed daemon is started again; systemd counts it."""
        self.succeed("systemctl kill --signal=KILL ladewartd.service")
        self.succeed(
            "for _ in $(seq 60); do systemctl is-active --quiet ladewartd.service && "
            '[ "$(systemctl show --value --property=NRestarts ladewartd.service)" -gt 0 ] && exit 0; sleep 1; done; exit 1'
        )

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["ladewart"])
    def test_safe_values_were_set(self):
        self.succeed("systemctl is-active ladewart-failsafe.service")

    @OETestDepends(["ladewart_daemon.LadewartDaemonTest.test_daemon_is_ready"])
    def test_exposure(self):
        status, output = self.target.run("systemd-analyze security --no-pager ladewartd.service")
        if status == 127:
            self.skipTest("the image has no systemd-analyze")
        found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", output)
        self.assertIsNotNone(found, msg=output)
        self.assertLessEqual(float(found.group(1)), EXPOSURE)
