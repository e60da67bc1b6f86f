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


class Subject:
    """One or two proxies in a row: `port` leads to the first, `pids` are all of them."""

    def __init__(self, name, upstream, protocols, env=None, **how):
        self.name, self.pids, self.port = name, [], upstream
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

    def cpu(self):
        return sum(run_time(pid) for pid in self.pids)


def identity():
    """The files of an SVID: its certificate, its key and the root, and its name."""
    name = "spiffe://cluster.local/ns/bench/sa/bench"
    certificate, key, root = files = [f"{TMP}/{file}.pem" for file in ("certificate", "key", "root")]
    with open(f"{TMP}/extensions", "w") as f:
        f.write(f"basicConstraints=critical,CA:false\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n"
                f"subjectAltName=critical,URI:{name}\n")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *curve, "-keyout", f"{TMP}/root.key", "-out", root, "-days", "2", "-subj", "/O=bench",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-addext", "subjectAltName=URI:spiffe://cluster.local")
    openssl("req", *curve, "-keyout", key, "-out", f"{TMP}/request", "-subj", "/O=bench")
    openssl("x509", "-req", "-in", f"{TMP}/request", "-CA", root, "-CAkey", f"{TMP}/root.key", "-CAcreateserial", "-days", "1",
            "-extfile", f"{TMP}/extensions", "-out", certificate)
    return files, name


def openssl(*arguments):
    ran = subprocess.run(["openssl", *arguments], capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(f"error: openssl {arguments[0]}: {ran.stderr}")


def encrypted(upstream, between, resumes=True, each=None):
    """Both of each: HTTP/1.1, mutual TLS between them, HTTP/1.1."""
    files, name = identity()
    pairs = []
    for subject in ("envoy", "mesh-proxy"):
        own = files if subject == "envoy" else None
        env = dict(zip(("MESH_SVID_CERTIFICATE", "MESH_SVID_KEY", "MESH_SVID_ROOTS"), files))
        last = Subject(subject, upstream, ["http"], env=env, tls_in=resources.tls_socket("Downstream", own, between))
        first = Subject(subject, last.port, [between], env=env, each=each,
                        tls_out=resources.tls_socket("Upstream", own, between, name, resumes))
        first.pids += last.pids
        pairs.append(first)
    return pairs


def mtls():
    server, _ = backend()
    try:
        table("Two proxies, HTTP/2 by mutual TLS between them, per request of both",
              interleave(encrypted(server, "http2"), CONNECTIONS, by_connections), CONNECTIONS, {"64 connections": 0.5})
    finally:
        stop_all()


def handshakes():
    server, _ = backend()
    try:
        for title, resumes, goal in [("A whole handshake", False, 1.0), ("A resumed handshake", True, 0.5)]:
            results = interleave(encrypted(server, "http", resumes, each=1), ["8 connections"], lambda port, _: wrk(port, 8))
            table(f"{title} between two proxies for each request, both sides of it", results, ["8 connections"], {"8 connections": goal})
    finally:
        stop_all()


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
    print(f"\n{title}: {unit}, {ROUNDS} rounds of {SECS} s", flush=True)
    print(f"  {'':>22} {'envoy':>26} {'mesh-proxy':>26} {'ratio':>7}")
    for case in cases:
        theirs, ours = results[(case, "envoy")], results[(case, "mesh-proxy")]
        goal = f"   goal <= {goals[case]}" if case in goals else ""
        print(f"  {case:>22} {spread(theirs):>26} {spread(ours):>26} {statistics.median(ours) / statistics.median(theirs):7.2f}{goal}", flush=True)


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
    """What a connection costs that has done a request and rests."""
    server, _ = backend()
    try:
        print(f"\nIdle connections ({IDLE}, each after one request), KiB of PSS each", flush=True)
        for subject in subjects(server, "http"):
            # The first fill pools and grow the heap; only what comes after them is counted.
            held, sizes = [], []
            for count in (IDLE // 4, IDLE):
                while len(held) < count:
                    s = socket.create_connection(("127.0.0.1", subject.port), 5)
                    s.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
                    while b"the bench" not in s.recv(4096):
                        pass
                    held.append(s)
                time.sleep(1)
                sizes.append(pss(subject.pids[0]))
            each = (sizes[1] - sizes[0]) * 1024 / (IDLE - IDLE // 4)
            goal = "" if subject.name == "envoy" else "   goal <= 8"
            print(f"  {subject.name:>12} {each:8.1f}{goal}", flush=True)
            for s in held:
                s.close()
    finally:
        stop_all()


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


CASES = {case.__name__: where_possible(case) for case in (hop, double, streams, big, tcp, rate, idle, routes, mtls, handshakes)}
