//! Reading a message without ignoring anything in it.

use std::fmt;
use std::time::Duration;

use prost::Message;

use crate::proto::{core, protobuf};

/// Why a resource is refused, and where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Path of the message, outermost first, as `filter_chains[0]`.
    path: Vec<String>,
    /// What is wrong there.
    pub why: Why,
}

/// What is wrong with a resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// The bytes are no message of the type.
    #[error("the bytes are not a {message}: {error}")]
    Malformed {
        /// The message's type.
        message: String,
        /// The decoder's words.
        error: String,
    },
    /// The message has fields that the schema does not have, or has one twice.
    #[error("the {message} has fields that this version does not know ({unread} bytes of it were not understood)")]
    UnknownFields {
        /// The message's type.
        message: String,
        /// How much longer it is than what was read of it.
        unread: usize,
    },
    /// A field, or its value, is known but not in force.
    #[error("`{0}` is not in force, so the resource is refused rather than the field ignored")]
    NotInForce(String),
    /// A value makes no sense.
    #[error("{0}")]
    Invalid(String),
}

impl Refusal {
    /// A value makes no sense.
    pub(super) fn invalid(reason: impl Into<String>) -> Self {
        Refusal { path: Vec::new(), why: Why::Invalid(reason.into()) }
    }

    /// A field, or a value of it, is not in force.
    pub(super) fn not_in_force(field: impl Into<String>) -> Self {
        Refusal { path: Vec::new(), why: Why::NotInForce(field.into()) }
    }

    /// The field at which things went wrong, as `filter_chains[0].filters[0]`; empty for the resource itself.
    #[must_use]
    pub fn path(&self) -> String {
        self.path.join(".")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { write!(f, "{}", self.why) } else { write!(f, "{}: {}", self.path(), self.why) }
    }
}

impl std::error::Error for Refusal {}

/// Says where in the message things went wrong.
pub(super) trait At {
    /// In this field.
    fn at(self, field: &str) -> Self;
    /// In this element of this field.
    fn at_nth(self, field: &str, nth: usize) -> Self;
}

impl<T> At for Result<T, Refusal> {
    fn at(self, field: &str) -> Self {
        self.map_err(|mut refusal| {
            refusal.path.insert(0, field.to_owned());
            refusal
        })
    }

    fn at_nth(self, field: &str, nth: usize) -> Self {
        self.map_err(|mut refusal| {
            refusal.path.insert(0, format!("{field}[{nth}]"));
            refusal
        })
    }
}

/// Decodes a message that has no field unknown to the schema.
pub(super) fn decode<M: Message + Default + prost::Name>(bytes: &[u8]) -> Result<M, Refusal> {
    let message = M::decode(bytes).map_err(|error| Refusal {
        path: Vec::new(),
        why: Why::Malformed { message: M::NAME.to_owned(), error: error.to_string() },
    })?;
    let read = message.encoded_len();
    if read == bytes.len() {
        return Ok(message);
    }
    let unread = bytes.len().saturating_sub(read);
    Err(Refusal { path: Vec::new(), why: Why::UnknownFields { message: M::NAME.to_owned(), unread } })
}

/// Decodes an extension's configuration of this type.
pub(super) fn typed<M: Message + Default + prost::Name>(any: &protobuf::Any, type_url: &str) -> Result<M, Refusal> {
    if any.type_url != type_url {
        return Err(Refusal::invalid(format!("`{}` is not `{type_url}`", any.type_url)));
    }
    decode(&any.value)
}

/// Refuses a message in which something is left after all that is in force has been taken out.
pub(super) fn nothing_left<M: Default + PartialEq + fmt::Debug>(rest: &M) -> Result<(), Refusal> {
    let empty = M::default();
    if *rest == empty {
        return Ok(());
    }
    Err(Refusal::not_in_force(first_difference(&format!("{rest:#?}"), &format!("{empty:#?}"))))
}

/// Name of the first field that two messages of a type show differently.
fn first_difference(one: &str, other: &str) -> String {
    let (one, other) = (fields(one), fields(other));
    let differing = one.iter().zip(&other).find(|(a, b)| a != b).map(|(a, _)| *a);
    let field = differing.or_else(|| one.last().copied()).unwrap_or_default();
    field.trim_start().split(':').next().unwrap_or_default().trim_start_matches("r#").to_owned()
}

/// Splits pretty debug output of a struct into its fields.
fn fields(debug: &str) -> Vec<&str> {
    let mut starts: Vec<usize> = debug
        .match_indices("\n    ")
        .filter(|(at, _)| debug.as_bytes().get(at + 5).is_some_and(u8::is_ascii_lowercase))
        .map(|(at, _)| at + 1)
        .collect();
    starts.push(debug.len());
    starts.windows(2).filter_map(|ends| debug.get(ends[0]..ends[1])).collect()
}

/// A length of time; `None` if nothing is said.
pub(super) fn duration(value: Option<protobuf::Duration>) -> Result<Option<Duration>, Refusal> {
    let Some(value) = value else { return Ok(None) };
    let seconds = u64::try_from(value.seconds).ok().filter(|seconds| *seconds <= 315_576_000_000);
    let nanos = u32::try_from(value.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    match (seconds, nanos) {
        (Some(seconds), Some(nanos)) => Ok(Some(Duration::new(seconds, nanos))),
        _ => Err(Refusal::invalid("the duration is negative or out of range")),
    }
}

/// A port.
pub(super) fn port(value: u32) -> Result<u16, Refusal> {
    u16::try_from(value).map_err(|_| Refusal::invalid(format!("{value} is not a port")))
}

/// A TCP address in numbers.
pub(super) fn socket_address(address: Option<core::Address>) -> Result<std::net::SocketAddr, Refusal> {
    use core::address::Address;
    use core::socket_address::PortSpecifier;
    let mut socket = match address.and_then(|address| address.address) {
        Some(Address::SocketAddress(socket)) => socket,
        Some(Address::Pipe(_)) => return Err(Refusal::not_in_force("pipe")),
        Some(Address::EnvoyInternalAddress(_)) => return Err(Refusal::not_in_force("envoy_internal_address")),
        None => return Err(Refusal::invalid("the address is missing")),
    };
    let text = std::mem::take(&mut socket.address);
    let ip: std::net::IpAddr = text.parse().map_err(|_| Refusal::invalid(format!("`{text}` is not an IP address")))?;
    let number = match socket.port_specifier.take() {
        Some(PortSpecifier::PortValue(number)) => port(number)?,
        Some(PortSpecifier::NamedPort(_)) => return Err(Refusal::not_in_force("named_port")),
        None => 0,
    };
    nothing_left(&socket)?;
    Ok((ip, number).into())
}

/// Checks that a resource has the name under which it came.
pub(super) fn named(expected: &str, found: &str) -> Result<(), Refusal> {
    match found {
        "" => Err(Refusal::invalid("the name is empty")),
        found if found == expected => Ok(()),
        found => Err(Refusal::invalid(format!("the resource came as `{expected}` but is named `{found}`"))),
    }
}
