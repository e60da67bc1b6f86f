//! The file that lets `kubectl` and kube clients in.

use std::path::Path;

use base64::Engine;
use serde_json::json;

use super::pki::{Pki, write_private};

/// Writes a kubeconfig with the administrator's certificate embedded; its context is `mesh-NAME`.
///
/// # Errors
/// What the file system says.
pub fn write(path: &Path, mesh: &str, port: u16, pki: &Pki) -> std::io::Result<()> {
    let name = format!("mesh-{mesh}");
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "preferences": {}, "current-context": name,
        "clusters": [{"name": name, "cluster": {
            "server": format!("https://127.0.0.1:{port}"), "certificate-authority-data": encode(&pki.ca),
        }}],
        "users": [{"name": name, "user": {
            "client-certificate-data": encode(&pki.admin), "client-key-data": encode(&pki.admin_key),
        }}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
    });
    // JSON is YAML, and every reader of kubeconfigs reads it.
    write_private(path, format!("{config:#}\n").as_bytes())
}
