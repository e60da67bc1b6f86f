//! The program of the node's tests: the supervisor under test, and the applications that run in its pods.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["supervise", state_dir, port] => supervise(state_dir, port),
        ["serve", port, text] => serve(port, text),
        ["get", address, path] => get(address, path),
        ["exit", code] => ExitCode::from(code.parse::<u8>().unwrap_or(1)),
        ["say", text] => say(text),
        ["wait"] => wait(),
        _ => {
            eprintln!("unknown arguments: {words:?}");
            ExitCode::from(2)
        }
    }
}

fn supervise(state_dir: &str, port: &str) -> ExitCode {
    let programs = std::env::current_exe().ok().and_then(|path| path.parent().map(PathBuf::from));
    let options = local::Options {
        state_dir: PathBuf::from(state_dir),
        host_port: port.parse().unwrap_or(0),
        next_free_port: true,
        programs: programs.unwrap_or_default(),
    };
    local::supervise(&options)
}

/// Answers every request with a text, or with a file that is asked for by an absolute path below `/file`.
fn serve(port: &str, text: &str) -> ExitCode {
    let listener = TcpListener::bind(format!("[::]:{port}")).or_else(|_| TcpListener::bind(format!("0.0.0.0:{port}")));
    let Ok(listener) = listener else { return ExitCode::FAILURE };
    println!("listening on {port}");
    for stream in listener.incoming().flatten() {
        let _ = answer(stream, text);
    }
    ExitCode::SUCCESS
}

fn answer(mut stream: TcpStream, text: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let path = line.split(' ').nth(1).unwrap_or("/");
    let (status, body) = match path.strip_prefix("/file") {
        Some(file) => match std::fs::read_to_string(file) {
            Ok(text) => ("200 OK", text),
            Err(error) => ("404 Not Found", error.to_string()),
        },
        None if path.starts_with("/peer") => ("200 OK", stream.peer_addr()?.ip().to_canonical().to_string()),
        None => ("200 OK", text.to_owned()),
    };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

fn get(address: &str, path: &str) -> ExitCode {
    let asked = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    match asked() {
        Ok(answer) => {
            print!("{}", answer.split_once("\r\n\r\n").map_or("", |(_, body)| body));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) -> ExitCode {
    println!("{text}");
    ExitCode::SUCCESS
}

/// Waits for a signal's default action.
fn wait() -> ExitCode {
    loop {
        std::thread::park();
    }
}
