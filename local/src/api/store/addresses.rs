//! Cluster IPs of services: given under the store's lock, so that no two services get the same.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use super::*;
use crate::api::object::child;

/// The service networks are 10.96.0.0/16 and fd10:96::/112; their first 256 addresses are only given to those who ask for
/// them.
const NETWORK: [u8; 2] = [10, 96];
const NETWORK_6: [u16; 7] = [0xfd10, 0x96, 0, 0, 0, 0, 0];

/// Which kind of address a service has.
#[derive(Clone, Copy, PartialEq)]
enum Family {
    V4,
    V6,
}

impl Family {
    /// The one family that a service asks for.
    fn of(service: &Value) -> ApiResult<Self> {
        let asked = array(service, "/spec/ipFamilies");
        let invalid = |field: &str, why: &str| Err(ApiError::invalid("Service", object::name(service), field, why));
        if asked.len() > 1 || object::text(service, "/spec/ipFamilyPolicy") == "RequireDualStack" {
            let why = "Invalid value: a service has one family here; name one in ipFamilies, and make a second service for the other";
            return invalid("spec.ipFamilies", why);
        }
        match asked.first().map(|it| it.as_str().unwrap_or_default()) {
            Some("IPv6") => Ok(Self::V6),
            Some("IPv4") => Ok(Self::V4),
            Some(_) => invalid("spec.ipFamilies[0]", "Unsupported value: supported values: \"IPv4\", \"IPv6\""),
            None if object::text(service, "/spec/clusterIP").contains(':') => Ok(Self::V6),
            None => Ok(Self::V4),
        }
    }

    /// The network, as messages name it.
    fn range(self) -> &'static str {
        match self {
            Self::V4 => "10.96.0.0/16",
            Self::V6 => "fd10:96::/112",
        }
    }

    fn has(self, address: IpAddr) -> bool {
        match (self, address) {
            (Self::V4, IpAddr::V4(address)) => address.octets()[..2] == NETWORK,
            (Self::V6, IpAddr::V6(address)) => address.segments()[..7] == NETWORK_6,
            _ => false,
        }
    }

    /// The address of that number in the network.
    fn address(self, host: u16) -> IpAddr {
        let [high, low] = host.to_be_bytes();
        match self {
            Self::V4 => Ipv4Addr::new(NETWORK[0], NETWORK[1], high, low).into(),
            Self::V6 => Ipv6Addr::new(NETWORK_6[0], NETWORK_6[1], 0, 0, 0, 0, 0, host).into(),
        }
    }
}

impl State {
    /// Gives a new service its cluster IP, or checks the one it asks for.
    pub(super) fn give_address(&self, resource: &str, service: &mut Value) -> ApiResult<()> {
        if resource != "services" {
            return Ok(());
        }
        if object::text(service, "/spec/type") == "ExternalName" {
            let spec = child(service, "spec");
            spec.remove("clusterIP");
            spec.remove("clusterIPs");
            return Ok(());
        }
        let (used, family) = (self.used_addresses(object::uid(service)), Family::of(service)?);
        let address = match object::text(service, "/spec/clusterIP") {
            "" => free_address(service, family, &used)?,
            "None" => "None".to_owned(),
            asked => {
                let why = match asked.parse::<IpAddr>() {
                    Ok(address) if !family.has(address) => {
                        Some(format!("the provided IP is not in the valid range {}", family.range()))
                    }
                    Ok(_) if used.contains(asked) => Some("the provided IP is already allocated".to_owned()),
                    Ok(_) => None,
                    Err(_) => Some("must be empty, 'None', or a valid IP address".to_owned()),
                };
                if let Some(why) = why {
                    let why = format!("Invalid value: \"{asked}\": {why}");
                    return Err(ApiError::invalid("Service", object::name(service), "spec.clusterIP", &why));
                }
                asked.to_owned()
            }
        };
        let spec = child(service, "spec");
        spec.insert("clusterIPs".into(), json!([address]));
        spec.insert("clusterIP".into(), address.into());
        spec.insert("ipFamilies".into(), json!([if family == Family::V6 { "IPv6" } else { "IPv4" }]));
        spec.insert("ipFamilyPolicy".into(), "SingleStack".into());
        Ok(())
    }

    /// Keeps a service's cluster IP over updates, also by those who do not send it.
    pub(super) fn keep_address(&self, resource: &str, old: &Value, new: &mut Value) -> ApiResult<()> {
        if resource != "services" {
            return Ok(());
        }
        let had = object::text(old, "/spec/clusterIP").to_owned();
        let wants = object::text(new, "/spec/clusterIP").to_owned();
        if object::text(new, "/spec/type") == "ExternalName" || had.is_empty() {
            return self.give_address(resource, new);
        }
        if !wants.is_empty() && wants != had {
            let why = format!("Invalid value: \"{wants}\": field is immutable");
            return Err(ApiError::invalid("Service", object::name(old), "spec.clusterIP", &why));
        }
        // Who leaves the family out means the one that it has.
        if array(new, "/spec/ipFamilies").is_empty() {
            child(new, "spec").insert("ipFamilies".into(), old["spec"]["ipFamilies"].clone());
            child(new, "spec").insert("ipFamilyPolicy".into(), old["spec"]["ipFamilyPolicy"].clone());
        }
        let (before, after) = (Family::of(old)?, Family::of(new)?);
        if before != after && had != "None" {
            let why = "Invalid value: field is immutable; delete the service and make it anew";
            return Err(ApiError::invalid("Service", object::name(old), "spec.ipFamilies", why));
        }
        let spec = child(new, "spec");
        spec.insert("clusterIPs".into(), json!([had]));
        spec.insert("clusterIP".into(), had.into());
        Ok(())
    }

    fn used_addresses(&self, except: &str) -> HashSet<String> {
        let services = self.objects.get("services").into_iter().flat_map(BTreeMap::values);
        let others = services.filter(|service| object::uid(service) != except);
        others.map(|service| object::text(service, "/spec/clusterIP").to_owned()).collect()
    }
}

/// The first free address from one on that depends on the name alone: a mesh that is made anew has the same addresses.
fn free_address(service: &Value, family: Family, used: &HashSet<String>) -> ApiResult<String> {
    let name = format!("{}/{}", object::namespace(service), object::name(service));
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    // From number 1.0 to 255.255.
    const COUNT: u32 = 255 * 256;
    (0..COUNT)
        .map(|step| 256 + (hash.wrapping_add(step) % COUNT))
        .filter_map(|host| u16::try_from(host).ok())
        .filter(|host| !matches!(host & 0xff, 0 | 255))
        .map(|host| family.address(host).to_string())
        .find(|address| !used.contains(address))
        .ok_or_else(|| ApiError::internal("no cluster IP is free; delete a service"))
}
