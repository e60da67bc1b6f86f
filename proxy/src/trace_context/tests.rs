use super::*;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// The headers that a request with these carries on, with the dice always the same.
fn carried_on(tracing: &Tracing, headers: &[(&str, &str)]) -> Option<(Vec<(String, String)>, TraceContext)> {
    let mut incoming = Incoming::default();
    for (name, value) in headers {
        incoming.take(TraceField::of(name.as_bytes()).expect("a trace header"), value.as_bytes());
    }
    let context = tracing.context(&incoming, || 0x1111_2222_3333_4444_5555_6666_7777_8888)?;
    let mut out = Vec::new();
    context.write(|name, value| out.push((name.to_owned(), String::from_utf8(value.to_vec()).expect("text"))));
    Some((out, context))
}

fn pairs(headers: &[(&str, &str)]) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn always() -> Tracing {
    Tracing { rate: Rate::percent(100.0).expect("a percentage"), ..Tracing::default() }
}

fn never() -> Tracing {
    Tracing { rate: Rate::NEVER, ..Tracing::default() }
}

#[test]
fn a_hop_puts_its_own_span_between_the_caller_and_the_called() {
    let single = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0";
    for (came, goes) in [
        (
            vec![("traceparent", TRACEPARENT)],
            vec![("traceparent", "00-0af7651916cd43dd8448eb211c80319c-1111222233334444-01")],
        ),
        (
            vec![("b3", single)],
            vec![
                ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-1111222233334444-00"),
                ("b3", "0af7651916cd43dd8448eb211c80319c-1111222233334444-0-b7ad6b7169203331"),
            ],
        ),
        (
            vec![("X-B3-TraceId", "8448eb211c80319c"), ("x-b3-spanid", "b7ad6b7169203331"), ("X-B3-Sampled", "1")],
            vec![
                ("traceparent", "00-00000000000000008448eb211c80319c-1111222233334444-01"),
                ("X-B3-TraceId", "8448eb211c80319c"),
                ("X-B3-SpanId", "1111222233334444"),
                ("X-B3-ParentSpanId", "b7ad6b7169203331"),
                ("X-B3-Sampled", "1"),
            ],
        ),
        (
            vec![("X-B3-TraceId", TRACE), ("x-b3-spanid", "b7ad6b7169203331"), ("X-B3-Flags", "1")],
            vec![
                ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-1111222233334444-01"),
                ("X-B3-TraceId", TRACE),
                ("X-B3-SpanId", "1111222233334444"),
                ("X-B3-ParentSpanId", "b7ad6b7169203331"),
                ("X-B3-Flags", "1"),
            ],
        ),
    ] {
        let (out, context) = carried_on(&never(), &came).expect("a context");
        assert_eq!(out, pairs(&goes), "{came:?}");
        assert_eq!(context.parent, 0xb7ad_6b71_6920_3331);
    }
}

#[test]
fn traceparent_decides_and_both_formats_are_written() {
    let other = "ffffffffffffffffffffffffffffffff-b7ad6b7169203331-0";
    let (out, _) = carried_on(&never(), &[("b3", other), ("traceparent", TRACEPARENT)]).expect("a context");
    assert_eq!(
        out,
        pairs(&[
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-1111222233334444-01"),
            ("b3", "0af7651916cd43dd8448eb211c80319c-1111222233334444-1-b7ad6b7169203331"),
        ])
    );
}

