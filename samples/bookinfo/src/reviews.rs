//! Reviews of the book: v1 without stars, v2 with black stars, v3 with red ones.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use crate::web::{Call, Reply, Site, error, get_json, json as reply};

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Release {
    V1,
    V2,
    V3,
}

pub(crate) struct Reviews {
    pub(crate) release: Release,
    pub(crate) ratings: String,
}

const TEXTS: [(&str, &str); 2] = [
    ("Reviewer1", "An extremely entertaining play by Shakespeare. The slapstick humour is refreshing!"),
    (
        "Reviewer2",
        "Absolutely fun and entertaining. The play lacks thematic depth when compared to other plays by Shakespeare.",
    ),
];

impl Site for Reviews {
    fn answer<'a>(&'a self, call: &'a Call) -> Pin<Box<dyn Future<Output = Reply> + Send + 'a>> {
        Box::pin(self.reviews(call))
    }
}

impl Reviews {
    async fn reviews(&self, call: &Call) -> Reply {
        if call.path == "/health" {
            return reply(StatusCode::OK, &json!({"status": "Reviews is healthy"}));
        }
        let Some(id) = call.path.strip_prefix("/reviews/").filter(|id| id.parse::<u64>().is_ok()) else {
            return reply(StatusCode::NOT_FOUND, &error("not found"));
        };
        let stars = match self.release {
            Release::V1 => None,
            Release::V2 => Some(("black", self.stars(call, id, Duration::from_secs(10)).await)),
            Release::V3 => Some(("red", self.stars(call, id, Duration::from_millis(2500)).await)),
        };
        let reviews: Vec<Value> = TEXTS.iter().map(|(reviewer, text)| review(reviewer, text, stars.as_ref())).collect();
        reply(StatusCode::OK, &json!({"id": id, "reviews": reviews}))
    }

    async fn stars(&self, call: &Call, id: &str, within: Duration) -> Option<Value> {
        let path = format!("/ratings/{id}");
        match get_json(&self.ratings, &path, &call.forwarded(), within).await {
            Ok(answer) => answer.get("ratings").cloned(),
            Err(error) => {
                eprintln!("no ratings: {error:#}");
                None
            }
        }
    }
}

fn review(reviewer: &str, text: &str, stars: Option<&(&str, Option<Value>)>) -> Value {
    let mut review = json!({"reviewer": reviewer, "text": text});
    if let Some((color, ratings)) = stars {
        review["rating"] = match ratings.as_ref().and_then(|ratings| ratings.get(reviewer)) {
            Some(stars) => json!({"stars": stars, "color": color}),
            None => error("Ratings service is currently unavailable"),
        };
    }
    review
}
