//! Reads a format: Envoy's command operators between literal text, read once and then only followed.

use super::format::{Encoding, Format, FormatError, MAX, Manner};
use super::{compile, defaults, json};

impl Default for Format {
    fn default() -> Self {
        Format::new(Encoding::Text, None).expect("the default is a format, as a test shows")
    }
}

impl Format {
    /// Reads a format; without one, the encoding's default.
    ///
    /// # Errors
    ///
    /// It cannot be read, or an operator has no meaning here.
    pub fn new(encoding: Encoding, source: Option<&str>) -> Result<Self, FormatError> {
        let source = source.unwrap_or(match encoding {
            Encoding::Text => defaults::TEXT,
            Encoding::Json => defaults::JSON,
        });
        if source.is_empty() || source.len() > MAX {
            return Err(FormatError::Size);
        }
        let mut format = Format {
            parts: Vec::new(),
            request: Vec::new(),
            response: Vec::new(),
            encoding,
            source: source.to_owned(),
        };
        match encoding {
            Encoding::Text => {
                compile::text(&mut format, source, Manner::Text)?;
                // As in Envoy, a format says itself where a line ends; without, lines could not be told apart.
                if !source.ends_with('\n') {
                    format.literal(b"\n");
                }
            }
            Encoding::Json => {
                json::object(&mut format, source)?;
                format.literal(b"\n");
            }
        }
        Ok(format)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(encoding: Encoding, source: &str) -> String {
        runtime::exit::chain(&Format::new(encoding, Some(source)).expect_err(source))
    }

    #[test]
    fn the_defaults_can_be_read() {
        for encoding in [Encoding::Text, Encoding::Json] {
            let format = Format::new(encoding, None).expect("a format");
            assert_eq!(format.encoding(), encoding);
            assert!(!format.wants_upstream_local());
        }
        assert_eq!(Format::default().request_headers().len(), 3);
    }

    #[test]
    fn istios_default_can_be_used_as_it_is() {
        let istio = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
            %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
            \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
            %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
            \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% \
            %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% \
            %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";
        let format = Format::new(Encoding::Text, Some(istio)).expect("a format");
        assert!(format.wants_upstream_local());
    }

    #[test]
    fn what_cannot_be_followed_is_refused_with_its_place() {
        for (source, message) in [
            ("100%", "column 4: a `%` begins an operator that does not end; write `%%` for the sign itself"),
            ("%REQ(:PATH%", "column 1: a `%` begins an operator that does not end; write `%%` for the sign itself"),
            ("a %STATUS%", "column 3: there is no operator %STATUS%"),
            ("%RESPONSE_CODES%", "column 1: there is no operator %RESPONSE_CODES%; did you mean %RESPONSE_CODE%?"),
            ("%DYNAMIC_METADATA(a:b)%", "column 1: %DYNAMIC_METADATA% is known, but not in force here: leave it out"),
            ("%REQ%", "column 1: %REQ%: write the name of a header in brackets, as %REQ(X?Y):Z%"),
            ("%REQ()%", "column 1: %REQ%: write the name of a header in brackets, as %REQ(X?Y):Z%"),
            ("%REQ(a b)%", "column 1: %REQ%: \"a b\" is not the name of a header"),
            ("%REQ(:STATUS)%", "column 1: %REQ%: \":STATUS\" is not the name of a header"),
            ("%REQ(a?b?c)%", "column 1: %REQ%: write one header, or two with `?` between them"),
            ("%REQ(a):x%", "column 1: %REQ%: what follows the `:` is the number of bytes to keep, from 1 to 1024"),
            ("%DURATION(s)%", "column 1: %DURATION%: it takes nothing in brackets"),
            ("%START_TIME(%@)%", "column 1: %START_TIME%: "),
            ("%RESPONSE_CODE):5%", "column 1: there is no operator %RESPONSE_CODE)%"),
            ("", "a format has from 1 to 16384 bytes"),
        ] {
            let text = error(Encoding::Text, source);
            assert!(text.starts_with(message), "{source}: {text}");
        }
        for (source, message) in [
            ("%DURATION%", "a JSON format is an object whose values are text, numbers or objects: "),
            ("[]", "a JSON format is an object whose values are text, numbers or objects: it is something else"),
            (
                r#"{"a": ["b"]}"#,
                "a JSON format is an object whose values are text, numbers or objects: the value of `a`",
            ),
            (r#"{"a": {"b": "%NO%"}}"#, "the value of \"b\": column 1: there is no operator %NO%"),
        ] {
            let text = error(Encoding::Json, source);
            assert!(text.starts_with(message), "{source}: {text}");
        }
    }
}
