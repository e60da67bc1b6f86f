"""Static xDS resources of a proxy under measurement: the same for Envoy and for mesh-proxy, read by both."""
import json

TYPE = "type.googleapis.com/envoy.extensions."
LOG = {"name": "envoy.access_loggers.file",
       "typed_config": {"@type": TYPE + "access_loggers.file.v3.FileAccessLog", "path": "/dev/null"}}


def address(port, host="127.0.0.1"):
    return {"socket_address": {"address": host, "port_value": port}}


def cluster(name, port, protocol="http"):
    """One endpoint, which speaks `http`, `http2` or (`tcp`) whatever is sent."""
    it = {"name": name, "type": "STATIC", "connect_timeout": "5s",
          # As many connections as the load makes.
          "circuit_breakers": {"thresholds": [{"max_connections": 100000, "max_pending_requests": 100000, "max_requests": 100000}]},
          "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}]}}
    if protocol == "http2":
        options = {"@type": TYPE + "upstreams.http.v3.HttpProtocolOptions",
                   "explicit_http_config": {"http2_protocol_options": {}}}
        it["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}
    return it


def tls_socket(kind, files, inside, server=None, resumes=True):
    """Mutual TLS: with `files` (certificate, key, root) for Envoy, with the proxy's own identity for mesh-proxy."""
    names = {"match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": server}}]} if server else {}
    common = {"tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
              # Envoy takes the chosen word for what is inside, and knows its own words alone.
              "alpn_protocols": ["h2" if inside == "http2" else "http/1.1"] if files else ["mesh-h2", "mesh-http/1.1"]}
    if files:
        certificate, key, root = ({"filename": file} for file in files)
        common |= {"tls_certificates": [{"certificate_chain": certificate, "private_key": key}],
                   "validation_context": {"trusted_ca": root, **names}}
    else:
        common |= {"tls_certificate_sds_secret_configs": [{"name": "default"}]}
        bundle = {"name": "ROOTCA"}
        common |= ({"combined_validation_context": {"default_validation_context": names, "validation_context_sds_secret_config": bundle}}
                   if server else {"validation_context_sds_secret_config": bundle})
    context = {"@type": f"{TYPE}transport_sockets.tls.v3.{kind}TlsContext", "common_tls_context": common}
    context |= {"require_client_certificate": True} if kind == "Downstream" else {} if resumes else {"max_session_keys": 0}
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def http_filter(virtual_hosts, log):
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": {
        "@type": TYPE + "filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "bench",
        **({"access_log": [LOG]} if log else {}),
        "route_config": {"name": "bench", "virtual_hosts": virtual_hosts},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": TYPE + "filters.http.router.v3.Router"}}]}}


def tcp_filter(log):
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": {
        "@type": TYPE + "filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "bench", "cluster": "backend",
        **({"access_log": [LOG]} if log else {})}}


def virtual_host(name, domain, to):
    return {"name": name, "domains": [domain], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": to}}]}


def proxy(listen, upstream, protocol="http", log=False, others=0, tls_in=None, tls_out=None, each=None):
    """One listener, whose traffic goes to `upstream`; `others` routes, clusters and endpoints stand beside. `tls_in` and
    `tls_out` are sockets of TLS; a connection to `upstream` has `each` requests."""
    hosts = [virtual_host(f"other-{n}", f"other-{n}.bench", f"other-{n}") for n in range(others)]
    clusters = [cluster(f"other-{n}", 1 + n % 60000) for n in range(others)]
    filters = [tcp_filter(log) if protocol == "tcp" else http_filter([*hosts, virtual_host("all", "*", "backend")], log)]
    backend, chain = cluster("backend", upstream, protocol), {"filters": filters}
    if tls_out:
        backend["transport_socket_matches"] = [{"name": "tls", "match": {}, "transport_socket": tls_out}]
    if each:
        options = {"@type": TYPE + "upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http_protocol_options": {}},
                   "common_http_protocol_options": {"max_requests_per_connection": each}}
        backend["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}
    listener = {"name": "bench", "address": address(listen), "filter_chains": [chain]}
    if tls_in:
        chain["transport_socket"] = tls_in
        inspector = {"@type": TYPE + "filters.listener.tls_inspector.v3.TlsInspector"}
        listener["listener_filters"] = [{"name": "envoy.filters.listener.tls_inspector", "typed_config": inspector}]
    return json.dumps({"static_resources": {"listeners": [listener], "clusters": [backend, *clusters]}})