#[test]
fn a_malformed_context_is_not_believed() {
    let zeros = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
    for bad in [
        vec![("traceparent", "")],
        vec![("traceparent", "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01")],
        vec![("traceparent", zeros)],
        vec![("traceparent", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01")],
        vec![("traceparent", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")],
        vec![("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x")],
        vec![("traceparent", "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x")],
        vec![("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0")],
        vec![("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0\u{e9}")],
        vec![("traceparent", TRACEPARENT), ("traceparent", TRACEPARENT)],
        vec![("b3", "x")],
        vec![("b3", "0af7651916cd43dd8448eb211c80319c")],
        vec![("b3", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-2")],
        vec![("b3", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1-1")],
        vec![("b3", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1-b7ad6b7169203331-")],
        vec![("x-b3-traceid", TRACE)],
        vec![("x-b3-traceid", TRACE), ("x-b3-spanid", "b7ad6b7169203331"), ("x-b3-sampled", "maybe")],
        vec![("x-b3-traceid", &TRACE[..31]), ("x-b3-spanid", "b7ad6b7169203331")],
    ] {
        let (out, context) = carried_on(&always(), &bad).expect("a context");
        assert_eq!((context.trace, context.parent), (0x1111_2222_3333_4444_5555_6666_7777_8888, 0), "{bad:?}");
        assert!(context.is_sampled() && !out.is_empty(), "{bad:?}");
        let (out, _) = carried_on(&never(), &bad).expect("what came is taken away");
        assert_eq!(out, [], "{bad:?}");
    }
}

#[test]
fn a_later_version_is_read_as_far_as_it_is_known() {
    let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff-what-the-future-brings";
    let (out, _) = carried_on(&never(), &[("traceparent", later)]).expect("a context");
    assert_eq!(out, pairs(&[("traceparent", "00-0af7651916cd43dd8448eb211c80319c-1111222233334444-03")]));
}

#[test]
fn tracestate_goes_along_with_a_sound_traceparent_only() {
    let many = vec!["a=1"; 33].join(",");
    for (parent, state, keeps) in [
        (TRACEPARENT, "rojo=00f067aa0ba902b7,congo@x=t61rcWkgMzE, ,", true),
        (TRACEPARENT, "Rojo=1", false),
        (TRACEPARENT, "rojo", false),
        (TRACEPARENT, "rojo=", false),
        (TRACEPARENT, "rojo=a=b", false),
        (TRACEPARENT, many.as_str(), false),
        ("00-x", "rojo=1", false),
    ] {
        let (_, context) = carried_on(&always(), &[("tracestate", state), ("traceparent", parent)]).expect("a context");
        assert_eq!(context.keeps_state(), keeps, "{parent} {state}");
    }
}

#[test]
fn a_trace_begins_where_there_is_none() {
    let (out, context) = carried_on(&always(), &[]).expect("a context");
    assert_eq!(out, pairs(&[("traceparent", "00-11112222333344445555666677778888-1111222233334444-01")]));
    assert_eq!(context.parent, 0);
    assert_eq!(carried_on(&never(), &[]), None);
    let tracing = Tracing { formats: "b3, b3multi".parse().expect("formats"), ..always() };
    let (out, _) = carried_on(&tracing, &[]).expect("a context");
    assert_eq!(
        out,
        pairs(&[
            ("b3", "11112222333344445555666677778888-1111222233334444-1"),
            ("X-B3-TraceId", "11112222333344445555666677778888"),
            ("X-B3-SpanId", "1111222233334444"),
            ("X-B3-Sampled", "1"),
        ])
    );
}

#[test]
fn a_caller_may_decide_about_a_trace_that_begins_here() {
    for (headers, sampled) in [
        (&[("b3", "0")], false),
        (&[("b3", "1")], true),
        (&[("b3", "d")], true),
        (&[("x-b3-sampled", "0")], false),
        (&[("x-b3-sampled", "1")], true),
    ] {
        for tracing in [always(), never()] {
            let (_, context) = carried_on(&tracing, headers).expect("a context");
            assert_eq!((context.is_sampled(), context.parent), (sampled, 0), "{headers:?}");
        }
    }
}

#[test]
fn the_rate_is_a_share_of_the_dice() {
    let rate: Rate = "25".parse().expect("a percentage");
    assert!(rate.hits(u32::MAX / 4 - 1) && !rate.hits(u32::MAX / 4 + 1));
    assert!(Rate::percent(100.0).expect("a percentage").hits(u32::MAX));
    assert!(!Rate::NEVER.hits(0));
    for bad in ["-1", "101", "NaN", "one", ""] {
        assert_eq!(bad.parse::<Rate>(), Err(SamplingError::Rate), "{bad}");
    }
    assert_eq!("w3c,zipkin".parse::<Formats>(), Err(SamplingError::Format("zipkin".to_owned())));
}
