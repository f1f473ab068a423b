"""The released package: one virtual environment with the newest release, older releases beside it."""

import os
import re
import shutil
import subprocess
import sys

from processes import CannotHave

BASE = "0.5.6"
FREE_GB_NEEDED = 9  # 6.2 GB installed, the rest is pip unpacking
INSTALL_SECONDS = 1800


class Release:
    """Runs modules and scripts of one LMCache release."""

    def __init__(self, version, venv, packages):
        self.version = version
        self.python = os.path.join(venv, "bin", "python")
        self._packages = packages

    def env(self):
        # LMCache reads every LMCACHE_* variable as configuration, so none of the caller's may get through.
        env = {k: v for k, v in os.environ.items() if not k.startswith(("LMCACHE", "PYTHON"))}
        env.update(PYTHONHASHSEED="0", LMCACHE_TRACK_USAGE="false", HF_HUB_OFFLINE="1", PYTHONUNBUFFERED="1")
        if self._packages:
            env["PYTHONPATH"] = self._packages
        return env

    def hash_profile(self):
        """The --hash that kvctrld needs for this release, or None where its default finds the keys."""
        return "builtin-none@0" if numbers(self.version) < (0, 4, 1) else None


def numbers(version):
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def prepare(version, venv):
    """Installs what is missing and returns the Release."""
    if numbers(version) < (0, 3, 12):
        raise CannotHave(f"lmcache {version} has no engine that runs without vLLM (0.3.12 is the first)")
    oldest = (3, 10)
    if numbers(version) < (0, 4, 1):
        # These releases hash None, which has a fixed hash only since Python 3.12: lookups cannot match before.
        oldest = (3, 12)
        if not _good(venv) or _python_version(os.path.join(venv, "bin", "python")) < oldest:
            venv += "-for-0.3"
    if not _good(venv):
        _install_base(venv, _find_python(oldest, version))
    packages = None
    if version != BASE:
        packages = os.path.join(os.path.dirname(venv), f"lmcache-{version}")
        if not os.path.isdir(packages):
            _pip(venv, "--no-deps", "--target", packages + ".part", f"lmcache=={version}")
            os.rename(packages + ".part", packages)
    return Release(version, venv, packages)


def _good(venv):
    """pip installs lmcache after everything it needs, so its presence says that the install went through."""
    python = os.path.join(venv, "bin", "python")
    if not os.path.exists(python):
        return False
    ask = "import importlib.metadata as m; print(m.version('lmcache'))"
    answer = subprocess.run([python, "-c", ask], capture_output=True, text=True)
    return answer.stdout.strip() == BASE


def _find_python(oldest, version):
    candidates = [sys.executable, "python3.12", "python3.13", "python3.11", "python3.10"]
    pyenv = os.path.expanduser("~/.pyenv/versions")
    if os.path.isdir(pyenv):
        candidates += [os.path.join(pyenv, name, "bin", "python3") for name in sorted(os.listdir(pyenv))]
    for candidate in candidates:
        path = shutil.which(candidate)
        if path and oldest <= _python_version(path) <= (3, 13):
            return path
    raise CannotHave(f"lmcache {version} needs a Python from {oldest[0]}.{oldest[1]} to 3.13 and none was found")


def _python_version(python):
    ask = "import sys; print(*sys.version_info[:2])"
    answer = subprocess.run([python, "-c", ask], capture_output=True, text=True)
    return tuple(int(n) for n in answer.stdout.split()) if answer.returncode == 0 else (0, 0)


def _install_base(venv, python):
    parent = os.path.dirname(venv)
    os.makedirs(parent, exist_ok=True)
    if os.path.basename(parent) == ".interop":
        with open(os.path.join(parent, ".gitignore"), "w") as f:
            f.write("*\n")
    if os.path.exists(venv) and os.listdir(venv) and not os.path.exists(os.path.join(venv, "pyvenv.cfg")):
        raise CannotHave(f"{venv} is neither empty nor a virtual environment: name another place in KVCTRL_INTEROP_VENV")
    free = shutil.disk_usage(parent).free / 1e9
    if free < FREE_GB_NEEDED:
        raise CannotHave(f"no room for lmcache: {free:.1f} GB free at {parent}, {FREE_GB_NEEDED} GB needed")
    print(f"installing lmcache {BASE} into {venv} (6 GB, a few minutes, once)", flush=True)
    if os.path.exists(os.path.join(venv, "pyvenv.cfg")):
        shutil.rmtree(venv)  # an install that did not go through, or another release
    made = subprocess.run([python, "-m", "venv", venv], capture_output=True, text=True)
    if made.returncode:
        raise CannotHave(f"cannot make a virtual environment at {venv}: {_last_line(made.stdout + made.stderr)}")
    _pip(venv, f"lmcache=={BASE}")


def _pip(venv, *args):
    command = [os.path.join(venv, "bin", "python"), "-m", "pip", "install", "--quiet",
               "--disable-pip-version-check", "--no-input", *args]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise CannotHave(f"pip did not finish {args[-1]} within {INSTALL_SECONDS} s")
    if done.returncode:
        # An index that cannot be reached ends in the same last line as a release that does not exist.
        raise CannotHave(f"cannot install {args[-1]} (is the package index reachable?): {_last_line(done.stderr)}")


def _last_line(text):
    return (text.strip().splitlines() or ["no output"])[-1]
