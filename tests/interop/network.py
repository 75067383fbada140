"""Three network namespaces in a row: cls (the site) - gw (the gateway) - emt (the market participant).

Nothing is forwarded in gw, so the only way from cls to emt leads through the gateway's programs. The names are unique
per run; everything is removed at the end, whatever happened.
"""

import os
import pathlib
import shutil
import subprocess

HAN_CLS = "10.77.1.2"
HAN_GW = "10.77.1.1"
WAN_GW = "10.77.2.1"
WAN_EMT = "10.77.2.2"

# The gateway's proxy resolves these names itself.
TARGET = "emt.example"
TARGET_ADDRESS = "127.0.0.11"
OPERATOR = "operator.example"
OPERATOR_ADDRESS = "127.0.0.12"


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True)


class Network:
    """The namespaces, as a context."""

    def __init__(self) -> None:
        self.mark = f"lw{os.getpid()}"
        self.etc = pathlib.Path("/etc/netns") / self.name("gw")

    def name(self, side: str) -> str:
        return f"{self.mark}-{side}"

    def inside(self, side: str, *command: str) -> list[str]:
        """The command, to be run in the namespace of a side."""
        return ["ip", "netns", "exec", self.name(side), *command]

    def link(self, state: str) -> None:
        """Plugs ("up") or unplugs ("down") the cable between site and gateway, at the gateway's end."""
        run("ip", "-n", self.name("gw"), "link", "set", "han", state)

    def __enter__(self) -> "Network":
        try:
            for side in ("cls", "gw", "emt"):
                run("ip", "netns", "add", self.name(side))
                run("ip", "-n", self.name(side), "link", "set", "lo", "up")
            self.wire("cls", "han0", HAN_CLS, "gw", "han", HAN_GW)
            self.wire("gw", "wan", WAN_GW, "emt", "wan0", WAN_EMT)
            # A namespace begins with the host's switch; the daemon stays down on a device that forwards.
            for side in ("cls", "gw"):
                run(*self.inside(side, "sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"))
            self.etc.mkdir(parents=True)
            (self.etc / "hosts").write_text(f"127.0.0.1 localhost\n{TARGET_ADDRESS} {TARGET}\n{OPERATOR_ADDRESS} {OPERATOR}\n")
        except BaseException:
            self.__exit__()
            raise
        return self

    def wire(self, a: str, a_if: str, a_ip: str, b: str, b_if: str, b_ip: str) -> None:
        a, b = self.name(a), self.name(b)
        run("ip", "link", "add", a_if, "netns", a, "type", "veth", "peer", "name", b_if, "netns", b)
        for space, device, address in ((a, a_if, a_ip), (b, b_if, b_ip)):
            run("ip", "-n", space, "address", "add", f"{address}/24", "dev", device)
            run("ip", "-n", space, "link", "set", device, "up")

    def __exit__(self, *_: object) -> None:
        for side in ("cls", "gw", "emt"):
            subprocess.run(["ip", "netns", "delete", self.name(side)], capture_output=True, check=False)
        shutil.rmtree(self.etc, ignore_errors=True)
