"""The mesh on one machine: how fast it starts and follows, and what it costs at rest."""
import glob, json, os, subprocess, time, urllib.request

from machine import BIN, ROOT, TMP, pss, run_time, spread

STATE = {"XDG_STATE_HOME": f"{TMP}/state"}


def meshctl(*args):
    return subprocess.run([f"{BIN}/meshctl", *args], capture_output=True, text=True, env={**os.environ, **STATE})


def measure():
    times = []
    for _ in range(20):
        t = time.perf_counter()
        meshctl("version", "--client")
        times.append((time.perf_counter() - t) * 1000)
    print(f"\nmeshctl version --client: {spread(times).strip()} ms   goal <= 20")
    t = time.perf_counter()
    up = meshctl("local", "up", "--name", "bench", "-f", f"{ROOT}/samples/bookinfo/bookinfo.yaml", "--wait")
    if up.returncode != 0:
        print(f"mesh: left out, as it does not start here:\n{up.stderr}")
        return
    try:
        status = json.loads(meshctl("local", "status", "--name", "bench", "-o", "json").stdout)
        while True:
            try:
                if urllib.request.urlopen(f"{status['gateway']}/productpage", timeout=5).status == 200:
                    break
            except OSError:
                time.sleep(0.02)
        print(f"local up to the first 200 through the gateway: {time.perf_counter() - t:.2f} s   goal <= 5")
        rules()
        at_rest()
    finally:
        meshctl("local", "down", "--name", "bench", "--purge")


def rules():
    follow = []
    for i in range(15):
        t = time.perf_counter()
        created = meshctl("--name", "bench", "create", "route-rule", f"bench-{i}", "--destination", "reviews", "--route",
                          "version=v1:100", "--precedence", str(i), "--wait")
        if created.returncode != 0:
            print(created.stderr)
            return
        follow.append((time.perf_counter() - t) * 1000)
    print(f"rule created until every proxy has acknowledged it, with meshctl's own time: {spread(follow).strip()} ms   goal: median <= 50")


def at_rest():
    pids = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            argv = open(path).read().split("\0")
        except OSError:
            continue
        # Those of other meshes on the machine were started from elsewhere, or are not ours to judge.
        if argv[0] == f"{BIN}/mesh-proxy" and "sidecar" in argv:
            pids.append(int(path.split("/")[2]))
    before = {pid: run_time(pid) for pid in pids}
    time.sleep(5)
    sizes = [pss(pid) for pid in pids]
    busy = [(run_time(pid) - before[pid]) / 5e9 * 100 for pid in pids]
    if sizes:
        print(f"a sidecar at rest: {spread(sizes).strip()} MiB PSS   goal <= 12;  CPU {spread(busy).strip()} %   goal 0")
