//! Logs, exec and port forwarding: the caller's end. The node has the other one.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http::HeaderMap;
use http::header::{SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::request::Parts;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::answer::{self, Answer};
use super::asked::Asked;
use super::object::{self, array, text};
use super::streams::{Duplex, ExecRequest, ExecSession, LogRequest, PodRef, TerminalSize};
use super::{Api, ApiError, ApiResult, Reason};

/// Bytes that are read from a pod at once.
const CHUNK: usize = 32 << 10;
/// Messages that wait for a slow caller; then the pod's output waits too.
const QUEUE: usize = 16;

/// Answers with a container's log.
///
/// # Errors
/// `NotFound`, `BadRequest` when it is not clear which container is meant, and what the node refuses.
pub(super) async fn log(api: &Api, asked: &Asked) -> ApiResult<Answer> {
    let query = &asked.query;
    let (pod, container) = container(api, asked)?;
    let request = LogRequest {
        pod,
        container,
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        tail_lines: query.number("tailLines")?,
        since_seconds: query.number("sinceSeconds")?,
        timestamps: query.flag("timestamps"),
        limit_bytes: query.number("limitBytes")?,
    };
    let receiver = api.streams.log(request).await?;
    let stop = api.stop.clone();
    let lines = ReceiverStream::new(receiver).take_until(async move { stop.cancelled().await });
    let mut answer = answer::typed(200, "text/plain", Bytes::new());
    *answer.body_mut() = Body::from_stream(lines);
    Ok(answer)
}

/// Which pod and which of its containers.
fn container(api: &Api, asked: &Asked) -> ApiResult<(PodRef, String)> {
    let (pod, found) = pod(api, asked)?;
    let names: Vec<&str> = ["/spec/containers", "/spec/initContainers"]
        .into_iter()
        .flat_map(|list| array(&found, list))
        .map(|it| text(it, "/name"))
        .collect();
    let default =
        found.pointer("/metadata/annotations/kubectl.kubernetes.io~1default-container").and_then(Value::as_str);
    let wanted = asked.query.get("container").or(default);
    let wanted = match (wanted, array(&found, "/spec/containers")) {
        (Some(wanted), _) => wanted,
        (None, [only]) => text(only, "/name"),
        (None, many) => {
            let list = many.iter().map(|it| text(it, "/name")).collect::<Vec<_>>().join(" ");
            return Err(ApiError::bad_request(format!(
                "a container name must be specified for pod {}, choose one of: [{list}]",
                pod.name
            )));
        }
    };
    if !names.contains(&wanted) {
        return Err(ApiError::bad_request(format!("container {wanted} is not valid for pod {}", pod.name)));
    }
    let wanted = wanted.to_owned();
    Ok((pod, wanted))
}

fn pod(api: &Api, asked: &Asked) -> ApiResult<(PodRef, Arc<Value>)> {
    let found = api.store.get("pods", &asked.target.namespace, &asked.target.name)?;
    let pod = PodRef {
        namespace: asked.target.namespace.clone(),
        name: asked.target.name.clone(),
        uid: object::uid(&found).to_owned(),
    };
    Ok((pod, found))
}

async fn upgrade(parts: &mut Parts, protocols: &[&'static str]) -> ApiResult<(WebSocketUpgrade, String)> {
    let upgrade = WebSocketUpgrade::from_request_parts(parts, &()).await.map_err(|error| {
        ApiError::bad_request(format!("only WebSocket is spoken here (protocols {}): {error}", protocols.join(", ")))
    })?;
    let upgrade = upgrade.protocols(protocols.iter().copied()).max_message_size(1 << 20);
    let chosen = upgrade.selected_protocol().and_then(|it| it.to_str().ok()).map(str::to_owned);
    let Some(chosen) = chosen else {
        return Err(ApiError::bad_request(format!(
            "none of the WebSocket protocols {} was offered",
            protocols.join(", ")
        )));
    };
    Ok((upgrade, chosen))
}

/// Runs a command in a container.
///
/// # Errors
/// As [`log`]; once the connection is a WebSocket, errors go to its error channel.
pub(super) async fn exec(api: &Arc<Api>, asked: &Asked, parts: &mut Parts) -> ApiResult<Answer> {
    let query = &asked.query;
    let (pod, container) = container(api, asked)?;
    let tty = query.flag("tty");
    let request = ExecRequest {
        pod,
        container,
        command: query.all("command"),
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr") && !tty,
        tty,
    };
    if request.command.is_empty() {
        return Err(ApiError::bad_request("a command is needed"));
    }
    let (upgrade, protocol) = upgrade(parts, &["v5.channel.k8s.io", "v4.channel.k8s.io"]).await?;
    let session = api.streams.exec(request).await?;
    let stop = api.stop.clone();
    Ok(upgrade.on_upgrade(move |socket| async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = run(socket, session, protocol.starts_with("v5")) => {}
        }
    }))
}

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

