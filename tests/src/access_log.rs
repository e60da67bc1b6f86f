//! A proxy's access log, read back.

use std::time::Duration;

/// What a proxy says of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Status that the client got.
    pub status: u16,
    /// Envoy's flag, `-` for none.
    pub flag: String,
    /// The word for what went wrong, `-` for nothing.
    pub code: String,
    /// Which rules and policy refused it; else that word, or how it was answered.
    pub details: String,
    /// How long it took.
    pub duration: Duration,
    /// Value of `x-request-id`.
    pub request_id: String,
    /// The cluster that it went to, `-` for none.
    pub cluster: String,
    /// Where the client's connection was going.
    pub destination: String,
    /// The route that took it, `-` for none.
    pub route: String,
    /// The trace that it belongs to, `-` for none.
    pub trace: String,
}

/// The lines of a log that are about requests; whatever else the proxy wrote is left out.
pub fn lines(log: &str) -> impl Iterator<Item = Line> {
    log.lines().filter_map(line)
}

fn line(text: &str) -> Option<Line> {
    let fields = fields(text);
    let [
        _,
        _,
        status,
        flag,
        code,
        details,
        _,
        _,
        millis,
        _,
        _,
        _,
        request_id,
        _,
        _,
        cluster,
        destination,
        _,
        route,
        trace,
    ] = fields.as_slice()
    else {
        return None;
    };
    Some(Line {
        status: status.parse().ok()?,
        flag: flag.clone(),
        code: code.clone(),
        details: details.clone(),
        duration: Duration::from_millis(millis.parse().ok()?),
        request_id: request_id.clone(),
        cluster: cluster.clone(),
        destination: destination.clone(),
        route: route.clone(),
        trace: trace.clone(),
    })
}

/// The fields between spaces, with what is in quotes as one.
fn fields(text: &str) -> Vec<String> {
    let (mut fields, mut field, mut is_quoted, mut is_escaped) = (Vec::new(), String::new(), false, false);
    for c in text.chars() {
        match c {
            _ if is_escaped => {
                field.push(c);
                is_escaped = false;
            }
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            ' ' if !is_quoted => fields.push(std::mem::take(&mut field)),
            _ => field.push(c),
        }
    }
    fields.push(field);
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whatever_stands_in_its_quotes() {
        let text = "[2026-01-02T03:04:05.678Z] \"GET /a\\\" b HTTP/1.1\" 200 DI - via_upstream 0 395 12 3 \"-\" \"cu rl\" \"id-1\" \
                    \"reviews:9080\" \"10.244.0.9:9080\" outbound|9080|version=v1|reviews 10.96.0.7:9080 \
                    10.244.0.3:5000 route-rule/default/a 0af7651916cd43dd8448eb211c80319c";
        let line = lines(&format!("ready\n{text}\n")).next().expect("it is a line");
        assert_eq!((line.status, line.flag.as_str(), line.code.as_str()), (200, "DI", "-"));
        assert_eq!((line.duration, line.request_id.as_str()), (Duration::from_millis(12), "id-1"));
        assert_eq!(
            (line.cluster.as_str(), line.route.as_str()),
            ("outbound|9080|version=v1|reviews", "route-rule/default/a")
        );
        assert_eq!(line.trace, "0af7651916cd43dd8448eb211c80319c");
    }
}
