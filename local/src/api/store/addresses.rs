//! Cluster IPs of services: given under the store's lock, so that no two services get the same.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::*;
use crate::api::object::child;

/// The service network is 10.96.0.0/16; its first 256 addresses are only given to those who ask for them.
const NETWORK: [u8; 2] = [10, 96];

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
        let used = self.used_addresses(object::uid(service));
        let address = match object::text(service, "/spec/clusterIP") {
            "" => free_address(service, &used)?,
            "None" => "None".to_owned(),
            asked => {
                let why = match asked.parse::<Ipv4Addr>() {
                    Ok(address) if address.octets()[..2] != NETWORK => {
                        Some("the provided IP is not in the valid range 10.96.0.0/16")
                    }
                    Ok(_) if used.contains(asked) => Some("the provided IP is already allocated"),
                    Ok(_) => None,
                    Err(_) => Some("must be empty, 'None', or a valid IP address"),
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
fn free_address(service: &Value, used: &HashSet<String>) -> ApiResult<String> {
    let name = format!("{}/{}", object::namespace(service), object::name(service));
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    // 10.96.1.0 to 10.96.255.255
    const COUNT: u32 = 255 * 256;
    (0..COUNT)
        .map(|step| 256 + (hash.wrapping_add(step) % COUNT))
        .map(|host| Ipv4Addr::from(u32::from_be_bytes([NETWORK[0], NETWORK[1], 0, 0]) + host))
        .filter(|address| !matches!(address.octets()[3], 0 | 255))
        .map(|address| address.to_string())
        .find(|address| !used.contains(address))
        .ok_or_else(|| ApiError::internal("no cluster IP is free; delete a service"))
}
