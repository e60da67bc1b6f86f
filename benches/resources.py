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


def proxy(listen, upstream, protocol="http", log=False, others=0):
    """One listener, whose traffic goes to `upstream`; `others` routes, clusters and endpoints stand beside."""
    hosts = [virtual_host(f"other-{n}", f"other-{n}.bench", f"other-{n}") for n in range(others)]
    clusters = [cluster(f"other-{n}", 1 + n % 60000) for n in range(others)]
    filters = [tcp_filter(log) if protocol == "tcp" else http_filter([*hosts, virtual_host("all", "*", "backend")], log)]
    return json.dumps({"static_resources": {
        "listeners": [{"name": "bench", "address": address(listen), "filter_chains": [{"filters": filters}]}],
        "clusters": [cluster("backend", upstream, protocol), *clusters]}})