async fn run(socket: WebSocket, session: ExecSession, closes: bool) {
    let ExecSession { stdin, stdout, stderr, resize, exit } = session;
    let (sink, stream) = socket.split();
    let (sender, receiver) = mpsc::channel::<(u8, Bytes)>(QUEUE);
    let output = async {
        tokio::join!(pump(stdout, STDOUT, &sender), pump(stderr, STDERR, &sender));
        let status = exit_status(exit.await);
        let _ = sender.send((ERROR, status.to_string().into())).await;
        drop(sender);
    };
    let write = write(sink, receiver);
    let read = async {
        input(stream, stdin, resize, closes).await;
        // The caller has gone; when the output ends the session ends anyway.
    };
    // Output ends when the command does; a caller that goes away ends the command, as the session is dropped.
    let finish = async { tokio::join!(output, write) };
    tokio::select! {
        _ = finish => {}
        () = read => {}
    }
}

/// Reads what the caller sends until it closes the connection.
async fn input(
    mut stream: SplitStream<WebSocket>,
    mut stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    resize: Option<mpsc::Sender<TerminalSize>>,
    closes: bool,
) {
    while let Some(Ok(message)) = stream.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) => continue,
        };
        match bytes.split_first() {
            Some((&STDIN, data)) => {
                let Some(writer) = &mut stdin else { continue };
                let written = async {
                    writer.write_all(data).await?;
                    writer.flush().await
                };
                if written.await.is_err() {
                    stdin = None;
                }
            }
            Some((&RESIZE, data)) => {
                if let (Some(resize), Ok(size)) = (&resize, serde_json::from_slice::<TerminalSize>(data)) {
                    let _ = resize.send(size).await;
                }
            }
            Some((&CLOSE, [STDIN])) if closes => {
                if let Some(mut writer) = stdin.take() {
                    let _ = writer.shutdown().await;
                }
            }
            _ => {}
        }
    }
}

/// Passes a stream on to a channel of the WebSocket until it ends.
async fn pump(reader: Option<Box<dyn AsyncRead + Send + Unpin>>, channel: u8, sender: &mpsc::Sender<(u8, Bytes)>) {
    let Some(mut reader) = reader else { return };
    let mut buffer = vec![0; CHUNK];
    loop {
        match reader.read(&mut buffer).await {
            Ok(read) if read > 0 => {
                if sender.send((channel, Bytes::copy_from_slice(&buffer[..read]))).await.is_err() {
                    return;
                }
            }
            _ => return,
        }
    }
}

async fn write(mut sink: SplitSink<WebSocket, Message>, mut receiver: mpsc::Receiver<(u8, Bytes)>) {
    while let Some((channel, bytes)) = receiver.recv().await {
        let mut message = Vec::with_capacity(bytes.len() + 1);
        message.push(channel);
        message.extend_from_slice(&bytes);
        if sink.send(Message::Binary(message.into())).await.is_err() {
            return;
        }
    }
    let _ = sink.send(Message::Close(Some(CloseFrame { code: close_code::NORMAL, reason: "".into() }))).await;
    let _ = sink.close().await;
}

fn exit_status(exit: Result<i32, String>) -> Value {
    match exit {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(why) => ApiError::new(Reason::InternalError, why).to_status(),
    }
}

/// Whether a caller wants SPDY, bare or inside a WebSocket, as every kubectl does to forward ports.
fn speaks_spdy(headers: &HeaderMap) -> bool {
    let values = headers.get_all(UPGRADE).iter().chain(headers.get_all(SEC_WEBSOCKET_PROTOCOL));
    values.filter_map(|value| value.to_str().ok()).any(|value| value.contains("SPDY/3.1"))
}

