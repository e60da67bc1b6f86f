//! Numbers and addresses as text, without the machinery of formatting: for what is written once per request.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

/// Appends a number in decimal digits.
pub(crate) fn number(out: &mut Vec<u8>, mut value: u64) {
    if value < 10 {
        out.push(b'0' + value as u8);
        return;
    }
    // The largest has twenty digits.
    let mut digits = [0; 20];
    let mut start = digits.len();
    for place in digits.iter_mut().rev() {
        *place = b'0' + (value % 10) as u8;
        start -= 1;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(start..).unwrap_or_default());
}

/// Appends a number with leading zeros, to three digits.
pub(crate) fn three_digits(out: &mut Vec<u8>, value: u16) {
    out.extend([100, 10, 1].map(|unit| b'0' + (value / unit % 10) as u8));
}

/// Appends an address and its port.
pub(crate) fn address(out: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(v4) => {
            ip(out, v4.into());
            out.push(b':');
            number(out, address.port().into());
        }
        // Writing to a vector does not fail.
        IpAddr::V6(_) => drop(write!(out, "{address}")),
    }
}

/// Appends an address without a port.
pub(crate) fn ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            // Three digits and a dot for each: copied at once.
            let (mut text, mut length) = ([0; 16], 0);
            for octet in ip.octets() {
                for (unit, least) in [(100, 100), (10, 10), (1, 0)] {
                    if octet >= least {
                        text[length] = b'0' + octet / unit % 10;
                        length += 1;
                    }
                }
                text[length] = b'.';
                length += 1;
            }
            out.extend_from_slice(&text[..length - 1]);
        }
        // Writing to a vector does not fail.
        IpAddr::V6(ip) => drop(write!(out, "{ip}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn numbers_are_written_as_the_standard_library_does() {
        for value in [0, 7, 10, 99, 100, 65_535, u64::MAX] {
            assert_eq!(written(|out| number(out, value)), value.to_string());
        }
        for value in [0, 7, 42, 999] {
            assert_eq!(written(|out| three_digits(out, value)), format!("{value:03}"));
        }
    }

    #[test]
    fn addresses_are_written_as_the_standard_library_does() {
        for text in ["0.0.0.0:0", "10.1.20.255:65535", "[::1]:80", "[fe80::1%3]:1"] {
            let parsed: SocketAddr = text.parse().expect("an address");
            assert_eq!(written(|out| address(out, parsed)), parsed.to_string());
        }
    }
}
