//! Counts, compared with shares and with other counts.

use std::collections::BTreeMap;

/// Whether `count` of `total` is within five standard deviations of a share in percent.
pub(crate) fn is_about(count: usize, total: usize, percent: usize) -> bool {
    let (n, p) = (total as f64, percent as f64 / 100.0);
    (count as f64 - n * p).abs() <= 5.0 * (n * p * (1.0 - p)).sqrt()
}

/// Whether two counts of the same things can come from one distribution: each within five standard deviations.
pub(crate) fn are_alike(one: &BTreeMap<String, usize>, other: &BTreeMap<String, usize>) -> bool {
    let (n, m) = (one.values().sum::<usize>() as f64, other.values().sum::<usize>() as f64);
    one.keys().eq(other.keys())
        && one.iter().all(|(key, &count)| {
            let (a, b) = (count as f64, other[key] as f64);
            let p = (a + b) / (n + m);
            (a / n - b / m).abs() <= 5.0 * (p * (1.0 - p) * (1.0 / n + 1.0 / m)).sqrt()
        })
}
