"""Builds the image with buildah and runs it, where there is neither a container engine nor a registry.

    uv run --all-extras tests/deploy/image.py [--target base] [--extras "fast pull api mongo"]
    uv run --all-extras tests/deploy/image.py --extras "fast pull mongo playground" --command playground

As root on Debian, with the packages buildah and debootstrap. A minimal Debian with its own Python stands in
for the base image, so versions of Python differ and the size of the base is not that of the published one.
The last line is one JSON object: bytes of the environment, who it runs as, and where it wrote files.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from deploy.dockerfile import ROOT, arguments
from parts.part import free_port, home

DEBIAN = "http://deb.debian.org/debian"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
STAND_IN = """\
FROM scratch
ADD root.tar /
ADD ca.crt /etc/ssl/certs/ca-certificates.crt
RUN ln -s /usr/bin/python3 /usr/local/bin/python && rm -f /usr/lib/python3*/EXTERNALLY-MANAGED
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
"""
CHECK = """\
touch /tmp/began; openanomaly COMMAND --listen 127.0.0.1:PORT > /tmp/log 2>&1 & pid=$!
for i in $(seq 60); do sleep 1; python -c "import urllib.request as r; \
r.urlopen('http://127.0.0.1:PORT/-/ready', timeout=4)" 2> /dev/null && ready=yes && break; done
ASK
kill $pid || ready=no; wait $pid
echo "ready=$ready"; echo "uid=$(id -u)"; echo "bytes=$(du -sb /opt/openanomaly | cut -f1)"
find / -xdev -newer /tmp/began -type f -not -path '/proc/*' -not -path '/sys/*' -printf 'wrote=%p\\n'
true  # find tells of folders that are closed
"""
ASK = {
    "run": "",
    # A page is opened, and Streamlit runs its script.
    "playground": """\
python -c "
import time
from streamlit.proto.BackMsg_pb2 import BackMsg
from websockets.sync.client import connect
page = connect('ws://127.0.0.1:PORT/_stcore/stream', subprotocols=['streamlit'])
page.send(BackMsg(rerun_script={'query_string': ''}).SerializeToString())
time.sleep(10)
" || ready=no""",
}
MAY_WRITE = ("/tmp/", "/var/lib/openanomaly/")


class Buildah:
    """buildah with a store of its own."""

    def __init__(self, folder: Path) -> None:
        store = ["--root", str(folder / "root"), "--runroot", str(folder / "run")]
        self._command = ["buildah", "--storage-driver", "overlay", *store]

    def __call__(self, *words: str, is_shown: bool = True) -> str:
        out = None if is_shown else subprocess.PIPE
        done = subprocess.run([*self._command, *words], stdout=out, text=True, check=True)
        return (done.stdout or "").strip()

    def build(self, *words: str, tag: str) -> None:
        # In the format of Docker: that of OCI has no health check.
        self("bud", "--isolation", "chroot", "--pull-never", "--format", "docker", "-t", tag, *words)


def stand_in(buildah: Buildah, folder: Path, tag: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tar = folder / "root.tar"
    if not tar.exists():
        root = folder / "root"
        packages = "python3,python3-venv,python3-pip,ca-certificates"
        words = ["--variant=minbase", f"--include={packages}", "bookworm", str(root), DEBIAN]
        subprocess.run(["debootstrap", *words], check=True)
        subprocess.run(["tar", "-C", str(root), "-cf", str(tar), "."], check=True)
        shutil.rmtree(root)
    shutil.copy(AUTHORITIES, folder / "ca.crt")
    (folder / "Dockerfile").write_text(STAND_IN)
    buildah.build(str(folder), tag=tag)


def main() -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--target", default="base")
    options.add_argument("--extras", default=arguments()["EXTRAS"])
    options.add_argument("--command", default="run", choices=ASK)
    o = options.parse_args()
    check = CHECK.replace("COMMAND", o.command).replace("ASK", ASK[o.command])
    check = check.replace("PORT", str(free_port()))  # the machine's own: others may be on ours
    folder = home() / "image"
    buildah = Buildah(folder / "store")
    stand_in(buildah, folder / "base", f"docker.io/library/python:{arguments()['PYTHON']}")
    flags = ["--target", o.target, "--build-arg", f"EXTRAS={o.extras}"]
    buildah.build(*flags, str(ROOT), tag="openanomaly:check")
    container = buildah("from", "--pull-never", "openanomaly:check", is_shown=False)
    try:
        said = buildah("run", "--isolation", "chroot", container, "--", "sh", "-c", check, is_shown=False)
    finally:
        buildah("rm", container)
    found = [line.split("=", 1) for line in said.splitlines() if "=" in line]
    wrote = sorted({value for key, value in found if key == "wrote"})
    values = {key: value for key, value in found if key != "wrote"}
    outside = [path for path in wrote if not path.startswith(MAY_WRITE)]
    result = {
        "check": "image",
        "target": o.target,
        "extras": o.extras,
        "command": o.command,
        "uid": int(values["uid"]),
        "environment_bytes": int(values["bytes"]),
        "is_ready": values["ready"] == "yes",
        "files_written": len(wrote),
        "files_written_elsewhere": outside,
    }
    print(json.dumps(result))
    return 0 if result["is_ready"] and result["uid"] and wrote and not outside else 1


if __name__ == "__main__":
    sys.exit(main())
