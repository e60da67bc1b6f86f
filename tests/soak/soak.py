#!/usr/bin/env python3
"""Holds a constant load on a service through two sidecars while everything around it changes, and counts what failed.

usage: tests/soak/soak.py [REQUESTS]       (1,000,000 unless given; PROFILE_DIR names where the programs are)

What changes meanwhile, every second something else in turn: a route rule flips, a version gets another number of
replicas, an application is killed, and more seldom Pilot, which like any container is restarted after pauses that grow. SEED repeats a run's choices. A request may fail only with an application: when it was at one that
was killed. Needs h2load (package nghttp2-client). Exits with 1 if any other request failed."""
import collections, json, os, random, re, shutil, signal, subprocess, sys, tempfile, threading, time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("PROFILE_DIR", f"{ROOT}/target/release")
REQUESTS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
CONNECTIONS = 32
SEED = int(os.environ.get("SEED", str(os.getpid())))
# Requests that were at an application when it was killed have failed within this time.
WITH_THE_APPLICATION = 1.0
STATE = tempfile.mkdtemp(prefix="mesh-soak-")
os.environ.update(XDG_STATE_HOME=STATE, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin")
MESH = f"soak-{os.getpid()}"
SEPARATOR = "=== requests"
HERE = os.path.dirname(os.path.abspath(__file__))
dice = random.Random(SEED)
done = collections.Counter()
kills, problems = [], []


def meshctl(*args, check=True, **how):
    ran = subprocess.run([f"{BIN}/meshctl", "--name", MESH, *args], capture_output=True, text=True, **how)
    if check and ran.returncode != 0:
        raise RuntimeError(f"meshctl {' '.join(args)}: {ran.stderr}")
    return ran.stdout


def processes():
    """Pid and arguments of everything that the mesh's supervisor runs."""
    parents, commands = collections.defaultdict(list), {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as f:
                parents[int(f.read().rsplit(")", 1)[1].split()[1])].append(int(pid))
            with open(f"/proc/{pid}/cmdline") as f:
                commands[int(pid)] = f.read().split("\0")
        except OSError:
            pass
    todo = [pid for pid, argv in commands.items() if "supervise" in argv and any(STATE in a for a in argv)]
    found = []
    while todo:
        pid = todo.pop()
        found.append((pid, commands.get(pid, [])))
        todo += parents[pid]
    return found


def kill(what, *words):
    these = [pid for pid, argv in processes() if argv and os.path.basename(argv[0]) == words[0] and set(words[1:]) <= set(argv)]
    if these:
        os.kill(dice.choice(these), signal.SIGKILL)
        done[what] += 1


def flip():
    weights = dice.choice([{"v1": 100}, {"v2": 100}, {"v1": 50, "v2": 50}, {"v1": 90, "v2": 10}])
    rule = {"apiVersion": "config.meshctl.io/v1alpha2", "kind": "RouteRule", "metadata": {"name": "soak"}, "spec": {
        "destination": {"name": "ratings"},
        "route": [{"labels": {"version": version}, "weight": weight} for version, weight in weights.items()]}}
    try:
        meshctl("apply", "-f", "-", input=json.dumps(rule))
        done["rules"] += 1
    except RuntimeError as error:
        # Nothing is written that nobody has looked at.
        if "Pilot does not answer" not in str(error):
            raise
        done["rules refused while Pilot was away"] += 1


def scale():
    meshctl("local", "scale", f"deploy/ratings-{dice.choice(['v1', 'v2'])}", "--replicas", str(dice.randint(2, 4)))
    done["scalings"] += 1


def kill_pilot():
    kill("kills of Pilot", "mesh-pilot")


def kill_application():
    kills.append(time.time())
    kill("kills of an application", "bookinfo", "ratings")


def disturb(ended):
    turns = 3 * [flip, scale, flip, kill_application, flip, scale, flip]
    turns.append(kill_pilot)
    turn = 0
    try:
        while not ended.wait(1):
            turns[turn % len(turns)]()
            turn += 1
    except RuntimeError as error:
        problems.append(error)


def load():
    """Loads the service from a pod; gives what h2load printed, and its line about each request."""
    # The pod's files are its own: the lines come after all is done.
    command = (f"h2load --h1 -t1 -c{CONNECTIONS} -n{REQUESTS} --log-file=/tmp/requests http://ratings:9080/ratings/0; "
               f"echo '{SEPARATOR}'; cat /tmp/requests")
    client = subprocess.Popen([f"{BIN}/meshctl", "--name", MESH, "local", "exec", "deploy/client", "--", "sh", "-c", command],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    ended = threading.Event()
    disturbing = threading.Thread(target=disturb, args=(ended,))
    disturbing.start()
    printed, requests = [], []
    for line in client.stdout:
        if ended.is_set():
            requests.append(line)
        elif line.startswith(SEPARATOR):
            ended.set()
        else:
            printed.append(line)
        if line.startswith("progress"):
            print(f"  {line.strip()}", file=sys.stderr, flush=True)
    ended.set()
    disturbing.join()
    client.wait()
    return "".join(printed), requests


def judge(printed, requests):
    statuses, unexplained, with_application, rows = collections.Counter(), [], 0, len(requests)
    for line in requests:
        began, status, took = line.split("\t")[:3]
        statuses[status] += 1
        if status == "200":
            continue
        at = (int(began) + int(took)) / 1e6
        if any(0 <= at - killed <= WITH_THE_APPLICATION for killed in kills):
            with_application += 1
        else:
            unexplained.append((at, status))
    summary = re.search(r"requests: .*", printed)
    print(f"seed {SEED}; h2load: {summary[0] if summary else printed[-500:]}")
    print("meanwhile: " + ", ".join(f"{count} {what}" for what, count in sorted(done.items())))
    print(f"requests with an answer: {rows}; by status: {dict(statuses)}")
    print(f"failed with an application that was killed: {with_application}; failed otherwise: {len(unexplained)}; without an answer: {REQUESTS - rows}")
    for at, status in unexplained[:10]:
        print(f"  {status} {min((abs(at - killed) for killed in kills), default=-1):.2f} s from the nearest kill of an application")
    for problem in problems:
        print(f"error: {problem}")
    return not unexplained and not problems and rows == REQUESTS


def main():
    if not shutil.which("h2load"):
        raise SystemExit("error: this machine lacks h2load\nhint: sudo apt-get install -y nghttp2-client")
    try:
        meshctl("local", "up", "--wait", "-f", f"{HERE}/soak.yaml")
        good = judge(*load())
        if not good:
            print(meshctl("local", "status", check=False))
    finally:
        meshctl("local", "down", "--purge", check=False)
        shutil.rmtree(STATE, ignore_errors=True)
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
