"""The data path beside Envoy: every case starts both from the same resources and loads them in turn."""
import os, re, socket, statistics, subprocess, time

import resources
from machine import BIN, ENVOY, LOAD_CPU, PROXY_CPU, ROUNDS, SECS, TMP, find, free_port, pss, run, run_time, spread, start, stop_all, wait_for

IDLE = int(os.environ.get("IDLE", "10000"))
NGINX, WRK, H2LOAD = find("NGINX", "nginx"), find("WRK", "wrk"), find("H2LOAD", "h2load")
OURS = {"MESH_ACCESS_LOG": "/dev/null", "MESH_CONCURRENCY": "1", "MESH_LOG": "error", "MESH_ADMIN_PORT": "0",
        "MESH_METRICS_PORT": "0", "MESH_READINESS_PORT": "0"}


def backend():
    """A server that costs little; its ports for HTTP/1.1 and for HTTP/2."""
    http, http2 = free_port(), free_port()
    os.makedirs(f"{TMP}/www", exist_ok=True)
    os.chmod(TMP, 0o755)  # its worker is another user when root runs this
    with open(f"{TMP}/www/1m", "wb") as f:
        f.write(b"x" * (1 << 20))
    with open(f"{TMP}/nginx.conf", "w") as f:
        f.write(f"""daemon off; worker_processes 1; pid {TMP}/nginx.pid; error_log stderr crit;
events {{ worker_connections 16384; }}
http {{ access_log off; keepalive_requests 1000000000; sendfile on; tcp_nopush on; client_body_temp_path {TMP}/b; proxy_temp_path {TMP}/p;
  fastcgi_temp_path {TMP}/f; uwsgi_temp_path {TMP}/u; scgi_temp_path {TMP}/s; http2_max_concurrent_streams 1024;
  server {{ listen 127.0.0.1:{http} backlog=4096; listen 127.0.0.1:{http2} http2 backlog=4096; root {TMP}/www;
    location = /1m {{ }}
    location / {{ return 200 "hello from the backend: a small static body of one hundred bytes, give or take a few, for the bench\\n"; }} }} }}
""")
    start([NGINX, "-p", TMP, "-c", f"{TMP}/nginx.conf"], LOAD_CPU)
    wait_for(http)
    return http, http2


class Row:
    """Proxies in a row: `port` leads to the first, `pids` are all of them."""

    def __init__(self, name, port, pids):
        self.name, self.port, self.pids = name, port, pids

    def cpu(self):
        return sum(run_time(pid) for pid in self.pids)


class Subject(Row):
    """One or two of Envoy or mesh-proxy."""

    def __init__(self, name, upstream, protocols, env=None, **how):
        super().__init__(name, upstream, [])
        for protocol in reversed(protocols):
            listen = free_port()
            path = f"{TMP}/{name}-{listen}.json"
            with open(path, "w") as f:
                f.write(resources.proxy(listen, self.port, protocol, log=name == "envoy", **how))
            argv = ([ENVOY, "-c", path, "--concurrency", "1", "--base-id", str(listen), "-l", "error"] if name == "envoy"
                    else [f"{BIN}/mesh-proxy", "--config", path])
            self.pids.append(start(argv, PROXY_CPU, **OURS, **(env or {})).pid)
            wait_for(listen)
            self.port = listen


def subjects(upstream, *protocols, **how):
    return [Subject(name, upstream, protocols, **how) for name in ("envoy", "mesh-proxy")]


def wrk(port, connections, path="/"):
    out = run([WRK, "-t1", f"-c{connections}", f"-d{SECS}s", f"http://127.0.0.1:{port}{path}"])
    bad = re.search(r"Non-2xx.*|Socket errors.*", out)
    return int(re.search(r"(\d+) requests in", out)[1]), bad and bad[0]


def h2load(port, clients, streams):
    out = run([H2LOAD, "-t1", f"-c{clients}", f"-m{streams}", "-D", str(SECS), f"http://127.0.0.1:{port}/"])
    done = re.search(r"(\d+) succeeded, (\d+) failed", out)
    return int(done[1]), None if done[2] == "0" else f"{done[2]} failed"


def median_latency(port):
    """Microseconds at 1,000 requests a second over 16 connections."""
    log = f"{TMP}/latency"
    if os.path.exists(log):
        os.remove(log)
    run([H2LOAD, "--h1", "-t1", "-c16", "--rps", "62.5", "-D", str(SECS), f"--log-file={log}", f"http://127.0.0.1:{port}/"])
    rows = [line.split("\t") for line in open(log)]
    return statistics.median(int(row[2]) for row in rows if row[1] == "200")


def interleave(subjects, cases, load):
    """CPU microseconds per request, by case and subject; the first round only warms up."""
    results = {}
    for turn in range(-1, ROUNDS):
        for case in cases:
            for subject in subjects:
                before = subject.cpu()
                count, bad = load(subject.port, case)
                if bad:
                    print(f"  {subject.name}: {bad}")
                if turn >= 0:
                    results.setdefault((case, subject.name), []).append((subject.cpu() - before) / 1000 / max(1, count))
    return results


