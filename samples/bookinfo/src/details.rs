//! Facts about the book.

use std::future::Future;
use std::pin::Pin;

use http::{Method, StatusCode};
use serde_json::json;

use crate::web::{Call, Reply, Site, error, json as reply};

pub(crate) struct Details;

impl Site for Details {
    fn answer<'a>(&'a self, call: &'a Call) -> Pin<Box<dyn Future<Output = Reply> + Send + 'a>> {
        Box::pin(async move { details(call) })
    }
}

fn details(call: &Call) -> Reply {
    if call.method != Method::GET {
        return reply(StatusCode::METHOD_NOT_ALLOWED, &error("only GET is served"));
    }
    if call.path == "/health" {
        return reply(StatusCode::OK, &json!({"status": "Details is healthy"}));
    }
    let Some(id) = call.path.strip_prefix("/details/") else {
        return reply(StatusCode::NOT_FOUND, &error("not found"));
    };
    let Ok(id) = id.parse::<u64>() else {
        return reply(StatusCode::BAD_REQUEST, &error("please provide numeric product id"));
    };
    reply(
        StatusCode::OK,
        &json!({
            "id": id,
            "author": "William Shakespeare",
            "year": 1595,
            "type": "paperback",
            "pages": 200,
            "publisher": "PublisherA",
            "language": "English",
            "ISBN-10": "1234567890",
            "ISBN-13": "123-1234567890",
        }),
    )
}
