//! A compressed archive (`tar.gz`, POSIX ustar) of texts.

use std::io::{self, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;

/// Size of a block.
const BLOCK: usize = 512;

/// Packs files into a folder of that name; `time` is when they were made, in seconds since 1970.
pub(super) fn pack(folder: &str, files: &[(String, Vec<u8>)], time: u64) -> io::Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    for (name, bytes) in files {
        gzip.write_all(&header(&format!("{folder}/{name}"), bytes.len(), time)?)?;
        gzip.write_all(bytes)?;
        gzip.write_all(&[0; BLOCK][..bytes.len().next_multiple_of(BLOCK) - bytes.len()])?;
    }
    // Two empty blocks end it.
    gzip.write_all(&[0; 2 * BLOCK])?;
    gzip.finish()
}

fn header(path: &str, size: usize, time: u64) -> io::Result<[u8; BLOCK]> {
    let mut header = [0_u8; BLOCK];
    let (prefix, name) = split(path).ok_or_else(|| io::Error::other(format!("the path {path} is too long")))?;
    let fields: [(usize, &[u8]); 9] = [
        (0, name.as_bytes()),
        (100, b"0000600"),
        (108, b"0000000"),
        (116, b"0000000"),
        (124, &octal(u64::try_from(size).unwrap_or(u64::MAX))),
        (136, &octal(time)),
        // While the checksum is counted, its own field is blank.
        (148, b"        0"),
        (257, b"ustar\x0000"),
        (345, prefix.as_bytes()),
    ];
    for (at, bytes) in fields {
        header[at..at + bytes.len()].copy_from_slice(bytes);
    }
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(header)
}

fn octal(number: u64) -> Vec<u8> {
    format!("{number:011o}").into_bytes()
}

/// A path in two parts of at most 155 and 100 bytes, cut at a slash.
fn split(path: &str) -> Option<(&str, &str)> {
    if path.len() <= 100 {
        return Some(("", path));
    }
    path.match_indices('/')
        .map(|(at, _)| (&path[..at], &path[at + 1..]))
        .find(|(before, after)| before.len() <= 155 && after.len() <= 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tar_reads_what_was_packed() {
        let long = format!("proxies/{}/{}/clusters.json", "n".repeat(63), "p".repeat(63));
        let files = [("a.txt".to_owned(), b"hello".to_vec()), (long, vec![b'x'; 1500]), ("e".to_owned(), Vec::new())];
        let packed = pack("mesh-debug", &files, 1_700_000_000).expect("it can be packed");
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("t.tar.gz");
        std::fs::write(&path, packed).expect("written");
        let unpacked = std::process::Command::new("tar").arg("-xzf").arg(&path).arg("-C").arg(dir.path()).status();
        assert!(unpacked.expect("there is tar").success());
        for (name, bytes) in files {
            assert_eq!(std::fs::read(dir.path().join("mesh-debug").join(&name)).expect("it is there"), bytes, "{name}");
        }
    }
}
