#!/usr/bin/env python3
"""Measures the mesh beside a stock Envoy on one machine and prints ratios in one table. Asserts nothing.

usage: benches/bench.py [CASE ...]       (all unless named)

  hop       one HTTP/1.1 hop                                     double    HTTP/1.1, HTTP/2 between two proxies
  streams   8 clients x 32 HTTP/2 streams through two proxies    big       bodies of 1 MiB through one hop
  tcp       opaque TCP: small messages, and 1 MiB at a time      rate      added median latency at 1,000 requests/s
  idle      memory of idle connections, 10,000 of them           routes    10,000 routes, clusters and endpoints beside one
  mtls      as double, by mutual TLS                             handshakes  each request a handshake between two proxies
  idle-mtls  memory of idle connections by mutual TLS            (these three beside HAProxy too, where it is installed)
  mesh      the mesh on one machine: start, a rule's way to all proxies, sidecars at rest, start of meshctl
  csr       certificates signed by the CA: alone, on an open connection, with a connection each
  crowd     100 pods on one machine: time until all are ready, CPU and memory by then

CPU is the scheduler's run time of all threads of the proxy processes alone, divided by the requests that the client
counted; rounds are interleaved; median (min-max). Access logs are on. One worker per proxy, proxies on the last core,
client and backend on the first.

Environment: PROFILE_DIR (target/release), ENVOY (target/envoy/bin/envoy), HAPROXY, NGINX, WRK, H2LOAD; SECS per round (2), ROUNDS (5),
IDLE connections (10000), PODS of a crowd (100). Only ratios within one run mean anything: machines are shared."""
import subprocess
import sys

import crowd
import encrypted
import machine
import mesh
import paths



def csr():
    """Signing requests that the CA answers per second of one core's time."""
    subprocess.run(["cargo", "bench", "--quiet", "-p", "ca", "--bench", "rate", "--", str(machine.SECS)], check=True)


CASES = {**paths.CASES, **encrypted.CASES, "mesh": mesh.measure, "crowd": crowd.measure, "csr": csr}


def main(names):
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise SystemExit(f"error: no case is called {', '.join(unknown)}\nhint: {' '.join(CASES)}")
    try:
        for name in names or CASES:
            CASES[name]()
    finally:
        machine.stop_all()
        machine.remove()


if __name__ == "__main__":
    if "--help" in sys.argv or "-h" in sys.argv:
        print(__doc__)
    else:
        main(sys.argv[1:])
