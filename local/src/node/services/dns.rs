//! The cluster's DNS server: UDP and TCP on its Service's address.

mod records;
mod upstream;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Services;
use crate::node::network::DNS_ADDRESS;
use records::{Outcome, Zone};
pub(crate) use upstream::Upstream;

const PORT: u16 = 53;
/// Largest answer over UDP to a client that does not say what it takes.
const PLAIN_UDP: u16 = 512;
/// Largest answer over UDP at all: larger ones come in fragments, if at all.
const LARGEST_UDP: u16 = 1232;
/// TCP connections at a time.
const CONNECTIONS: usize = 64;
/// Questions that are passed on at a time.
const PASSED_ON: usize = 128;
/// How long a TCP client may be silent.
const PATIENCE: Duration = Duration::from_secs(10);

/// The DNS server.
pub(crate) struct DnsServer {
    zone: Zone,
    services: watch::Receiver<Arc<Services>>,
    upstream: Option<Arc<Upstream>>,
    passed_on: Arc<Semaphore>,
    tracker: TaskTracker,
    token: CancellationToken,
}

impl DnsServer {
    /// Listens and serves until cancelled.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub(crate) async fn start(
        domain: &str,
        services: watch::Receiver<Arc<Services>>,
        upstream: Option<Arc<Upstream>>,
        tracker: TaskTracker,
        token: CancellationToken,
    ) -> io::Result<()> {
        let address = SocketAddr::from((DNS_ADDRESS, PORT));
        let (udp, tcp) = (Arc::new(UdpSocket::bind(address).await?), TcpListener::bind(address).await?);
        let server = Arc::new(Self {
            zone: Zone::new(domain).map_err(io::Error::other)?,
            services,
            upstream,
            passed_on: Arc::new(Semaphore::new(PASSED_ON)),
            tracker: tracker.clone(),
            token: token.clone(),
        });
        let datagrams = Arc::clone(&server);
        let until = token.clone();
        tracker.spawn(async move { until.run_until_cancelled(datagrams.serve_datagrams(udp)).await });
        tracker.spawn(async move { token.run_until_cancelled(server.serve_streams(tcp)).await });
        Ok(())
    }

    async fn serve_datagrams(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let mut buffer = vec![0u8; 4096];
        loop {
            let (length, client) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    tracing::debug!(%error, "a DNS question could not be received");
                    continue;
                }
            };
            let Ok(question) = Message::from_vec(buffer.get(..length).unwrap_or_default()) else { continue };
            let limit = limit_of(&question);
            if let Some(answer) = self.answer_here(&question) {
                send(&socket, &answer, limit, client).await;
                continue;
            }
            // Names outside the cluster take their time; nobody waits for them but who asked.
            let Ok(place) = Arc::clone(&self.passed_on).try_acquire_owned() else { continue };
            let (server, socket, token) = (Arc::clone(&self), Arc::clone(&socket), self.token.clone());
            self.tracker.spawn(async move {
                if let Some(answer) = token.run_until_cancelled(server.answer_outside(&question)).await {
                    send(&socket, &answer, limit, client).await;
                }
                drop(place);
            });
        }
    }

    async fn serve_streams(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else { continue };
            let (server, token) = (Arc::clone(&self), self.token.clone());
            self.tracker.spawn(async move {
                let served = token.run_until_cancelled(server.serve_stream(stream)).await;
                if let Some(Err(error)) = served {
                    tracing::debug!(%error, "a DNS connection ended early");
                }
                drop(place);
            });
        }
    }

    async fn serve_stream(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let read = async {
                let mut question = vec![0u8; stream.read_u16().await?.into()];
                stream.read_exact(&mut question).await?;
                Ok::<_, io::Error>(question)
            };
            let question = match tokio::time::timeout(PATIENCE, read).await {
                Ok(Ok(question)) => question,
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Ok(()),
            };
            let question = Message::from_vec(&question).map_err(io::Error::other)?;
            let answer = match self.answer_here(&question) {
                Some(answer) => answer,
                None => self.answer_outside(&question).await,
            };
            let bytes = answer.to_vec().map_err(io::Error::other)?;
            let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
            stream.write_all(&[&length.to_be_bytes(), bytes.as_slice()].concat()).await?;
        }
    }

    /// The answer from the cluster's own names; `None` for names outside it.
    fn answer_here(&self, question: &Message) -> Option<Message> {
        let mut answer = reply_to(question);
        let [query] = question.queries.as_slice() else {
            answer.metadata.response_code = ResponseCode::FormErr;
            return Some(answer);
        };
        if question.metadata.op_code != OpCode::Query || question.metadata.message_type != MessageType::Query {
            answer.metadata.response_code = ResponseCode::NotImp;
            return Some(answer);
        }
        answer.metadata.authoritative = true;
        match self.zone.answer(&self.services.borrow(), query) {
            // A resolver in a program does not ask on by itself: what the other name means belongs into the answer.
            Outcome::Records(records) if alias(&records, query).is_some() => return None,
            Outcome::Records(records) => answer.answers = records,
            Outcome::NoData => answer.authorities.push(self.zone.authority()),
            Outcome::NoName => {
                answer.metadata.response_code = ResponseCode::NXDomain;
                answer.authorities.push(self.zone.authority());
            }
            Outcome::Outside => return None,
        }
        Some(answer)
    }

    /// The answer that needs the host's resolver, or another name of the cluster.
    async fn answer_outside(&self, question: &Message) -> Message {
        let [query] = question.queries.as_slice() else { return refusal(question) };
        let outcome = self.zone.answer(&self.services.borrow(), query);
        let Outcome::Records(mut records) = outcome else {
            return self.pass_on(question).await.unwrap_or_else(|| refusal(question));
        };
        let Some(target) = alias(&records, query) else { return refusal(question) };
        let next = Query::query(target, query.query_type());
        let known = self.zone.answer(&self.services.borrow(), &next);
        match known {
            Outcome::Records(found) => records.extend(found),
            Outcome::NoData | Outcome::NoName => {}
            Outcome::Outside => {
                let mut on = reply_to(question);
                on.metadata.message_type = MessageType::Query;
                on.queries = vec![next];
                match self.pass_on(&on).await {
                    Some(answer) => records.extend(answer.answers),
                    None => return refusal(question),
                }
            }
        }
        let mut answer = reply_to(question);
        answer.answers = records;
        answer
    }

    async fn pass_on(&self, question: &Message) -> Option<Message> {
        self.upstream.as_ref()?.ask(question).await
    }
}

