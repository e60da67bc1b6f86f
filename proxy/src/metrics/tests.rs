use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use super::*;

fn told(metrics: &Arc<Metrics>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Arc::clone(metrics)));
    let mut out = String::new();
    text::encode(&mut out, &registry).expect("encodes");
    out
}

fn line<'o>(out: &'o str, start: &str) -> &'o str {
    out.lines().find(|line| line.starts_with(start)).unwrap_or_default()
}

fn outbound() -> Kind<'static> {
    Kind {
        edge: Edge::Outbound,
        source: PeerId::default(),
        principal: Principal::default(),
        cluster: None,
        endpoint: None,
        protocol: Protocol::Http,
        status: 404,
        flag: "NR",
    }
}

fn took(millis: u64) -> Counted {
    Counted { duration: Duration::from_millis(millis), ..Counted::default() }
}

#[test]
fn requests_are_counted_with_the_standard_labels() {
    let identity = Identity {
        workload: "productpage-v1".to_owned(),
        namespace: "default".to_owned(),
        cluster: "here".to_owned(),
        ..Identity::default()
    };
    let metrics = Metrics::new(identity, Arc::default(), MAX_SERIES);
    metrics.request(&outbound(), &took(3));
    metrics.request(&outbound(), &took(700));
    let out = told(&metrics);
    let total = line(&out, "istio_requests_total{");
    assert!(total.ends_with(" 2"), "{out}");
    let labels = "reporter=\"source\",source_workload=\"productpage-v1\",source_workload_namespace=\"default\",\
        source_principal=\"unknown\",source_app=\"unknown\",source_version=\"unknown\",source_cluster=\"here\",\
        source_canonical_service=\"productpage-v1\",source_canonical_revision=\"latest\",\
        destination_workload=\"unknown\",destination_workload_namespace=\"unknown\",destination_principal=\"unknown\",\
        destination_app=\"unknown\",destination_version=\"unknown\",destination_cluster=\"unknown\",\
        destination_canonical_service=\"unknown\",destination_canonical_revision=\"unknown\",\
        destination_service=\"unknown\",destination_service_name=\"unknown\",destination_service_namespace=\"unknown\",\
        request_protocol=\"http\",response_code=\"404\",grpc_response_status=\"\",response_flags=\"NR\",\
        connection_security_policy=\"unknown\"";
    assert_eq!(total, format!("istio_requests_total{{{labels}}} 2"));
    assert!(line(&out, "istio_request_duration_milliseconds_sum").ends_with(" 703.0"), "{out}");
    assert!(out.contains("le=\"5.0\""), "{out}");
    assert!(!out.contains("istio_request_messages_total"), "{out}");
}

#[test]
fn calls_of_grpc_are_counted_with_their_status_and_messages() {
    let metrics = Metrics::new(Identity::default(), Arc::default(), MAX_SERIES);
    for (status, label) in [(Some(0), "0"), (Some(16), "16"), (Some(99), "unknown"), (None, "unknown")] {
        let kind = Kind { protocol: Protocol::Grpc(status), status: 200, flag: "-", ..outbound() };
        metrics.request(&kind, &Counted { messages: (2, 3), ..took(1) });
        let out = told(&metrics);
        let label = format!("grpc_response_status=\"{label}\"");
        let series =
            out.lines().find(|line| line.starts_with("istio_request_messages_total{") && line.contains(&label));
        assert!(series.is_some_and(|line| line.contains("request_protocol=\"grpc\"")), "{out}");
    }
    let out = told(&metrics);
    assert!(
        out.lines().any(|line| line.starts_with("istio_response_messages_total{") && line.ends_with(" 6")),
        "{out}"
    );
}

#[test]
fn cve_2025_43915_kinds_beyond_the_bound_are_counted_together_and_it_is_told() {
    let metrics = Metrics::new(Identity::default(), Arc::default(), 3);
    for status in 200..210 {
        metrics.request(&Kind { status, ..outbound() }, &took(1));
    }
    let tcp = metrics.tcp_series(&Kind { protocol: Protocol::Tcp, ..outbound() });
    tcp.opened.fetch_add(1, Ordering::Relaxed);
    let out = told(&metrics);
    let series: Vec<&str> = out.lines().filter(|line| line.starts_with("istio_requests_total{")).collect();
    assert_eq!(series.len(), 4, "{out}");
    let over = series.iter().find(|line| line.contains("response_code=\"overflow\"")).expect("an overflow series");
    assert!(over.contains("reporter=\"overflow\"") && over.ends_with(" 7"), "{over}");
    assert!(line(&out, "istio_tcp_connections_opened_total{").contains("reporter=\"overflow\""), "{out}");
    assert_eq!(line(&out, "mesh_metrics_series "), "mesh_metrics_series 3");
    assert_eq!(line(&out, "mesh_metrics_series_limit"), "mesh_metrics_series_limit 3");
    assert_eq!(line(&out, "mesh_metrics_overflows_total"), "mesh_metrics_overflows_total 8");
}
