//! Stars by reviewer.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::web::{Call, Reply, Site, error, json as reply};

/// Products whose ratings were posted are kept up to this many.
const MOST_PRODUCTS: usize = 1000;

/// The ratings of each product: those that were posted, else 5 and 4.
#[derive(Default)]
pub(crate) struct Ratings {
    posted: Mutex<BTreeMap<u64, Value>>,
}

impl Site for Ratings {
    fn answer<'a>(&'a self, call: &'a Call) -> Pin<Box<dyn Future<Output = Reply> + Send + 'a>> {
        Box::pin(async move { self.ratings(call) })
    }
}

impl Ratings {
    fn ratings(&self, call: &Call) -> Reply {
        if call.path == "/health" {
            return reply(StatusCode::OK, &json!({"status": "Ratings is healthy"}));
        }
        let Some(id) = call.path.strip_prefix("/ratings/") else {
            return reply(StatusCode::NOT_FOUND, &error("not found"));
        };
        let Ok(id) = id.parse::<u64>() else {
            return reply(StatusCode::BAD_REQUEST, &error("please provide numeric product ID"));
        };
        let mut posted = self.posted.lock().unwrap_or_else(PoisonError::into_inner);
        if call.method == Method::POST {
            let Ok(Value::Object(ratings)) = serde_json::from_slice(&call.body) else {
                return reply(StatusCode::BAD_REQUEST, &error("please provide valid ratings JSON"));
            };
            if posted.len() >= MOST_PRODUCTS && !posted.contains_key(&id) {
                return reply(StatusCode::INSUFFICIENT_STORAGE, &error("too many products have ratings"));
            }
            posted.insert(id, Value::Object(ratings));
        }
        let ratings = posted.get(&id).cloned().unwrap_or_else(|| json!({"Reviewer1": 5, "Reviewer2": 4}));
        reply(StatusCode::OK, &json!({"id": id, "ratings": ratings}))
    }
}
