"""Processes under measurement: started on their core, accounted for, stopped."""
import glob, os, re, shutil, signal, socket, statistics, subprocess, tempfile, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.environ.get("PROFILE_DIR", f"{ROOT}/target/release")
SECS, ROUNDS = int(os.environ.get("SECS", "2")), int(os.environ.get("ROUNDS", "5"))
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


ENVOY = find("ENVOY", f"{ROOT}/target/envoy/bin/envoy", "envoy")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(argv, cpus, **env):
    with open(f"{TMP}/log", "ab") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **env},
                                   preexec_fn=lambda: os.sched_setaffinity(0, cpus))
    started.append(process)
    return process


def run(argv):
    """Runs a client on its core and gives what it printed."""
    return subprocess.run(argv, capture_output=True, text=True,
                          preexec_fn=lambda: os.sched_setaffinity(0, LOAD_CPU)).stdout


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


def remove():
    shutil.rmtree(TMP, ignore_errors=True)


def wait_for(port, seconds=30):
    end = time.time() + seconds
    while time.time() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
            return
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"nothing listens on {port}; the logs have:\n{open(f'{TMP}/log', errors='replace').read()[-2000:]}")


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
    """MiB of memory, shared pages by share."""
    return int(re.search(r"^Pss:\s+(\d+)", open(f"/proc/{pid}/smaps_rollup").read(), re.M)[1]) / 1024


def spread(values):
    return f"{statistics.median(values):8.2f} ({min(values):.2f}-{max(values):.2f})"
