//! The page itself: calls details and reviews on behalf of whoever looks at it.

use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use http::header::{LOCATION, SET_COOKIE};
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use crate::web::{Call, Reply, Site, error, get_json, html, json as reply};

/// How long one call to another service may take.
const PATIENCE: Duration = Duration::from_secs(3);
const NO_DETAILS: &str = "Sorry, product details are currently unavailable for this book.";
const NO_REVIEWS: &str = "Sorry, product reviews are currently unavailable for this book.";
const NO_RATINGS: &str = "Sorry, product ratings are currently unavailable for this book.";

pub(crate) struct Productpage {
    pub(crate) details: String,
    pub(crate) reviews: String,
    pub(crate) ratings: String,
}

impl Site for Productpage {
    fn answer<'a>(&'a self, call: &'a Call) -> Pin<Box<dyn Future<Output = Reply> + Send + 'a>> {
        Box::pin(self.route(call))
    }
}

impl Productpage {
    async fn route(&self, call: &Call) -> Reply {
        match (&call.method, call.path.as_str()) {
            (&Method::GET, "/" | "/index.html") => html(StatusCode::OK, index()),
            (&Method::GET, "/health") => html(StatusCode::OK, "Product page is healthy".to_owned()),
            (&Method::GET, "/productpage") => self.page(call).await,
            (&Method::POST, "/login") => login(call),
            (&Method::GET, "/logout") => to_page("user=; Path=/; Max-Age=0"),
            (&Method::GET, "/api/v1/products") => reply(StatusCode::OK, &json!([product()])),
            (&Method::GET, path) => match path.strip_prefix("/api/v1/products/") {
                Some(rest) => self.api(call, rest).await,
                None => reply(StatusCode::NOT_FOUND, &error("not found")),
            },
            _ => reply(StatusCode::METHOD_NOT_ALLOWED, &error("this method is not served here")),
        }
    }

    async fn api(&self, call: &Call, rest: &str) -> Reply {
        let (id, part) = rest.split_once('/').unwrap_or((rest, ""));
        if id.parse::<u64>().is_err() {
            return reply(StatusCode::BAD_REQUEST, &error("please provide a numeric product id"));
        }
        let answer = match part {
            "" => self.details(call, id).await,
            "reviews" => self.reviews(call, id).await,
            "ratings" => self.ask(call, &self.ratings, &format!("/ratings/{id}"), NO_RATINGS).await,
            _ => return reply(StatusCode::NOT_FOUND, &error("not found")),
        };
        match answer {
            Ok(value) => reply(StatusCode::OK, &value),
            Err(message) => reply(StatusCode::SERVICE_UNAVAILABLE, &error(message)),
        }
    }

    async fn details(&self, call: &Call, id: &str) -> Result<Value, &'static str> {
        self.ask(call, &self.details, &format!("/details/{id}"), NO_DETAILS).await
    }

    /// Asks twice, which hides one slow or failed answer of reviews.
    async fn reviews(&self, call: &Call, id: &str) -> Result<Value, &'static str> {
        let path = format!("/reviews/{id}");
        match self.ask(call, &self.reviews, &path, NO_REVIEWS).await {
            Ok(value) => Ok(value),
            Err(_) => self.ask(call, &self.reviews, &path, NO_REVIEWS).await,
        }
    }

    async fn ask(&self, call: &Call, to: &str, path: &str, sorry: &'static str) -> Result<Value, &'static str> {
        get_json(to, path, &call.forwarded(), PATIENCE).await.map_err(|error| {
            eprintln!("{path}: {error:#}");
            sorry
        })
    }

    async fn page(&self, call: &Call) -> Reply {
        let details = self.details(call, "0").await;
        let reviews = self.reviews(call, "0").await;
        let mut text = String::from(HEAD);
        let _ = match call.user() {
            Some(user) => write!(text, "<p class=user>{} (<a href=\"/logout\">sign out</a>)</p>", escape(user)),
            None => write!(
                text,
                "<form class=user method=post action=\"/login\"><input name=username placeholder=\"User name\"> \
                 <button>Sign in</button></form>"
            ),
        };
        let product = product();
        let title = product["title"].as_str().unwrap_or_default();
        let _ = write!(text, "<h1>{}</h1>", escape(title));
        write_details(&mut text, details);
        write_reviews(&mut text, reviews);
        text.push_str("</body></html>\n");
        html(StatusCode::OK, text)
    }
}