/// The other name that the records lead to, unless the question was for just that.
fn alias(records: &[Record], query: &Query) -> Option<Name> {
    match records.first().map(|record| &record.data) {
        Some(RData::CNAME(target)) if query.query_type() != RecordType::CNAME => Some(target.0.clone()),
        _ => None,
    }
}

fn refusal(question: &Message) -> Message {
    let mut answer = reply_to(question);
    answer.metadata.response_code = ResponseCode::ServFail;
    answer
}

fn reply_to(question: &Message) -> Message {
    let mut answer = Message::new(question.metadata.id, MessageType::Response, question.metadata.op_code);
    answer.metadata.recursion_desired = question.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.queries.clone_from(&question.queries);
    if let Some(edns) = &question.edns {
        let mut own = hickory_proto::op::Edns::new();
        own.set_max_payload(edns.max_payload().clamp(PLAIN_UDP, LARGEST_UDP));
        answer.edns = Some(own);
    }
    answer
}

/// The largest datagram that a client takes.
fn limit_of(question: &Message) -> u16 {
    question.edns.as_ref().map_or(PLAIN_UDP, |edns| edns.max_payload().clamp(PLAIN_UDP, LARGEST_UDP))
}

/// An answer as a datagram; one that is too large says so instead, and is asked for again by TCP.
fn datagram(answer: &Message, limit: u16) -> Option<Vec<u8>> {
    let fits = |bytes: &Vec<u8>| bytes.len() <= usize::from(limit);
    answer.to_vec().ok().filter(fits).or_else(|| {
        let mut short = answer.clone();
        short.metadata.truncation = true;
        (short.answers, short.authorities, short.additionals) = (Vec::new(), Vec::new(), Vec::new());
        short.to_vec().ok()
    })
}

async fn send(socket: &UdpSocket, answer: &Message, limit: u16, client: SocketAddr) {
    if let Some(bytes) = datagram(answer, limit)
        && let Err(error) = socket.send_to(&bytes, client).await
    {
        tracing::debug!(%error, "a DNS answer could not be sent");
    }
}

/// For the fuzzer: a question from any bytes, answered from Services that are always the same.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Ok(question) = Message::from_vec(bytes) else { return };
    let service = super::Service {
        address: Some([10, 0, 0, 7].into()),
        hosts: vec![([10, 1, 0, 7].into(), Some("zero".to_owned()))],
        ..super::Service::default()
    };
    let name = |name: &str| ("default".to_owned(), name.to_owned());
    let alias = super::Service { external_name: Some("example.com".to_owned()), ..super::Service::default() };
    let services = Services { services: [(name("reviews"), service), (name("outside"), alias)].into() };
    let server = DnsServer {
        zone: Zone::new("cluster.local").expect("a domain"),
        services: watch::channel(Arc::new(services)).1,
        upstream: None,
        passed_on: Arc::new(Semaphore::new(0)),
        tracker: TaskTracker::new(),
        token: CancellationToken::new(),
    };
    let answer = server.answer_here(&question).unwrap_or_else(|| refusal(&question));
    assert_eq!(answer.metadata.id, question.metadata.id, "the answer is to the question");
    if let Some(datagram) = datagram(&answer, limit_of(&question)) {
        Message::from_vec(&datagram).expect("what is sent can be read");
    }
}
