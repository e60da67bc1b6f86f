//! The bookinfo sample: an online book shop of four small services that know nothing of the mesh.
//!
//! One program, a subcommand per service. Ports, paths, JSON, stars, cookie and forwarded headers are those of the
//! well-known sample, so that its route rules and tasks work unchanged.

mod details;
mod productpage;
mod ratings;
mod reviews;
mod web;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tokio::net::TcpListener;

/// The bookinfo sample application.
#[derive(Parser)]
#[command(version, about)]
struct Args {
    /// Port to serve on
    #[arg(long, global = true, default_value_t = 9080)]
    port: u16,
    #[command(subcommand)]
    service: Service,
}

#[derive(Subcommand)]
enum Service {
    /// The page itself: calls details and reviews
    Productpage {
        /// Where details is
        #[arg(long, default_value = "details:9080")]
        details: String,
        /// Where reviews is
        #[arg(long, default_value = "reviews:9080")]
        reviews: String,
        /// Where ratings is
        #[arg(long, default_value = "ratings:9080")]
        ratings: String,
    },
    /// Facts about the book
    Details,
    /// Reviews: v1 without stars, v2 with black, v3 with red ones
    Reviews {
        /// Which version to be
        #[arg(value_enum)]
        release: reviews::Release,
        /// Where ratings is
        #[arg(long, default_value = "ratings:9080")]
        ratings: String,
    },
    /// Stars by reviewer
    Ratings,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    // By either family, where there are two.
    let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, args.port)).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, args.port))
            .await
            .with_context(|| format!("port {} cannot be served", args.port))?,
    };
    let site: Arc<dyn web::Site> = match args.service {
        Service::Productpage { details, reviews, ratings } => {
            Arc::new(productpage::Productpage { details, reviews, ratings })
        }
        Service::Details => Arc::new(details::Details),
        Service::Reviews { release, ratings } => Arc::new(reviews::Reviews { release, ratings }),
        Service::Ratings => Arc::new(ratings::Ratings::default()),
    };
    web::serve(listener, site).await
}
