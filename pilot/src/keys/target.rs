//! Where Pilot may fetch keys from: not from itself, and not from what only its own node can reach.

use std::net::IpAddr;

/// Whether an address may be fetched from, unless the operator allows all.
///
/// Refused are this machine (loopback, "any"), what is on its own link (169.254.0.0/16 and fe80::/10: metadata services of
/// clouds), and addresses of no single machine. Private networks are allowed: issuers stand in clusters.
///
/// # Examples
///
/// ```
/// use mesh_pilot::keys::target::is_allowed;
///
/// assert!(is_allowed("10.0.0.7".parse().unwrap()));
/// assert!(!is_allowed("169.254.169.254".parse().unwrap()));
/// assert!(!is_allowed("::ffff:127.0.0.1".parse().unwrap()));
/// ```
#[must_use]
pub fn is_allowed(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [first, ..] = v4.octets();
            !(v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast() || first == 0)
        }
        IpAddr::V6(v6) => {
            let [first, ..] = v6.segments();
            let is_link_local = first & 0xffc0 == 0xfe80;
            // The only unique local address that belongs to a cloud, not to its customers.
            let is_metadata = v6.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254];
            // Addresses that hold one of IPv4 are judged by that.
            let inner = match v6.segments() {
                [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0, 0, high, low] if high != 0 => {
                    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
                    Some(IpAddr::from([a, b, c, d]))
                }
                _ => None,
            };
            let is_bad = v6.is_loopback() || v6.is_unspecified() || v6.is_multicast() || is_link_local || is_metadata;
            !is_bad && inner.is_none_or(is_allowed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_and_its_link_are_no_targets() {
        for (address, allowed) in [
            ("93.184.216.34", true),
            ("10.96.0.10", true),
            ("192.168.1.1", true),
            ("2606:2800:220:1::1", true),
            ("fd12::1", true),
            ("127.0.0.1", false),
            ("127.8.8.8", false),
            ("0.0.0.0", false),
            ("0.1.2.3", false),
            ("169.254.169.254", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("::", false),
            ("fe80::1", false),
            ("febf::1", false),
            ("ff02::1", false),
            ("fd00:ec2::254", false),
            ("::ffff:169.254.169.254", false),
            ("::ffff:127.0.0.1", false),
            ("64:ff9b::7f00:1", false),
            ("64:ff9b::a9fe:a9fe", false),
            ("::7f00:1", false),
        ] {
            assert_eq!(is_allowed(address.parse().expect("an address")), allowed, "{address}");
        }
    }
}
