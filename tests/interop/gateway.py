"""The gateway from programs that nobody here wrote: stunnel on both legs, dante as the SOCKS5 proxy between them.

site -TLS 1.2, both certificates-> stunnel [han-cls] -> danted -> stunnel [wan-emt]
     -TLS 1.2, both certificates-> stunnel [emt] -> the backend's WebSocket
"""

import pathlib
import subprocess

from network import HAN_GW, OPERATOR, OPERATOR_ADDRESS, TARGET, TARGET_ADDRESS, WAN_EMT

HAN_PORT = 8443
PROXY_PORT = 1080
CHANNEL_PORT = 9000
EMT_PORT = 8443
BACKEND_PORT = 9100
# The operator of the remote administration, beside the backend.
ADMIN_PORT = 9443
OPERATOR_PORT = 8444
LISTEN_PORT = 9200

CIPHERS = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"

# What a curve is called by `openssl ecparam`, and in the session as `uplink status` shows it; the hash is of its strength.
CURVES = {
    "brainpoolP256r1": ("brainpoolP256r1", "sha256"),
    "brainpoolP384r1": ("brainpoolP384r1", "sha384"),
    "brainpoolP512r1": ("brainpoolP512r1", "sha512"),
    "secp256r1": ("prime256v1", "sha256"),
    "secp384r1": ("secp384r1", "sha384"),
}


def common(curve: str) -> str:
    """The settings of every stunnel. Nothing but this curve is agreed on: a fall back to another one would fail."""
    return f"""\
foreground = yes
syslog = no
debug = info
sslVersionMin = TLSv1.2
sslVersionMax = TLSv1.2
renegotiation = no
options = NO_TICKET
ciphers = {CIPHERS}
curves = {CURVES[curve][0]}
TIMEOUTidle = 600
"""


class Certificates:
    """Two CAs (HAN and WAN) and a leaf for each end of each leg, made by openssl, all on one curve."""

    def __init__(self, directory: pathlib.Path, curve: str) -> None:
        self.directory = directory
        # The curve of each CA is that of its leaves.
        self.curves: dict[str, str] = {}
        self.ca("han-ca", curve)
        self.ca("wan-ca", curve)
        self.leaf("cls", "han-ca", "cls.example")
        self.leaf("gw-han", "han-ca", "smgw.local")
        self.leaf("gw-wan", "wan-ca", "gateway.example")
        self.leaf("emt", "wan-ca", TARGET)
        self.leaf("operator-wan", "wan-ca", OPERATOR)

    def openssl(self, *arguments: str) -> str:
        command = ["openssl", *arguments]
        return subprocess.run(command, cwd=self.directory, check=True, capture_output=True, text=True).stdout

    def key(self, name: str, curve: str) -> str:
        """Makes a key; the option of the hash that goes with it."""
        curve, digest = CURVES[curve]
        self.openssl("ecparam", "-name", curve, "-genkey", "-noout", "-out", f"{name}.key")
        return f"-{digest}"

    def ca(self, name: str, curve: str = "secp256r1") -> None:
        digest = self.key(name, curve)
        self.curves[name] = curve
        self.openssl(
            *("req", "-x509", "-new", "-key", f"{name}.key", digest, "-days", "30", "-subj", f"/CN={name}"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", f"{name}.pem"),
        )

    def leaf(self, name: str, ca: str, host: str, days: int = 20) -> None:
        extensions = (
            f"subjectAltName=DNS:{host}\nbasicConstraints=critical,CA:FALSE\n"
            "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n"
        )
        (self.directory / f"{name}.ext").write_text(extensions)
        digest = self.key(name, self.curves[ca])
        self.openssl("req", "-new", digest, "-key", f"{name}.key", "-subj", f"/CN={host}", "-out", f"{name}.csr")
        self.openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial"),
            *(digest, "-days", str(days), "-extfile", f"{name}.ext", "-out", f"{name}.pem"),
        )

    def pin(self, name: str) -> str:
        """SHA-256 of the certificate, as openssl prints it."""
        text = self.openssl("x509", "-in", f"{name}.pem", "-noout", "-fingerprint", "-sha256")
        return text.strip().partition("=")[2]


def write_configurations(directory: pathlib.Path, curve: str) -> None:
    """stunnel's and dante's files. The HAN leg knows exactly one CLS certificate; the WAN leg trusts its CA."""
    settings = common(curve)
    (directory / "han.conf").write_text(f"""{settings}
[han-cls]
accept = {HAN_GW}:{HAN_PORT}
connect = 127.0.0.1:{PROXY_PORT}
cert = {directory}/gw-han.pem
key = {directory}/gw-han.key
CAfile = {directory}/cls.pem
requireCert = yes
verifyPeer = yes
""")
    (directory / "wan.conf").write_text(f"""{settings}
[wan-emt]
client = yes
accept = {TARGET_ADDRESS}:{CHANNEL_PORT}
connect = {WAN_EMT}:{EMT_PORT}
cert = {directory}/gw-wan.pem
key = {directory}/gw-wan.key
CAfile = {directory}/wan-ca.pem
verifyChain = yes
checkHost = {TARGET}
[wan-operator]
client = yes
accept = {OPERATOR_ADDRESS}:{ADMIN_PORT}
connect = {WAN_EMT}:{OPERATOR_PORT}
cert = {directory}/gw-wan.pem
key = {directory}/gw-wan.key
CAfile = {directory}/wan-ca.pem
verifyChain = yes
checkHost = {OPERATOR}
""")
    (directory / "emt.conf").write_text(f"""{settings}
[emt]
accept = {WAN_EMT}:{EMT_PORT}
connect = 127.0.0.1:{BACKEND_PORT}
cert = {directory}/emt.pem
key = {directory}/emt.key
CAfile = {directory}/wan-ca.pem
requireCert = yes
verifyChain = yes
[operator]
accept = {WAN_EMT}:{OPERATOR_PORT}
connect = 127.0.0.1:{LISTEN_PORT}
cert = {directory}/operator-wan.pem
key = {directory}/operator-wan.key
CAfile = {directory}/wan-ca.pem
requireCert = yes
verifyChain = yes
""")
    (directory / "danted.conf").write_text(f"""logoutput: stderr
internal: 127.0.0.1 port = {PROXY_PORT}
external: lo
socksmethod: none
clientmethod: none
user.privileged: root
user.unprivileged: nobody
client pass {{
    from: 127.0.0.0/8 to: 0.0.0.0/0
}}
socks pass {{
    from: 127.0.0.0/8 to: {TARGET} port = {CHANNEL_PORT}
    command: connect
}}
socks pass {{
    from: 127.0.0.0/8 to: {OPERATOR} port = {ADMIN_PORT}
    command: connect
}}
socks block {{
    from: 0.0.0.0/0 to: 0.0.0.0/0
    log: error
}}
""")
