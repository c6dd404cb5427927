"""Whether a running playground serves its page: to those with credentials, and to nobody else."""

import base64
import urllib.error
import urllib.request

import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect


def see_page(address: str, username: str, password: str) -> None:
    """The page and the WebSocket that it lives on are there with the credentials, and are refused without."""
    url = f"http://{address}/"
    socket = f"ws://{address}/_stcore/stream"
    for headers in ({}, _basic(username, "wrong")):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10)
        with pytest.raises(InvalidStatus, match="403"), connect(socket, additional_headers=headers):
            pass
    right = _basic(username, password)
    with urllib.request.urlopen(urllib.request.Request(url, headers=right), timeout=10) as answer:
        assert answer.headers.get_content_type() == "text/html"
    # As a browser does: from a page of the same address.
    with connect(
        socket, additional_headers=right, origin=f"http://{address}", subprotocols=["streamlit"]
    ) as page:
        assert "OpenAnomaly playground" in _shown(page)


def _shown(page: ClientConnection) -> str:
    """What a new page shows: Streamlit runs its script when a browser asks for it, and sends each element."""
    page.send(BackMsg(rerun_script={"query_string": ""}).SerializeToString())
    texts = []
    while True:
        message = ForwardMsg.FromString(page.recv(timeout=30))
        texts.append(str(message))
        if message.WhichOneof("type") == "script_finished":
            assert message.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY, texts
            return "\n".join(texts)


def _basic(username: str, password: str) -> dict[str, str]:
    word = base64.b64encode(f"{username}:{password}".encode()).decode()
    return {"Authorization": f"Basic {word}"}
