"""The gateway from programs that nobody here wrote: stunnel on both legs, dante as the SOCKS5 proxy between them.

site -TLS 1.2, both certificates-> stunnel [han-cls] -> danted -> stunnel [wan-emt]
     -TLS 1.2, both certificates-> stunnel [emt] -> the backend's WebSocket
"""

import pathlib
import subprocess

from network import HAN_GW, TARGET, TARGET_ADDRESS, WAN_EMT

HAN_PORT = 8443
PROXY_PORT = 1080
CHANNEL_PORT = 9000
EMT_PORT = 8443
BACKEND_PORT = 9100

CIPHERS = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"

COMMON = f"""\
foreground = yes
syslog = no
debug = info
sslVersionMin = TLSv1.2
sslVersionMax = TLSv1.2
renegotiation = no
options = NO_TICKET
ciphers = {CIPHERS}
curves = prime256v1:secp384r1
TIMEOUTidle = 600
"""


class Certificates:
    """Two CAs (HAN and WAN) and a leaf for each end of each leg, made by openssl."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.ca("han-ca")
        self.ca("wan-ca")
        self.leaf("cls", "han-ca", "cls.example")
        self.leaf("gw-han", "han-ca", "smgw.local")
        self.leaf("gw-wan", "wan-ca", "gateway.example")
        self.leaf("emt", "wan-ca", TARGET)

    def openssl(self, *arguments: str) -> str:
        command = ["openssl", *arguments]
        return subprocess.run(command, cwd=self.directory, check=True, capture_output=True, text=True).stdout

    def ca(self, name: str) -> None:
        self.openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")
        self.openssl(
            *("req", "-x509", "-new", "-key", f"{name}.key", "-sha256", "-days", "30", "-subj", f"/CN={name}"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", f"{name}.pem"),
        )

    def leaf(self, name: str, ca: str, host: str) -> None:
        extensions = (
            f"subjectAltName=DNS:{host}\nbasicConstraints=critical,CA:FALSE\n"
            "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n"
        )
        (self.directory / f"{name}.ext").write_text(extensions)
        self.openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")
        self.openssl("req", "-new", "-key", f"{name}.key", "-subj", f"/CN={host}", "-out", f"{name}.csr")
        self.openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial"),
            *("-sha256", "-days", "20", "-extfile", f"{name}.ext", "-out", f"{name}.pem"),
        )

    def pin(self, name: str) -> str:
        """SHA-256 of the certificate, as openssl prints it."""
        text = self.openssl("x509", "-in", f"{name}.pem", "-noout", "-fingerprint", "-sha256")
        return text.strip().partition("=")[2]


def write_configurations(directory: pathlib.Path) -> None:
    """stunnel's and dante's files. The HAN leg knows exactly one CLS certificate; the WAN leg trusts its CA."""
    (directory / "han.conf").write_text(f"""{COMMON}
[han-cls]
accept = {HAN_GW}:{HAN_PORT}
connect = 127.0.0.1:{PROXY_PORT}
cert = {directory}/gw-han.pem
key = {directory}/gw-han.key
CAfile = {directory}/cls.pem
requireCert = yes
verifyPeer = yes
""")
    (directory / "wan.conf").write_text(f"""{COMMON}
[wan-emt]
client = yes
accept = {TARGET_ADDRESS}:{CHANNEL_PORT}
connect = {WAN_EMT}:{EMT_PORT}
cert = {directory}/gw-wan.pem
key = {directory}/gw-wan.key
CAfile = {directory}/wan-ca.pem
verifyChain = yes
checkHost = {TARGET}
""")
    (directory / "emt.conf").write_text(f"""{COMMON}
[emt]
accept = {WAN_EMT}:{EMT_PORT}
connect = 127.0.0.1:{BACKEND_PORT}
cert = {directory}/emt.pem
key = {directory}/emt.key
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
socks block {{
    from: 0.0.0.0/0 to: 0.0.0.0/0
    log: error
}}
""")