fn product() -> Value {
    json!({
        "id": 0,
        "title": "The Comedy of Errors",
        "descriptionHtml": "<a href=\"https://en.wikipedia.org/wiki/The_Comedy_of_Errors\">Wikipedia Summary</a>: The Comedy of \
         Errors is one of <b>William Shakespeare's</b> early plays. It is his shortest and one of his most farcical \
         comedies, with a major part of the humour coming from slapstick and mistaken identity, in addition to puns \
         and word play.",
    })
}

fn write_details(text: &mut String, details: Result<Value, &'static str>) {
    text.push_str("<section><h2>Book Details</h2>");
    match details {
        Ok(details) => {
            text.push_str("<dl>");
            for (label, key) in [
                ("Type", "type"),
                ("Pages", "pages"),
                ("Publisher", "publisher"),
                ("Language", "language"),
                ("ISBN-10", "ISBN-10"),
                ("ISBN-13", "ISBN-13"),
            ] {
                let _ = write!(text, "<dt>{label}:</dt><dd>{}</dd>", escape(&plain(&details[key])));
            }
            text.push_str("</dl>");
        }
        Err(sorry) => write_error(text, "Error fetching product details!", sorry),
    }
    text.push_str("</section>");
}

fn write_reviews(text: &mut String, reviews: Result<Value, &'static str>) {
    text.push_str("<section><h2>Book Reviews</h2>");
    match reviews {
        Ok(answer) => {
            for review in answer["reviews"].as_array().into_iter().flatten() {
                write_review(text, review);
            }
        }
        Err(sorry) => write_error(text, "Error fetching product reviews!", sorry),
    }
    text.push_str("</section>");
}

fn write_review(text: &mut String, review: &Value) {
    let _ = write!(
        text,
        "<blockquote><p>{}</p><small>{}</small>",
        escape(&plain(&review["text"])),
        escape(&plain(&review["reviewer"]))
    );
    let rating = &review["rating"];
    if let Some(stars) = rating["stars"].as_u64() {
        let stars = stars.min(5);
        let _ = write!(text, "<font color=\"{}\">", escape(&plain(&rating["color"])));
        for star in 0..5 {
            let class = if star < stars { "glyphicon-star\">★" } else { "glyphicon-star-empty\">☆" };
            let _ = write!(text, "<span class=\"glyphicon {class}</span>");
        }
        text.push_str("</font>");
    } else if let Some(error) = rating["error"].as_str() {
        let _ = write!(text, "<p><i>{}</i></p>", escape(error));
    }
    text.push_str("</blockquote>");
}

fn write_error(text: &mut String, title: &str, sorry: &str) {
    let _ = write!(text, "<h4 class=error>{title}</h4><p>{sorry}</p>");
}

fn login(call: &Call) -> Reply {
    let body = String::from_utf8_lossy(&call.body);
    let user = body.split('&').find_map(|pair| pair.strip_prefix("username=")).unwrap_or_default();
    let user: String = user.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).take(64).collect();
    if user.is_empty() {
        return reply(StatusCode::BAD_REQUEST, &error("please give a user name of letters and digits"));
    }
    to_page(&format!("user={user}; Path=/; HttpOnly; SameSite=Lax"))
}

fn to_page(cookie: &str) -> Reply {
    let mut reply = html(StatusCode::FOUND, String::new());
    reply.headers_mut().insert(LOCATION, HeaderValue::from_static("/productpage"));
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        reply.headers_mut().insert(SET_COOKIE, cookie);
    }
    reply
}

fn index() -> String {
    format!(
        "{HEAD}<h1>Bookinfo</h1><p>A sample of four services: productpage, details, reviews and ratings.</p>\
         <p><a href=\"/productpage\">The page of one book</a></p></body></html>\n"
    )
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

const HEAD: &str = "<!DOCTYPE html><html lang=en><head><meta charset=utf-8><title>Simple Bookstore App</title><style>\
body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#222}\
.user{float:right}h1{color:#337ab7}section{margin:2rem 0}dt{font-weight:bold;float:left;width:7rem}\
blockquote{border-left:4px solid #ddd;margin:1rem 0;padding:.2rem 1rem}.error{color:#a94442}</style></head><body>";
