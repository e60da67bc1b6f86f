#!/usr/bin/env python3
"""Measures the mesh beside a stock Envoy on one machine and prints ratios. Asserts nothing.

usage: benches/bench.py [hop] [mesh]       (both unless named)

  hop   CPU microseconds per request of the proxy processes alone, for one HTTP/1.1 hop from static resources: the
        scheduler's run time of all their threads, divided by the requests that the client counted. Interleaved
        rounds; median (min-max). One worker per proxy, proxies on the last core, client and backend on the first.
        Then the memory of idle connections.
  mesh  time of `local up` to the first 200 through the gateway, time from a rule's creation until all proxies follow
        it, memory (PSS) and CPU of a sidecar at rest, start time of meshctl.

Environment: PROFILE_DIR (target/release), ENVOY (target/envoy/bin/envoy), NGINX, WRK; SECS per round (2), ROUNDS (5), IDLE connections (4000).
Only ratios within one run mean anything: machines are shared."""
import glob, json, os, re, shutil, signal, socket, statistics, subprocess, sys, tempfile, time, urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.environ.get("PROFILE_DIR", f"{ROOT}/target/release")
SECS, ROUNDS = int(os.environ.get("SECS", "2")), int(os.environ.get("ROUNDS", "5"))
IDLE = int(os.environ.get("IDLE", "4000"))
os.environ["PATH"] += ":/usr/sbin:/sbin"
TMP = tempfile.mkdtemp(prefix="mesh-bench-")
CPUS = sorted(os.sched_getaffinity(0))
LOAD_CPU, PROXY_CPU = {CPUS[0]}, {CPUS[-1]}
started = []


def find(variable, *names):
    for name in filter(None, [os.environ.get(variable), *names]):
        if shutil.which(name):
            return shutil.which(name)
    return None


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(argv, cpus, **env):
    log = open(f"{TMP}/log", "ab")
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **env},
                               preexec_fn=lambda: os.sched_setaffinity(0, cpus))
    started.append(process)
    return process


def stop_all():
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    for process in started:
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    started.clear()


def wait_for(port, seconds=10):
    end = time.time() + seconds
    while time.time() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
            return
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"nothing listens on {port}; {TMP}/log has:\n{open(f'{TMP}/log', errors='replace').read()[-2000:]}")


def run_time(pid):
    """Nanoseconds that all threads of a process have run."""
    total = 0
    for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        try:
            total += int(open(path).read().split()[0])
        except OSError:
            pass
    return total


def pss(pid):
    return int(re.search(r"^Pss:\s+(\d+)", open(f"/proc/{pid}/smaps_rollup").read(), re.M)[1]) / 1024


def wrk(program, port, connections):
    out = subprocess.run([program, "-t1", f"-c{connections}", f"-d{SECS}s", f"http://127.0.0.1:{port}/"], capture_output=True, text=True,
                         preexec_fn=lambda: os.sched_setaffinity(0, LOAD_CPU)).stdout
    bad = re.search(r"Non-2xx.*|Socket errors.*", out)
    return int(re.search(r"(\d+) requests in", out)[1]), bad and bad[0]


def spread(values):
    return f"{statistics.median(values):8.2f} ({min(values):.2f}-{max(values):.2f})"


def hop():
    nginx, load, envoy = find("NGINX", "nginx"), find("WRK", "wrk"), find("ENVOY", f"{ROOT}/target/envoy/bin/envoy", "envoy")
    missing = [n for n, p in (("nginx", nginx), ("wrk", load), ("envoy (scripts/get-envoy)", envoy)) if not p]
    if missing:
        print(f"hop: left out, as this machine lacks {', '.join(missing)}; sudo apt-get install -y nginx-light wrk")
        return
    backend = free_port()
    conf = f"{TMP}/nginx.conf"
    with open(conf, "w") as f:
        f.write(f"""daemon off; worker_processes 1; pid {TMP}/nginx.pid; error_log stderr crit;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {TMP}/b; proxy_temp_path {TMP}/p;
  fastcgi_temp_path {TMP}/f; uwsgi_temp_path {TMP}/u; scgi_temp_path {TMP}/s;
  server {{ listen 127.0.0.1:{backend} backlog=4096;
    location / {{ return 200 "hello from the backend: a small static body of one hundred bytes, give or take a few, for the bench\\n"; }} }} }}
""")
    start([nginx, "-p", TMP, "-c", conf], LOAD_CPU)
    wait_for(backend)
    template = open(f"{ROOT}/benches/hop.yaml.in").read()
    log = ('access_log: [{ name: envoy.access_loggers.file, typed_config: { "@type": type.googleapis.com/'
           'envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /dev/null } }]')
    subjects = {}
    for name in ("envoy", "mesh-proxy"):
        port = free_port()
        path = f"{TMP}/{name}.yaml"
        text = template.replace("@LISTEN@", str(port)).replace("@UPSTREAM@", str(backend))
        with open(path, "w") as f:
            f.write(text.replace("@ACCESS_LOG@", log if name == "envoy" else ""))
        argv = ([envoy, "-c", path, "--concurrency", "1", "--base-id", str(port), "-l", "error"] if name == "envoy"
                else [f"{BIN}/mesh-proxy", "--config", path])
        process = start(argv, PROXY_CPU, MESH_ACCESS_LOG="/dev/null", MESH_CONCURRENCY="1", MESH_LOG="error",
                        MESH_ADMIN_PORT="0", MESH_METRICS_PORT="0", MESH_READINESS_PORT="0")
        wait_for(port)
        subjects[name] = (port, process.pid)
    cases = (1, 16, 64)
    results = {}
    for round_ in range(-1, ROUNDS):
        for case in cases:
            for name, (port, pid) in subjects.items():
                before = run_time(pid)
                count, bad = wrk(load, port, case)
                if bad:
                    print(f"  {name}: {bad}")
                if round_ >= 0:
                    results.setdefault((case, name), []).append((run_time(pid) - before) / 1000 / max(1, count))
    print(f"\nOne HTTP/1.1 hop, access log on, CPU us per request of the proxy alone ({ROUNDS} rounds of {SECS} s)")
    print(f"  {'connections':>12} {'envoy':>26} {'mesh-proxy':>26} {'ratio':>7}   goal <= 0.6 at 64")
    for case in cases:
        a, b = results[(case, "envoy")], results[(case, "mesh-proxy")]
        print(f"  {case:>12} {spread(a):>26} {spread(b):>26} {statistics.median(b) / statistics.median(a):7.2f}")
    idle(subjects)
    stop_all()