def table(title, results, cases, goals, unit="us of CPU"):
    """Goals are ratios to Envoy."""
    peers = [name for name in ("envoy", "haproxy") if any(who == name for _, who in results)]
    print(f"\n{title}: {unit}, {ROUNDS} rounds of {SECS} s", flush=True)
    print(f"  {'':>22}" + "".join(f" {name:>26}" for name in [*peers, "mesh-proxy"]) + "".join(f" {'/ ' + name:>9}" for name in peers))
    for case in cases:
        goal = f"   goal <= {goals[case]} of envoy" if case in goals else ""
        ours = results[(case, "mesh-proxy")]
        columns = "".join(f" {spread(results[(case, name)]):>26}" for name in [*peers, "mesh-proxy"])
        ratios = "".join(f" {statistics.median(ours) / statistics.median(results[(case, name)]):9.2f}" for name in peers)
        print(f"  {case:>22}{columns}{ratios}{goal}", flush=True)


def compared(title, goals, port_of, protocols, load, cases, **how):
    servers = backend()
    try:
        both = subjects(servers[port_of], *protocols, **how)
        table(title, interleave(both, cases, load), cases, goals)
    finally:
        stop_all()


CONNECTIONS = {"1 connection": 1, "16 connections": 16, "64 connections": 64}


def by_connections(port, case):
    return wrk(port, CONNECTIONS[case])


def hop():
    compared("One HTTP/1.1 hop", {"64 connections": 0.5}, 0, ["http"], by_connections, CONNECTIONS)


def double():
    compared("Two proxies, HTTP/2 between them, per request of both", {"64 connections": 0.5}, 0, ["http2", "http"],
             by_connections, CONNECTIONS)


def streams():
    load = {"1 x 1 streams": (1, 1), "8 x 32 streams": (8, 32)}
    compared("HTTP/2 all the way through two proxies", {"8 x 32 streams": 0.4}, 1, ["http2", "http2"],
             lambda port, case: h2load(port, *load[case]), load)


def big():
    compared("Bodies of 1 MiB, one hop", {"4 connections": 0.7}, 0, ["http"],
             lambda port, _: wrk(port, 4, "/1m"), ["4 connections"])


def tcp():
    load = {"64 small": (64, "/"), "4 of 1 MiB": (4, "/1m")}
    compared("Opaque TCP", {"64 small": 0.8, "4 of 1 MiB": 0.8}, 0, ["tcp"],
             lambda port, case: wrk(port, *load[case]), load)


def rate():
    server, _ = backend()
    try:
        both = subjects(server, "http2", "http")
        results, direct = {}, []
        for turn in range(-1, ROUNDS):
            straight = median_latency(server)
            for subject in both:
                added = median_latency(subject.port) - straight
                if turn >= 0:
                    results.setdefault(("added", subject.name), []).append(added)
            if turn >= 0:
                direct.append(straight)
        table(f"Median latency that two proxies add at 1,000 requests/s (without: {spread(direct).strip()})", results,
              ["added"], {"added": 0.6}, "us")
    finally:
        stop_all()


def routes():
    server, _ = backend()
    try:
        few, many = Subject("mesh-proxy", server, ["http"]), Subject("mesh-proxy", server, ["http"], others=10_000)
        few.name, many.name = "envoy", "mesh-proxy"
        results = interleave([few, many], ["64 connections"], by_connections)
        one, all_ = (results[("64 connections", name)] for name in ("envoy", "mesh-proxy"))
        print(f"\nA request with 10,000 routes, clusters and endpoints beside its own: {spread(all_).strip()} us of CPU, without them "
              f"{spread(one).strip()}: {statistics.median(all_) / statistics.median(one):.2f}   goal < 1.10", flush=True)
    finally:
        stop_all()


def idle():
    server, _ = backend()
    try:
        rest(subjects(server, "http"), lambda subject: socket.create_connection(("127.0.0.1", subject.port), 5), IDLE, 8)
    finally:
        stop_all()


def rest(subjects, connect, most, goal, what=""):
    """What a connection costs that has done a request and rests."""
    print(f"\nIdle connections{what} ({most}, each after one request), KiB of PSS each", flush=True)
    for subject in subjects:
        # The first fill pools and grow the heap; only what comes after them is counted.
        held, sizes = [], []
        for count in (most // 4, most):
            while len(held) < count:
                s = connect(subject)
                s.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
                while b"the bench" not in s.recv(4096):
                    pass
                held.append(s)
            time.sleep(1)
            sizes.append(pss(subject.pids[-1]))
        each = (sizes[1] - sizes[0]) * 1024 / (most - most // 4)
        print(f"  {subject.name:>12} {each:8.1f}" + (f"   goal <= {goal}" if subject.name == "mesh-proxy" else ""), flush=True)
        for s in held:
            s.close()


def where_possible(case):
    def measure():
        missing = [name for name, program in (("nginx", NGINX), ("wrk", WRK), ("h2load", H2LOAD), ("envoy (scripts/get-envoy)", ENVOY))
                   if not program]
        if missing:
            print(f"{case.__name__}: left out, as this machine lacks {', '.join(missing)}; "
                  "sudo apt-get install -y nginx-light wrk nghttp2-client")
            return
        case()
    return measure


CASES = {case.__name__: where_possible(case) for case in (hop, double, streams, big, tcp, rate, idle, routes)}
