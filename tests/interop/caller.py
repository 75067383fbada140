#!/usr/bin/env python3
"""A client of the interface on grpcio: calls methods with an empty message and prints the code of each, as JSON.

caller.py TARGET NAME CA CERTIFICATE KEY METHOD...   ("-" where there is none)
"""

import json
import pathlib
import sys

import grpc


def read(name: str) -> bytes | None:
    return None if name == "-" else pathlib.Path(name).read_bytes()


def code(channel: grpc.Channel, method: str) -> str:
    # Methods that answer once are streams of one answer to whoever asks so.
    call = channel.unary_stream(method, lambda nothing: nothing, lambda answer: answer)
    try:
        for _ in call(b"", timeout=15):
            return "OK"
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def main() -> None:
    target, name, ca, certificate, key, *methods = sys.argv[1:]
    if ca == "-":
        # Without it grpcio sends the socket's path as the authority, which is none by RFC 3986; h2 refuses that.
        channel = grpc.insecure_channel(target, [("grpc.default_authority", "localhost")])
    else:
        trust = grpc.ssl_channel_credentials(read(ca), read(key), read(certificate))
        channel = grpc.secure_channel(target, trust, [("grpc.ssl_target_name_override", name)])
    with channel:
        print(json.dumps({method: code(channel, method) for method in methods}))


if __name__ == "__main__":
    main()