def idle(subjects):
    """What a connection costs that has done a request and rests."""
    print(f"\nIdle connections ({IDLE}, each after one request), KiB PSS each")
    for name, (port, pid) in subjects.items():
        # The first few hundred fill pools and grow the heap; only what comes after them is counted.
        held, sizes = [], []
        for count in (IDLE // 4, IDLE):
            while len(held) < count:
                s = socket.create_connection(("127.0.0.1", port), 5)
                s.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
                while b"the bench" not in s.recv(4096):
                    pass
                held.append(s)
            time.sleep(1)
            sizes.append(pss(pid))
        each = (sizes[1] - sizes[0]) * 1024 / (IDLE - IDLE // 4)
        goal = "" if name == "envoy" else "   goal <= 8"
        print(f"  {name:>12} {each:8.1f}{goal}")
        for s in held:
            s.close()


def meshctl(*args, **kw):
    return subprocess.run([f"{BIN}/meshctl", *args], capture_output=True, text=True, env={**os.environ, **kw})


def mesh():
    state = {"XDG_STATE_HOME": f"{TMP}/state"}
    times = []
    for _ in range(20):
        t = time.perf_counter()
        meshctl("version", "--client")
        times.append((time.perf_counter() - t) * 1000)
    print(f"\nmeshctl version --client: {spread(times)} ms   goal <= 20")
    t = time.perf_counter()
    up = meshctl("local", "up", "--name", "bench", "-f", f"{ROOT}/samples/bookinfo/bookinfo.yaml", "--wait", **state)
    if up.returncode != 0:
        print(f"mesh: left out, as it does not start here:\n{up.stderr}")
        return
    try:
        status = json.loads(meshctl("local", "status", "--name", "bench", "-o", "json", **state).stdout)
        while True:
            try:
                if urllib.request.urlopen(f"{status['gateway']}/productpage", timeout=5).status == 200:
                    break
            except OSError:
                time.sleep(0.02)
        print(f"local up to the first 200 through the gateway: {time.perf_counter() - t:.2f} s   goal <= 5")
        follow = []
        for i in range(15):
            t = time.perf_counter()
            r = meshctl("--name", "bench", "create", "route-rule", f"bench-{i}", "--destination", "reviews", "--route", "version=v1:100",
                        "--precedence", str(i), "--wait", **state)
            if r.returncode != 0:
                print(r.stderr)
                break
            follow.append((time.perf_counter() - t) * 1000)
        if follow:
            print(f"rule created until every proxy has acknowledged it, with meshctl's own time: {spread(follow)} ms   goal: median <= 50")
        sizes, busy = [], []
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
        for pid in pids:
            sizes.append(pss(pid))
            busy.append((run_time(pid) - before[pid]) / 5e9 * 100)
        if sizes:
            print(f"a sidecar at rest: {spread(sizes)} MiB PSS   goal <= 12;  CPU {spread(busy)} %   goal 0")
    finally:
        meshctl("local", "down", "--name", "bench", "--purge", **state)


if __name__ == "__main__":
    try:
        for test in sys.argv[1:] or ["hop", "mesh"]:
            {"hop": hop, "mesh": mesh}[test]()
    finally:
        stop_all()
        shutil.rmtree(TMP, ignore_errors=True)
