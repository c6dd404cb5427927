"""Servers whose jars come from Maven, into a folder of `.parts/` on first use."""

import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from parts.part import home, installing, missing


def jars(
    what: str,
    name: str,
    pom: str,
    needs: Mapping[str, str],
    files: Mapping[str, str] | None = None,
    build: Callable[[Path], Sequence[str]] | None = None,
) -> Path:
    """The folder `name` with the jars of a `pom`.

    Args:
        what: the server, for people.
        needs: programs besides Maven, and the Debian package of each.
        files: by name what lies beside the jars.
        build: the command that is run in the folder behind Maven.
    """
    programs = {"mvn": "maven", **needs}
    if lacking := [program for program in programs if shutil.which(program) is None]:
        packages = " ".join(programs[program] for program in lacking)
        missing(f"{what} (needs {', '.join(lacking)})", f"apt-get install {packages}")
    folder = home() / name
    with installing(name.split("-")[0]):
        if not folder.exists():
            work = folder.with_name(f"{name}.part")
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            for file, text in {"pom.xml": pom, **(files or {})}.items():
                (work / file).write_text(text)
            flags = [f"-DoutputDirectory={work}", "-DincludeScope=runtime"]
            _run(what, work, ["mvn", "-q", "-B", "dependency:copy-dependencies", *flags])
            if build is not None:
                _run(what, work, build(work))
            work.rename(folder)
    return folder


def _run(what: str, folder: Path, command: Sequence[str]) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        said = f"{command[0]} said: {done.stdout[-500:]}{done.stderr[-500:]}"
        missing(f"{what} ({said})", f"mvn -f {folder}/pom.xml ...")
