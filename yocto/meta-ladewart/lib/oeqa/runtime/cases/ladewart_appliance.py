#
# SPDX-License-Identifier: MIT OR Apache-2.0
#

import json

from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage

# Ports that image/README.md documents, besides what systemd-networkd needs for DHCP.
PORTS = {22, 8887}


class LadewartApplianceTest(OERuntimeTestCase):
    """The appliance on the target: read-only and verified root, slots, data partition, closed doors."""

    def succeed(self, command):
        status, output = self.target.run(command)
        self.assertEqual(status, 0, msg=f"{command}: {output}")
        return output

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["ladewart-appliance"])
    def test_root_is_read_only_and_verified(self):
        self.assertIn("/dev/dm-0", self.succeed("grep ' / ' /proc/mounts"))
        status, _ = self.target.run("touch /written")
        self.assertNotEqual(status, 0, msg="the root file system can be written")

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["ladewart-appliance"])
    def test_data_partition_is_used(self):
        self.succeed("systemctl is-active ladewart-data.service")
        self.succeed("test ! -e /run/ladewart-data/problem")
        self.succeed("grep -q ' /var/lib/ladewart ext4 ' /proc/mounts")

    @OETestDepends(["ladewart_daemon.LadewartDaemonTest.test_daemon_is_ready"])
    @OEHasPackage(["rauc"])
    def test_slot_is_confirmed(self):
        """The booted slot is good once the daemon was healthy for a while."""
        self.succeed("for _ in $(seq 120); do [ -e /run/ladewart-confirmed ] && exit 0; sleep 1; done; exit 1")
        status = json.loads(self.succeed("rauc status --output-format=json"))
        states = [state for slot in status["slots"] for state in slot.values() if state.get("state") == "booted"]
        self.assertEqual([state.get("boot_status") for state in states], ["good"])

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["ladewart-appliance"])
    def test_no_unit_failed(self):
        self.assertEqual(self.succeed("systemctl list-units --failed --plain --no-legend").strip(), "")

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["ladewart-appliance"])
    def test_listening_ports(self):
        """What listens on TCP is what the documentation lists; /proc, for the image has no ss."""
        lines = self.succeed("cat /proc/net/tcp /proc/net/tcp6").splitlines()
        fields = [line.split() for line in lines]
        ports = {int(field[1].split(":")[1], 16) for field in fields if len(field) > 3 and field[3] == "0A"}
        self.assertLessEqual(ports, PORTS)

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["nftables"])
    def test_packet_filter_is_loaded(self):
        self.assertIn("policy drop", self.succeed("nft list ruleset"))
