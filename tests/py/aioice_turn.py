"""aioice against a TURN server: a Binding, then two relay-only ICE agents that exchange data.

usage: aioice_turn.py HOST PORT USERNAME PASSWORD udp|tcp|tls

Over TCP and TLS there is no Binding. TLS trusts SSL_CERT_FILE.

Prints one line for each thing that worked; any failure is a traceback and exit code 1.
"""

import asyncio
import socket
import sys

from aioice import Candidate, Connection, TransportPolicy, stun

TIMEOUT = 30


def binding(host: str, port: int) -> None:
    """The server names the address this socket has."""
    request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(TIMEOUT)
        client.connect((host, port))
        client.send(bytes(request))
        answer = stun.parse_message(client.recv(2048))
        assert answer.message_class == stun.Class.RESPONSE, answer
        assert answer.transaction_id == request.transaction_id, answer
        assert answer.attributes["XOR-MAPPED-ADDRESS"] == client.getsockname(), answer
    print("binding: ok")


# How the agents reach the server: arguments of theirs.
TRANSPORTS = {
    "udp": {"turn_transport": "udp"},
    "tcp": {"turn_transport": "tcp"},
    "tls": {"turn_transport": "tcp", "turn_ssl": True},
}


async def connected_pair(
    server: tuple[str, int], username: str, password: str, transport: str
) -> tuple[Connection, Connection]:
    """Two agents that know only their relayed candidates."""
    one, two = (
        Connection(
            ice_controlling=controlling,
            turn_server=server,
            turn_username=username,
            turn_password=password,
            transport_policy=TransportPolicy.RELAY,
            **TRANSPORTS[transport],
        )
        for controlling in (True, False)
    )
    await asyncio.gather(one.gather_candidates(), two.gather_candidates())
    for local, remote in ((one, two), (two, one)):
        assert local.local_candidates, "no candidate was gathered"
        assert all(candidate.type == "relay" for candidate in local.local_candidates), local.local_candidates
        for candidate in local.local_candidates:
            await remote.add_remote_candidate(Candidate.from_sdp(candidate.to_sdp()))
        await remote.add_remote_candidate(None)
        remote.remote_username = local.local_username
        remote.remote_password = local.local_password
    await asyncio.gather(one.connect(), two.connect())
    return one, two


async def relayed(server: tuple[str, int], username: str, password: str, transport: str) -> None:
    one, two = await connected_pair(server, username, password, transport)
    for sender, receiver in ((one, two), (two, one)):
        for size in (1, 3, 160, 1200):
            data = bytes(index % 251 for index in range(size))
            await sender.send(data)
            assert await receiver.recv() == data, f"{size} bytes"
    await asyncio.gather(one.close(), two.close())
    print("relayed: ok")


async def refused(server: tuple[str, int], username: str, transport: str) -> None:
    """A wrong password ends in an error, not in an endless loop."""
    agent = Connection(
        ice_controlling=True,
        turn_server=server,
        turn_username=username,
        turn_password="wrong",
        transport_policy=TransportPolicy.RELAY,
        **TRANSPORTS[transport],
    )
    try:
        await agent.gather_candidates()
    except stun.TransactionFailed as error:
        assert error.response.attributes["ERROR-CODE"][0] == 401, error
    else:
        assert not agent.local_candidates, agent.local_candidates
    finally:
        await agent.close()
    print("refused: ok")


async def main() -> None:
    host, port, username, password, transport = sys.argv[1:]
    server = (host, int(port))
    if transport == "udp":
        binding(*server)
    await asyncio.wait_for(relayed(server, username, password, transport), TIMEOUT)
    await asyncio.wait_for(refused(server, username, transport), TIMEOUT)


asyncio.run(main())