/// Connects to ports of a pod.
///
/// # Errors
/// As [`log`]; once the connection is a WebSocket, errors go to the port's error channel.
pub(super) async fn port_forward(api: &Arc<Api>, asked: &Asked, parts: &mut Parts) -> ApiResult<Answer> {
    let (pod, _) = pod(api, asked)?;
    if speaks_spdy(&parts.headers) {
        return Err(ApiError::bad_request(
            "ports are forwarded over WebSocket channels here, and kubectl speaks SPDY; use `meshctl local port-forward`",
        ));
    }
    let texts: Vec<String> = asked.query.all("ports").iter().flat_map(|it| it.split(',')).map(str::to_owned).collect();
    let ports: Vec<u16> = texts
        .iter()
        .map(|text| text.parse().map_err(|_| ApiError::bad_request(format!("ports: \"{text}\" is not a port"))))
        .collect::<ApiResult<_>>()?;
    if ports.is_empty() || ports.len() > 32 {
        return Err(ApiError::bad_request("ports: between 1 and 32 ports are needed"));
    }
    let (upgrade, _) = upgrade(parts, &["v5.channel.k8s.io", "v4.channel.k8s.io"]).await?;
    let (api, stop) = (api.clone(), api.stop.clone());
    Ok(upgrade.on_upgrade(move |socket| async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = forward(&api, pod, ports, socket) => {}
        }
    }))
}

async fn forward(api: &Api, pod: PodRef, ports: Vec<u16>, socket: WebSocket) {
    let (sink, mut stream) = socket.split();
    let (sender, receiver) = mpsc::channel::<(u8, Bytes)>(QUEUE);
    let mut inputs = vec![];
    let mut outputs = vec![];
    for (index, number) in ports.into_iter().enumerate() {
        let data = u8::try_from(index * 2).unwrap_or(u8::MAX);
        let (input, waiting) = mpsc::channel::<Bytes>(QUEUE);
        inputs.push(Some(input));
        let port = Port { pod: pod.clone(), number, data };
        outputs.push(one_port(api, port, waiting, sender.clone()));
    }
    drop(sender);
    let read = async {
        while let Some(Ok(message)) = stream.next().await {
            let mut bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Close(_) => return,
                _ => continue,
            };
            if bytes.is_empty() {
                continue;
            }
            let channel = bytes.split_to(1)[0];
            // In v5 the caller may close a channel: that is the end of what it sends there.
            let (channel, closes) = match (channel, bytes.first()) {
                (CLOSE, Some(closed)) => (*closed, true),
                _ => (channel, false),
            };
            let Some(input) = inputs.get_mut(usize::from(channel / 2)).filter(|_| channel % 2 == 0) else { continue };
            if closes {
                *input = None;
            } else if let Some(sender) = input
                && sender.send(bytes).await.is_err()
            {
                *input = None;
            }
        }
    };
    let outputs = futures_util::future::join_all(outputs);
    tokio::select! {
        () = read => {}
        _ = async { tokio::join!(outputs, write(sink, receiver)) } => {}
    }
}

/// A forwarded port: channel `data` has its bytes, the next one its errors.
struct Port {
    pod: PodRef,
    number: u16,
    data: u8,
}

/// Serves one port until the pod has closed its end.
async fn one_port(api: &Api, port: Port, mut input: mpsc::Receiver<Bytes>, sender: mpsc::Sender<(u8, Bytes)>) {
    let Port { pod, number, data } = port;
    // Both channels begin with the port's number, so that the caller can check which is which.
    for channel in [data, data + 1] {
        if sender.send((channel, Bytes::copy_from_slice(&number.to_le_bytes()))).await.is_err() {
            return;
        }
    }
    let stream: Box<dyn Duplex> = match api.streams.port_forward(pod, number).await {
        Ok(stream) => stream,
        Err(error) => {
            let _ = sender.send((data + 1, error.message.into())).await;
            return;
        }
    };
    let (reader, mut writer) = tokio::io::split(stream);
    let send = async {
        while let Some(bytes) = input.recv().await {
            if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                break;
            }
        }
        let _ = writer.shutdown().await;
        // What the pod still has to say is worth waiting for.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = send => {}
        () = pump(Some(Box::new(reader)), data, &sender) => {}
    }
}
