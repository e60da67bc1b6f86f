"""Mutual TLS beside Envoy, and beside HAProxy where that is installed; HAProxy verifies chains alone, and writes no log."""
import socket, ssl, subprocess

import resources
from machine import PROXY_CPU, TMP, find, free_port, start, stop_all, wait_for
from paths import CONNECTIONS, IDLE, Row, Subject, backend, by_connections, interleave, rest, table, where_possible, wrk

HAPROXY = find("HAPROXY", "haproxy")


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


def pairs(upstream, between, resumes=True, each=None):
    """Two of each: HTTP/1.1, mutual TLS between them, HTTP/1.1."""
    files, name = identity()
    made = []
    for subject in ("envoy", "mesh-proxy"):
        own = files if subject == "envoy" else None
        env = dict(zip(("MESH_SVID_CERTIFICATE", "MESH_SVID_KEY", "MESH_SVID_ROOTS"), files))
        last = Subject(subject, upstream, ["http"], env=env, tls_in=resources.tls_socket("Downstream", own, between))
        first = Subject(subject, last.port, [between], env=env, each=each,
                        tls_out=resources.tls_socket("Upstream", own, between, name, resumes))
        made.append(Row(subject, first.port, first.pids + last.pids))
    if HAPROXY:
        last = haproxy(upstream, files, between, resumes, tls_in=True)
        first = haproxy(last.port, files, between, resumes, tls_in=False, each=each)
        made.append(Row("haproxy", first.port, first.pids + last.pids))
    return made


def haproxy(upstream, files, between, resumes=True, tls_in=True, each=None):
    """One HAProxy that ends TLS, or begins it."""
    certificate, key, root = files
    with open(f"{TMP}/both.pem", "w") as f:
        f.write(open(certificate).read() + open(key).read())
    tls = f"ssl crt {TMP}/both.pem ca-file {root} verify required alpn {'h2' if between == 'http2' else 'http/1.1'}"
    bind, server = (tls, "") if tls_in else ("", tls + ("" if resumes else " no-ssl-reuse"))
    listen = free_port()
    path = f"{TMP}/haproxy-{listen}.cfg"
    with open(path, "w") as f:
        f.write(f"""global
  nbthread 1
  maxconn 9000
  ssl-default-bind-options ssl-min-ver TLSv1.3
{'' if resumes else '  tune.ssl.cachesize 0'}
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  {'option http-server-close' if each else 'http-reuse always'}
listen bench
  bind 127.0.0.1:{listen} backlog 4096 {bind}
  server backend 127.0.0.1:{upstream} {server}
""")
    pid = start([HAPROXY, "-db", "-f", path], PROXY_CPU).pid
    wait_for(listen)
    return Row("haproxy", listen, [pid])


def mtls():
    server, _ = backend()
    try:
        table("Two proxies, HTTP/2 by mutual TLS between them, per request of both",
              interleave(pairs(server, "http2"), CONNECTIONS, by_connections), CONNECTIONS, {"64 connections": 0.5})
    finally:
        stop_all()


def handshakes():
    server, _ = backend()
    try:
        for title, resumes, goal in [("A whole handshake", False, 1.0), ("A resumed handshake", True, 0.5)]:
            results = interleave(pairs(server, "http", resumes, each=1), ["8 connections"], lambda port, _: wrk(port, 8))
            table(f"{title} between two proxies for each request, both sides of it", results, ["8 connections"], {"8 connections": goal})
    finally:
        stop_all()


def idle_mtls():
    """Connections of a client that has an identity to the proxy that is called."""
    server, _ = backend()
    try:
        files, _ = identity()
        env = dict(zip(("MESH_SVID_CERTIFICATE", "MESH_SVID_KEY", "MESH_SVID_ROOTS"), files))
        made = [Subject(name, server, ["http"], env=env, tls_in=resources.tls_socket("Downstream", files if name == "envoy" else None, "http"))
                for name in ("envoy", "mesh-proxy")]
        if HAPROXY:
            made.append(haproxy(server, files, "http"))
        rest(made, lambda subject: secured(subject, files), min(IDLE, 8000), 26, " by mutual TLS")
    finally:
        stop_all()


def secured(subject, files):
    certificate, key, root = files
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # names are URIs
    context.load_verify_locations(root)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["mesh-http/1.1" if subject.name == "mesh-proxy" else "http/1.1"])
    return context.wrap_socket(socket.create_connection(("127.0.0.1", subject.port), 5))


CASES = {name: where_possible(case) for name, case in {"mtls": mtls, "handshakes": handshakes, "idle-mtls": idle_mtls}.items()}
