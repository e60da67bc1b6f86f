"""Many pods on one machine: how long `local up` takes until all are ready, and what that costs."""
import glob, json, os, time

from machine import TMP, pss, run_time
from mesh import meshctl

PODS = int(os.environ.get("PODS", "100"))

SERVICE = """---
apiVersion: v1
kind: Service
metadata: {name: s%d}
spec: {selector: {app: s%d}, ports: [{name: http, port: 9080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: s%d}
spec:
  selector: {matchLabels: {app: s%d}}
  template:
    metadata: {labels: {app: s%d}}
    spec: {containers: [{name: app, image: app, readinessProbe: {httpGet: {path: /health, port: 9080}}}]}
"""


def below(pid):
    """The processes below one, with their names."""
    children = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path) as f:
                text = f.read()
        except OSError:
            continue
        name, rest = text[text.index("(") + 1:text.rindex(")")], text[text.rindex(")") + 2:].split()
        children.setdefault(int(rest[1]), []).append((int(path.split("/")[2]), name))
    found, todo = [], [pid]
    while todo:
        for child in children.get(todo.pop(), []):
            found.append(child)
            todo.append(child[0])
    return found


def measure():
    path = f"{TMP}/crowd.yaml"
    with open(path, "w") as f:
        f.writelines(SERVICE % ((i,) * 5) for i in range(PODS))
    t = time.perf_counter()
    up = meshctl("local", "up", "--name", "crowd", "-f", path, "--image", "app=bookinfo ratings", "--timeout", "300s")
    took = time.perf_counter() - t
    try:
        if up.returncode != 0:
            print(f"{PODS} pods: not all got ready\n{up.stderr[-2000:]}")
            return
        pid = json.loads(meshctl("local", "status", "--name", "crowd", "-o", "json").stdout)["pid"]
        cpu, memory = {}, {}
        for process, name in below(pid):
            try:
                cpu[name] = cpu.get(name, 0) + run_time(process) / 1e9
                memory[name] = memory.get(name, 0) + pss(process)
            except OSError:
                pass
        print(f"\n{PODS} pods, each with a sidecar and a Service, until all are ready: {took:.1f} s   goal <= 30")
        for name in sorted(cpu, key=cpu.get, reverse=True)[:5]:
            print(f"  {name:>16} {cpu[name]:8.1f} s of CPU {memory[name]:8.0f} MiB PSS")
    finally:
        meshctl("local", "down", "--name", "crowd", "--purge")
