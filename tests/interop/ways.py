"""The ways through a gateway, each of programs that nobody here wrote.

A way starts its programs and says how the site is configured for it. What is called "han" is the gateway's end of the
HAN leg: killing it cuts every connection of the site.
"""

import pathlib
from typing import Any

from gateway import (
    BACKEND_PORT,
    CHANNEL_PORT,
    EMT_PORT,
    HAN_PORT,
    OPERATOR_PORT,
    PROXY_PORT,
    common,
)
from network import HAN_CLS, HAN_GW, TARGET, TARGET_ADDRESS, WAN_EMT, WAN_GW

# Where the gateway connects to the site, and the ends of the market participant's own programs.
COMING_PORT = 9000
COMING_ADMIN_PORT = 9001
FROM_WAN_PORT = 9011
FROM_WAN_ADMIN_PORT = 9012
TO_GATEWAY_PORT = 9300
TO_GATEWAY_ADMIN_PORT = 9301


class Way:
    """stunnel on both legs, dante between them."""

    mode = "socks5"
    peers = "stunnel4, dante-server"
    # Of both legs: of the key exchange, the certificates and their issuers.
    curve = "brainpoolP256r1"

    def __init__(self, run: Any) -> None:
        self.run = run

    async def start(self) -> None:
        await self.start_wan()
        await self.start_proxy()
        await self.start_han()

    async def start_wan(self) -> None:
        await self.stunnel("emt", "emt", f"{WAN_EMT}:{EMT_PORT}")
        await self.stunnel("gw", "wan", f"{TARGET_ADDRESS}:{CHANNEL_PORT}")

    async def start_proxy(self) -> None:
        files = self.run.directory
        danted = ["danted", "-f", str(files / "danted.conf"), "-p", str(files / "danted.pid")]
        await self.run.processes.start("danted", self.run.network.inside("gw", *danted))
        await self.run.listening("gw", f"127.0.0.1:{PROXY_PORT}")

    async def start_han(self) -> None:
        await self.stunnel("gw", "han", f"{HAN_GW}:{HAN_PORT}")

    async def stunnel(self, side: str, name: str, address: str) -> None:
        command = self.run.network.inside(side, "stunnel", str(self.run.directory / f"{name}.conf"))
        await self.run.processes.start(name, command)
        await self.run.listening(side, address)

    def write(self, directory: pathlib.Path) -> None:
        """What differs from the files of `write_configurations`."""

    def uplink(self, trust: str) -> str:
        """The table `[uplink]`."""
        return f"""[uplink]
mode = "{self.mode}"
gateway = "{HAN_GW}:{HAN_PORT}"
interface = "han0"
certificate = "cls.pem"
key = "cls.key"
trust = {trust}
backoff_max = "5 s"
"""

    def backend(self) -> str:
        """What the table `[backend]` says beside its URL."""
        return ""


class Microsocks(Way):
    """microsocks instead of dante: it drops a greeting and a request that come together."""

    peers = "stunnel4, microsocks"
    curve = "brainpoolP384r1"

    async def start_proxy(self) -> None:
        command = ["microsocks", "-i", "127.0.0.1", "-p", str(PROXY_PORT)]
        await self.run.processes.start("microsocks", self.run.network.inside("gw", *command))
        await self.run.listening("gw", f"127.0.0.1:{PROXY_PORT}")


class Sni(Way):
    """No proxy: the name in the handshake leads to the WAN leg."""

    mode = "sni"
    peers = "stunnel4 with SNI"
    curve = "brainpoolP512r1"

    async def start_proxy(self) -> None:
        pass

    def write(self, directory: pathlib.Path) -> None:
        judged = f"""cert = {directory}/gw-han.pem
key = {directory}/gw-han.key
CAfile = {directory}/cls.pem
requireCert = yes
verifyPeer = yes
"""
        # Whoever names nobody, or somebody else, ends at a port where nobody listens.
        (directory / "han.conf").write_text(f"""{common(self.curve)}
[han-cls]
accept = {HAN_GW}:{HAN_PORT}
connect = 127.0.0.1:9
{judged}
[emt]
sni = han-cls:{TARGET}
connect = {TARGET_ADDRESS}:{CHANNEL_PORT}
{judged}""")


