//! Who holds a certificate of this mesh, under which root and until when: what a rotation of the root must know before it
//! takes the old root away.
//!
//! Each CA writes down whom it has issued to before it hands the certificate out ([`kept`]), so that no crash forgets a
//! holder. Pods are told apart by their names; whoever is in no pod (a machine outside) by the serial number of its
//! certificate, which its next request shows. A pod whose proxy starts anew replaces its own record: that errs where two
//! processes of one pod have certificates of their own.

pub mod kept;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Most records, which fit into one object of the API. Those over it are joined into one that ends with the last of them.
const MOST: usize = 8192;
/// Joined records end at a multiple of this, so that not each of them is a change.
const JOINED: u64 = 600;

/// Who holds a certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// A CA, with what it has in force itself.
    Ca(String),
    /// A pod, `namespace/name`.
    Pod(String),
    /// Somebody in no pod, by the serial number.
    Leaf(String),
    /// All of whom there is no record of their own, by who signed.
    Others(String),
}

/// What it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The key that signed, in hexadecimal.
    pub issuer: String,
    /// Version of the roots that came with it.
    pub bundle: String,
    /// When it ends, in seconds since 1970.
    pub ends: u64,
    /// Whose it is; of a pod or a CA the name of the trust domain alone, if that has several, or nothing (`-`).
    pub id: String,
}

impl Holder {
    /// The holder of a certificate with this serial number, which some write with zeros in front.
    #[must_use]
    pub fn leaf(serial: &str) -> Self {
        Holder::Leaf(serial.trim_start_matches('0').to_owned())
    }

    /// Whether nobody knows who it is.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Holder::Others(_))
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Ca(pod) => write!(f, "ca {pod}"),
            Holder::Pod(name) => write!(f, "pod {name}"),
            Holder::Leaf(serial) => write!(f, "leaf {serial}"),
            Holder::Others(issuer) => write!(f, "others {issuer}"),
        }
    }
}

/// The records, as far as there is room for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    records: BTreeMap<Holder, Record>,
}

/// A line that is no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is no record: {text:?}")]
pub struct Damaged {
    /// Its number, from 1.
    pub line: usize,
    /// What it says.
    pub text: String,
}

impl Ledger {
    /// What a holder has.
    #[must_use]
    pub fn get(&self, holder: &Holder) -> Option<&Record> {
        self.records.get(holder)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&Holder, &Record)> {
        self.records.iter()
    }

    /// Takes a record in, or out with `None`.
    pub fn put(&mut self, holder: Holder, record: Option<Record>) {
        let Some(record) = record else {
            self.records.remove(&holder);
            return;
        };
        let has_room = self.records.len() < MOST || self.records.contains_key(&holder);
        if has_room || matches!(holder, Holder::Ca(_) | Holder::Others(_)) {
            self.records.insert(holder, record);
            return;
        }
        let (holder, record) = self.joined(record);
        self.records.insert(holder, record);
    }

    /// Whether it says already what this record would say: there is no room for it, and the others end later.
    #[must_use]
    pub fn covers(&self, holder: &Holder, record: &Record) -> bool {
        let is_full = self.records.len() >= MOST && !self.records.contains_key(holder);
        is_full && {
            let (others, joined) = self.joined(record.clone());
            self.records.get(&others) == Some(&joined)
        }
    }

    /// Drops what has ended; whether there was any.
    pub fn forget_ended(&mut self, now: SystemTime) -> bool {
        let (now, before) = (seconds(now), self.records.len());
        self.records.retain(|holder, record| matches!(holder, Holder::Ca(_)) || record.ends > now);
        self.records.len() < before
    }

    /// A record joined with those that have none of their own. Where the roots differ it has none that all know.
    fn joined(&self, record: Record) -> (Holder, Record) {
        let others = Holder::Others(record.issuer.clone());
        let ends = record.ends.div_ceil(JOINED).saturating_mul(JOINED);
        let joined = match self.records.get(&others) {
            Some(before) if before.bundle == record.bundle => Record { ends: ends.max(before.ends), ..before.clone() },
            Some(before) => Record { bundle: "-".to_owned(), ends: ends.max(before.ends), ..before.clone() },
            None => Record { ends, id: "-".to_owned(), ..record },
        };
        (others, joined)
    }

    /// As it is kept: a line each.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(self.records.len() * 96);
        for (holder, Record { issuer, bundle, ends, id }) in &self.records {
            use fmt::Write as _;
            let _ = writeln!(text, "{holder} {issuer} {bundle} {ends} {id}");
        }
        text
    }
}

impl FromStr for Ledger {
    type Err = Damaged;

    fn from_str(text: &str) -> Result<Self, Damaged> {
        let mut records = BTreeMap::new();
        for (at, line) in text.lines().enumerate() {
            let damaged = || Damaged { line: at + 1, text: line.chars().take(80).collect() };
            let parts: Vec<&str> = line.split(' ').collect();
            let [kind, name, issuer, bundle, ends, id] = parts[..] else { return Err(damaged()) };
            let name = name.to_owned();
            let holder = match kind {
                "ca" => Holder::Ca(name),
                "pod" => Holder::Pod(name),
                "leaf" => Holder::Leaf(name),
                "others" => Holder::Others(name),
                _ => return Err(damaged()),
            };
            let ends = ends.parse().map_err(|_| damaged())?;
            let [issuer, bundle, id] = [issuer, bundle, id].map(str::to_owned);
            records.insert(holder, Record { issuer, bundle, ends, id });
        }
        Ok(Ledger { records })
    }
}

/// A time as records have it.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A record's time.
pub(crate) fn time(seconds: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
