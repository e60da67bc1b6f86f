//! Cuts the descriptors of the messages that the engine reads and writes out of `envoy-types`' own descriptor set.
//!
//! Run after an update of `envoy-types`, with the path of its `src/generated/types.bin`:
//!
//! ```console
//! $ cargo run -p engine --example descriptor -- ~/.cargo/registry/src/*/envoy-types-*/src/generated/types.bin
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::Path;

use prost_reflect::prost::Message;
use prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, MessageOptions,
};

/// The messages that are read or written as text; everything that their fields mention comes along.
const ROOTS: &[&str] = &[
    ".envoy.config.listener.v3.Listener",
    ".envoy.config.route.v3.RouteConfiguration",
    ".envoy.config.cluster.v3.Cluster",
    ".envoy.config.endpoint.v3.ClusterLoadAssignment",
    ".envoy.extensions.access_loggers.file.v3.FileAccessLog",
    ".envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
    ".envoy.extensions.filters.http.fault.v3.HTTPFault",
    ".envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
    ".envoy.extensions.filters.http.rbac.v3.RBAC",
    ".envoy.extensions.filters.http.router.v3.Router",
    ".envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
    ".envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
    ".envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    ".envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    ".envoy.extensions.filters.network.rbac.v3.RBAC",
    ".envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
    ".envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
    ".envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
    ".envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
    ".envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    ".envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
];

fn main() -> Result<(), Box<dyn Error>> {
    let from = std::env::args().nth(1).ok_or("the path of types.bin is missing")?;
    let set = FileDescriptorSet::decode(std::fs::read(&from).map_err(|e| format!("{from}: {e}"))?.as_slice())?;
    let types = Types::of(&set);
    let wanted = types.reachable(ROOTS);
    let mut files: Vec<_> = set.file.iter().filter_map(|file| cut_file(file, &wanted)).collect();
    for file in &mut files {
        let own = file.name().to_owned();
        let mentioned = mentioned(file);
        let needed: BTreeSet<_> = mentioned.iter().map(|name| types.file_of[name.as_str()]).collect();
        file.dependency = needed.into_iter().filter(|file| *file != own).map(str::to_owned).collect();
    }
    let to = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/text/envoy.bin");
    let bytes = FileDescriptorSet { file: files }.encode_to_vec();
    std::fs::write(&to, &bytes)?;
    println!("{}: {} bytes, {} types", to.display(), bytes.len(), wanted.len());
    Ok(())
}

/// Every type of a descriptor set by full name with a leading dot.
struct Types<'s> {
    fields: BTreeMap<String, Vec<&'s str>>,
    file_of: BTreeMap<String, &'s str>,
}

impl<'s> Types<'s> {
    fn of(set: &'s FileDescriptorSet) -> Self {
        let mut types = Types { fields: BTreeMap::new(), file_of: BTreeMap::new() };
        for file in &set.file {
            let scope = format!(".{}", file.package());
            file.message_type.iter().for_each(|message| types.add(&scope, message, file.name()));
            file.enum_type.iter().for_each(|of| types.add_enum(&scope, of, file.name()));
        }
        types
    }

    fn add(&mut self, scope: &str, message: &'s DescriptorProto, file: &'s str) {
        let name = format!("{scope}.{}", message.name());
        message.nested_type.iter().for_each(|nested| self.add(&name, nested, file));
        message.enum_type.iter().for_each(|of| self.add_enum(&name, of, file));
        self.fields.insert(name.clone(), message.field.iter().filter_map(|f| f.type_name.as_deref()).collect());
        self.file_of.insert(name, file);
    }

    fn add_enum(&mut self, scope: &str, of: &'s EnumDescriptorProto, file: &'s str) {
        self.file_of.insert(format!("{scope}.{}", of.name()), file);
    }

    fn reachable(&self, roots: &[&str]) -> BTreeSet<String> {
        let mut wanted = BTreeSet::new();
        let mut open: Vec<String> = roots.iter().map(|root| (*root).to_owned()).collect();
        while let Some(name) = open.pop() {
            if wanted.insert(name.clone()) {
                open.extend(self.fields.get(&name).into_iter().flatten().map(|field| (*field).to_owned()));
            }
        }
        wanted
    }
}

fn cut_file(file: &FileDescriptorProto, wanted: &BTreeSet<String>) -> Option<FileDescriptorProto> {
    let scope = format!(".{}", file.package());
    let message_type: Vec<_> = file.message_type.iter().filter_map(|m| cut_message(&scope, m, wanted)).collect();
    let enum_type = cut_enums(&scope, &file.enum_type, wanted);
    (!message_type.is_empty() || !enum_type.is_empty()).then(|| FileDescriptorProto {
        name: file.name.clone(),
        package: file.package.clone(),
        syntax: file.syntax.clone(),
        message_type,
        enum_type,
        ..Default::default()
    })
}

/// A message without what is not needed; a message that only holds needed ones loses its fields.
fn cut_message(scope: &str, message: &DescriptorProto, wanted: &BTreeSet<String>) -> Option<DescriptorProto> {
    let name = format!("{scope}.{}", message.name());
    let nested_type: Vec<_> = message.nested_type.iter().filter_map(|m| cut_message(&name, m, wanted)).collect();
    let enum_type = cut_enums(&name, &message.enum_type, wanted);
    let is_wanted = wanted.contains(&name);
    if !is_wanted && nested_type.is_empty() && enum_type.is_empty() {
        return None;
    }
    let is_map = message.options.as_ref().is_some_and(|options| options.map_entry());
    Some(DescriptorProto {
        name: message.name.clone(),
        field: if is_wanted { message.field.iter().map(cut_field).collect() } else { Vec::new() },
        oneof_decl: if is_wanted {
            message
                .oneof_decl
                .iter()
                .map(|oneof| prost_reflect::prost_types::OneofDescriptorProto {
                    name: oneof.name.clone(),
                    options: None,
                })
                .collect()
        } else {
            Vec::new()
        },
        options: is_map.then(|| MessageOptions { map_entry: Some(true), ..Default::default() }),
        nested_type,
        enum_type,
        ..Default::default()
    })
}

fn cut_enums(scope: &str, enums: &[EnumDescriptorProto], wanted: &BTreeSet<String>) -> Vec<EnumDescriptorProto> {
    let kept = enums.iter().filter(|of| wanted.contains(&format!("{scope}.{}", of.name())));
    kept.map(|of| {
        let mut of = of.clone();
        of.value.iter_mut().for_each(|value| value.options = None);
        EnumDescriptorProto { name: of.name, value: of.value, ..Default::default() }
    })
    .collect()
}

fn cut_field(field: &FieldDescriptorProto) -> FieldDescriptorProto {
    FieldDescriptorProto { options: None, json_name: None, ..field.clone() }
}

fn mentioned(file: &FileDescriptorProto) -> Vec<String> {
    fn of(message: &DescriptorProto, names: &mut Vec<String>) {
        names.extend(message.field.iter().filter_map(|field| field.type_name.clone()));
        message.nested_type.iter().for_each(|nested| of(nested, names));
    }
    let mut names = Vec::new();
    file.message_type.iter().for_each(|message| of(message, &mut names));
    names
}