class Listen(Way):
    """The gateway is the client: stunnel connects to the site for whoever comes over its WAN side.

    The market participant keeps connections ready, each tied to its backend by socat; the site takes one for each EVSE.
    """

    mode = "listen"
    peers = "stunnel4 as TLS client, socat"
    curve = "secp384r1"

    async def start_wan(self) -> None:
        await self.stunnel("gw", "wan", f"{WAN_GW}:{EMT_PORT}")
        await self.stunnel("emt", "emt", f"127.0.0.1:{TO_GATEWAY_PORT}")

    async def start_proxy(self) -> None:
        ends = f"TCP:127.0.0.1:{TO_GATEWAY_PORT},nodelay TCP:127.0.0.1:{BACKEND_PORT},nodelay"
        spare = self.run.options.points + 3
        loop = f"for i in $(seq {spare}); do while :; do socat {ends}; sleep 0.5; done & done; wait"
        await self.run.processes.start("socat", self.run.network.inside("emt", "sh", "-c", loop))

    async def start_han(self) -> None:
        await self.stunnel("gw", "han", f"127.0.0.1:{FROM_WAN_PORT}")

    def write(self, directory: pathlib.Path) -> None:
        wan_end = f"""cert = {directory}/gw-wan.pem
key = {directory}/gw-wan.key
CAfile = {directory}/wan-ca.pem
requireCert = yes
verifyChain = yes
"""
        (directory / "wan.conf").write_text(f"""{common(self.curve)}
[wan]
accept = {WAN_GW}:{EMT_PORT}
connect = 127.0.0.1:{FROM_WAN_PORT}
{wan_end}
[wan-admin]
accept = {WAN_GW}:{OPERATOR_PORT}
connect = 127.0.0.1:{FROM_WAN_ADMIN_PORT}
{wan_end}""")
        (directory / "emt.conf").write_text(f"""{common(self.curve)}
client = yes
CAfile = {directory}/wan-ca.pem
verifyChain = yes
[emt]
accept = 127.0.0.1:{TO_GATEWAY_PORT}
connect = {WAN_GW}:{EMT_PORT}
cert = {directory}/emt.pem
key = {directory}/emt.key
[operator]
accept = 127.0.0.1:{TO_GATEWAY_ADMIN_PORT}
connect = {WAN_GW}:{OPERATOR_PORT}
cert = {directory}/operator-wan.pem
key = {directory}/operator-wan.key
""")
        (directory / "han.conf").write_text(f"""{common(self.curve)}
client = yes
cert = {directory}/gw-han.pem
key = {directory}/gw-han.key
CAfile = {directory}/han-ca.pem
verifyChain = yes
checkHost = cls.example
[to-cls]
accept = 127.0.0.1:{FROM_WAN_PORT}
connect = {HAN_CLS}:{COMING_PORT}
[admin-to-cls]
accept = 127.0.0.1:{FROM_WAN_ADMIN_PORT}
connect = {HAN_CLS}:{COMING_ADMIN_PORT}
""")

    def uplink(self, trust: str) -> str:
        return f"""[uplink]
mode = "listen"
listen = "{HAN_CLS}"
interface = "han0"
certificate = "cls.pem"
key = "cls.key"
trust = {trust}
[[uplink.target]]
name = "backend"
port = {COMING_PORT}
[[uplink.target]]
name = "operator"
port = {COMING_ADMIN_PORT}
"""

    def backend(self) -> str:
        return 'target = "backend"\n'


WAYS = {"dante": Way, "microsocks": Microsocks, "sni": Sni, "listen": Listen}
