//! Tables as kubectl draws them: columns wide enough, three spaces between, no lines.

use std::fmt::Write as _;

use jiff::Timestamp;

/// Rows below headings.
#[derive(Debug, Clone)]
pub struct Table {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(headings: &[&str]) -> Self {
        Table { headings: headings.iter().map(|h| (*h).to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row; an empty cell is shown as `-`.
    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.headings.len(), "a row has a cell per heading");
        self.rows.push(cells);
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text, with its headings if `with_headings`.
    #[must_use]
    pub fn to_text(&self, with_headings: bool) -> String {
        self.to_text_in(&mut Vec::new(), with_headings)
    }

    /// As [`Table::to_text`], with columns at least as wide as they were before: for rows that come one by one.
    pub fn to_text_in(&self, widths: &mut Vec<usize>, with_headings: bool) -> String {
        let width = |text: &str| console::measure_text_width(text);
        widths.resize(self.headings.len(), 0);
        let cells = std::iter::once(&self.headings).chain(&self.rows);
        for row in cells {
            for (column, cell) in widths.iter_mut().zip(row) {
                *column = (*column).max(width(shown(cell)));
            }
        }
        let mut text = String::new();
        let mut draw = |cells: &[String]| {
            let last = cells.len().saturating_sub(1);
            for (i, (cell, column)) in cells.iter().zip(&*widths).enumerate() {
                let cell = shown(cell);
                text.push_str(cell);
                if i < last {
                    let _ = write!(text, "{:1$}", "", column - width(cell) + 3);
                }
            }
            text.push('\n');
        };
        if with_headings {
            draw(&self.headings);
        }
        self.rows.iter().for_each(|row| draw(row));
        text
    }
}

fn shown(cell: &str) -> &str {
    if cell.is_empty() { "-" } else { cell }
}

/// How long ago an RFC 3339 time was, as kubectl writes it: `42s`, `5m`, `3h12m`, `2d`.
#[must_use]
pub fn age(since: &str, now: Timestamp) -> String {
    since
        .parse::<Timestamp>()
        .map(|then| duration(now.as_second().saturating_sub(then.as_second()).max(0).unsigned_abs()))
        .unwrap_or_default()
}

/// Seconds in kubectl's words.
#[must_use]
pub fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 if !seconds.is_multiple_of(60) => format!("{minutes}m{}s", seconds % 60),
        120..10_800 => format!("{minutes}m"),
        10_800..28_800 if !minutes.is_multiple_of(60) => format!("{hours}h{}m", minutes % 60),
        10_800..172_800 => format!("{hours}h"),
        172_800..691_200 if !hours.is_multiple_of(24) => format!("{days}d{}h", hours % 24),
        _ if days < 730 => format!("{days}d"),
        _ => format!("{}y{}d", days / 365, days % 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "AGE"]);
        table.row(vec!["reviews-default".into(), "3s".into()]);
        table.row(vec!["x".into(), String::new()]);
        assert_eq!(table.to_text(true), "NAME              AGE\nreviews-default   3s\nx                 -\n");
    }

    #[test]
    fn ages_are_written_as_kubectl_does() {
        for (seconds, expected) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (3600, "60m"),
            (10_800, "3h"),
            (11_520, "3h12m"),
            (86_400, "24h"),
            (172_800, "2d"),
            (176_400, "2d1h"),
            (700_000, "8d"),
            (63_072_000, "2y0d"),
        ] {
            assert_eq!(duration(seconds), expected, "{seconds}");
        }
    }
}
