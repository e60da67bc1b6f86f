//! Makes inputs of others: what parsers stumble over, put in, left out, doubled, or exchanged.

/// Words that mean something to some parser.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"=",
    b"\"",
    b"/",
    b"//",
    b"/../",
    b"%2f",
    b"%00",
    b"%",
    b"#",
    b"?",
    b"*",
    b"chunked",
    b"Transfer-Encoding: ",
    b"Content-Length: ",
    b"Host: ",
    b"Connection: ",
    b"Upgrade: ",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"CONNECT ",
    b"0\r\n\r\n",
    b"ffffffffffffffff",
    b"\x16\x03\x01",
    b"\xff\xff",
    b"\x00\x00",
    b"- ",
    b"\n  ",
    b"{",
    b"}",
    b"[",
    b"]",
    b"&a ",
    b"*a",
    b"!!",
    b"|\n",
    b"---\n",
    b"99999999999999999999",
    b"-1",
    b"\xc3\xa9",
    b"\xef\xbf\xbd",
];

/// Numbers that look random and are the same each time.
pub struct Dice(u64);

impl Dice {
    /// Dice of a name of their own.
    pub fn new(name: &str) -> Self {
        Dice(
            name.bytes()
                .fold(0x9e37_79b9_7f4a_7c15, |seed, byte| (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)),
        )
    }

    /// The next number below a bound; 0 if there is none below it.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound.max(1)
    }

    /// One of many.
    pub fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// An input like this one, with something of the other.
pub fn mutated(dice: &mut Dice, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=dice.below(4) {
        let (at, end) = range(dice, bytes.len());
        match dice.below(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            1 => drop(bytes.splice(at..at, [dice.below(256) as u8])),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let doubled = bytes[at..end].to_vec();
                drop(bytes.splice(end..end, doubled));
            }
            4 => drop(bytes.splice(at..at, dice.of(WORDS).iter().copied())),
            5 => drop(bytes.splice(at..end, dice.of(WORDS).iter().copied())),
            6 => {
                let (from, to) = range(dice, other.len());
                drop(bytes.splice(at..end, other[from..to].iter().copied()));
            }
            7 => bytes.truncate(at),
            _ => {
                // A byte many times: limits of lengths are met.
                let byte = bytes.get(at).copied().unwrap_or(b'x');
                let count = 1 << dice.below(12);
                drop(bytes.splice(at..at, std::iter::repeat_n(byte, count)));
            }
        }
        bytes.truncate(64 * 1024);
    }
    bytes
}

/// A range within so many bytes, most often a short one.
fn range(dice: &mut Dice, length: usize) -> (usize, usize) {
    let at = dice.below(length + 1);
    let most = if dice.below(4) == 0 { length - at } else { (length - at).min(16) };
    (at, at + dice.below(most + 1))
}
