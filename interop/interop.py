#!/usr/bin/env python3
"""Drives real LMCache engines through kvctrld and through LMCache's own controller, and compares the answers; then
through a link that loses what they say; then through three replicas of kvctrld behind HAProxy, of which some are killed,
and once more with all running and the engines busy."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback

import front
import release
import report
import steps
import steps_cluster
import steps_repair
import steps_soak
from cluster import Cluster
from controllers import Endpoint, Kvctrld, LMCacheController
from differences import REASONS
from processes import CannotHave, GaveUp, Ports, Process, end_all
from stand import Stand
from stand_cluster import ClusterStand
from stand_repair import RepairStand
from stand_soak import SoakStand

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NOT_REACHED = "not reached"
STEPS = {"kvctrld": steps.STEPS, "lmcache": steps.STEPS, "repair": steps_repair.STEPS, "cluster": steps_cluster.STEPS,
         "soak": steps_soak.STEPS}
TABLES = [("kvctrld", "lmcache"), ("repair",), ("cluster",), ("soak",)]  # what is shown side by side
BEHIND_THE_FRONT = {"cluster", "soak"}


def main():
    args = arguments()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    names = [args.only] if args.only else list(STEPS)
    binary = os.path.abspath(os.environ.get("KVCTRLD") or os.path.join(ROOT, "bin", "kvctrld"))
    if names != ["lmcache"] and not os.access(binary, os.X_OK):
        sys.exit(f"interop: no kvctrld at {binary}: build it first, or name it in KVCTRLD")
    version = os.environ.get("LMCACHE") or release.BASE
    venv = os.path.abspath(os.environ.get("KVCTRL_INTEROP_VENV") or os.path.join(ROOT, ".interop", "venv"))
    optional = os.environ.get("INTEROP_OPTIONAL") == "1"
    haproxy = missing = None
    try:
        package = release.prepare(version, venv)
    except CannotHave as why:
        print(f"interop: {why}")
        sys.exit(0 if optional else 3)
    if BEHIND_THE_FRONT & set(names):
        try:
            haproxy = front.prepare()
        except CannotHave as why:
            missing = f"NOT TESTED, THREE REPLICAS BEHIND THE FRONT: {why}"
            print(missing, flush=True)
            names = [name for name in names if name not in BEHIND_THE_FRONT]

    def stand(name, home):
        profile = package.hash_profile()
        if name in BEHIND_THE_FRONT:
            kind = ClusterStand if name == "cluster" else SoakStand
            return kind(Cluster(binary, haproxy, profile, ports, home), package, ports)
        if name == "lmcache":
            return Stand(LMCacheController(package, Endpoint.take(ports), home), package, ports)
        kind = Stand if name == "kvctrld" else RepairStand
        return kind(Kvctrld(binary, profile, Endpoint.take(ports), home), package, ports)

    run_dir = tempfile.mkdtemp(prefix="kvctrl-interop-")
    ports, answers, faults = Ports(), {}, []
    for name in names:
        for attempt in (1, 2):
            home = os.path.join(run_dir, f"{name}-{attempt}")
            os.mkdir(home)
            answers[name], fault, why = run(name, stand(name, home))
            # An engine sleeps through a controller's answer now and then: it has it, and
            # wakes up for it when it is stopped. That is no controller's doing, so the
            # script begins anew once. What kvctrld itself gets wrong is never tried again.
            if not fault or attempt == 2 or (name != "lmcache" and not isinstance(why, TimeoutError)):
                break
            print(f"once more with fresh engines: {fault}", flush=True)
        if fault and name != "lmcache":
            faults.append(fault)
        elif fault:
            print(f"not judged, as it is LMCache's own controller: {fault}")
    for together in TABLES:
        table = {name: answers[name] for name in together if name in answers}
        if table:
            faults += compare(table, version)
    for fault in faults:
        print(f"FAILED {fault}")
    if not faults and answers:
        print("every answer as expected, every difference explained" if "lmcache" in answers and "kvctrld" in answers
              else "every answer as expected" if "lmcache" not in answers else "done")
    if faults or args.keep:
        print(f"logs are in {run_dir}")
    else:
        shutil.rmtree(run_dir)
    if missing:
        print(missing)
    sys.exit(1 if faults else 3 if missing and not optional else 0)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=list(STEPS), help="run one of the parts: one replica, LMCache's controller, one "
                        "replica with losses, three replicas behind the front, or those with busy engines")
    parser.add_argument("--keep", action="store_true", help="keep the logs of a run without faults too")
    return parser.parse_args()


def run(name, stand):
    """Returns the answers by step and, if the script could not go on to its end, why: in words, and the exception."""
    answers, begun = {}, time.monotonic()
    try:
        for step in STEPS[name]:
            stand.remarks = []
            try:
                answers[step.id] = step.run(stand)
            except GaveUp as why:
                if name != "lmcache":
                    raise
                answers[step.id] = str(why)  # LMCache's controller is recorded, not judged
            remarks = "".join(f" ({remark})" for remark in stand.remarks)
            print(f"{name} {time.monotonic() - begun:5.1f} s  {step.title}: {report.text(answers[step.id])}{remarks}",
                  flush=True)
    except Exception as why:
        fault = f"{name} at step {step.id}: {why}"
        print(fault)
        traceback.print_exc()
        for process in Process.started:
            print(f"--- end of {process.log_path}\n" + "\n".join(process.log().splitlines()[-15:]))
        return answers, fault, why
    finally:
        end_all()
        stand.close()
    return answers, None, None


def compare(answers, version):
    """Prints the table and returns what is wrong: an answer of kvctrld, or a difference without a reason."""
    faults = []
    print(f"\nengines: lmcache {version}\n")
    report.row("step", *answers, *(["same, or why not"] if len(answers) == 2 else []))
    for step in STEPS[next(iter(answers))]:
        given = [by_step.get(step.id, NOT_REACHED) for by_step in answers.values()]
        cells = [report.text(answer) for answer in given]
        for name, by_step in answers.items():
            if name != "lmcache" and step.id in by_step and not step.satisfied_by(by_step[step.id]):
                faults.append(f"{name} at step {step.id}: want {report.expected(step)}, got {cells[0]}")
        if len(given) == 2:
            if NOT_REACHED in given:
                cells.append("")
            elif given[0] == given[1]:
                cells.append("same")
            else:
                cells.append(REASONS.get(step.id, "UNEXPLAINED"))
                if step.id not in REASONS:
                    faults.append(f"unexplained difference at step {step.id}: {cells[0]} and {cells[1]}")
        report.row(step.title, *cells)
    return faults


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interop: interrupted")
    finally:
        end_all()
