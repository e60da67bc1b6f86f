//! The route-rule files of the classic releases, unchanged: each that concerns versions which bookinfo has here.

use std::collections::{BTreeMap, BTreeSet};

use mesh_tests::mesh::Mesh;
use mesh_tests::programs::repository;

use crate::routing::{MANY, reviews};
use crate::shares::is_about;

/// What a file does to bookinfo after `route-rule-all-v1.yaml`.
enum Effect {
    /// Everyone sees these versions of reviews, in these shares.
    Reviews(&'static [(&'static str, usize)]),
    /// Jason sees this version of reviews, everyone else v1.
    Jason(&'static str),
    /// Jason's requests to ratings are answered with 500.
    Abort,
    /// Jason's requests to ratings wait for seven seconds.
    Delay,
}

const RELEASES: [&str; 3] = ["0.8.0-kube", "0.5.1", "0.2.12"];

const FILES: &[(&str, Effect)] = &[
    ("route-rule-all-v1.yaml", Effect::Reviews(&[("v1", 100)])),
    ("route-rule-reviews-50-v3.yaml", Effect::Reviews(&[("v1", 50), ("v3", 50)])),
    ("route-rule-reviews-90-10.yaml", Effect::Reviews(&[("v1", 90), ("v2", 10)])),
    ("route-rule-reviews-80-20.yaml", Effect::Reviews(&[("v1", 80), ("v2", 20)])),
    ("route-rule-reviews-v2-v3.yaml", Effect::Reviews(&[("v2", 50), ("v3", 50)])),
    ("route-rule-reviews-v3.yaml", Effect::Reviews(&[("v3", 100)])),
    ("route-rule-reviews-test-v2.yaml", Effect::Jason("v2")),
    ("route-rule-ratings-test-abort.yaml", Effect::Abort),
    ("route-rule-ratings-test-delay.yaml", Effect::Delay),
];

pub(crate) fn the_classic_files_do_as_they_are_what_they_say(mesh: &Mesh) {
    let folder = repository().join("api/tests/data/bookinfo");
    let mut seen = BTreeSet::new();
    let mut shown = Vec::new();
    for release in RELEASES {
        let path = |file: &str| folder.join(release).join(file).to_string_lossy().into_owned();
        for (file, effect) in FILES {
            // A file that a later release has in the same words is shown there.
            let Ok(text) = std::fs::read_to_string(path(file)) else { continue };
            if !seen.insert(text.trim_end().to_owned()) {
                continue;
            }
            mesh.without_rules();
            let _ = mesh.meshctl(&["create", "-f", &path("route-rule-all-v1.yaml"), "--wait"]).ok();
            let _ = mesh.meshctl(&["apply", "-f", &path(file), "--wait"]).ok();
            show(mesh, &format!("{release}/{file}"), effect);
            shown.push(*file);
        }
    }
    assert!(FILES.iter().all(|(file, _)| shown.contains(file)), "not all of the files are there: {shown:?}");
    println!("  {} files", shown.len());
}

fn show(mesh: &Mesh, file: &str, effect: &Effect) {
    match effect {
        Effect::Reviews(shares) => {
            let seen = reviews(mesh, MANY, &[]);
            assert_eq!(seen.len(), shares.len(), "{file}: {seen:?}");
            for (version, percent) in *shares {
                let count = seen.get(version).copied().unwrap_or(0);
                assert!(is_about(count, MANY, *percent), "{file}: {seen:?}");
            }
        }
        Effect::Jason(version) => {
            assert_eq!(reviews(mesh, MANY, &["Cookie: user=jason"]), BTreeMap::from([(*version, MANY)]), "{file}");
            assert_eq!(reviews(mesh, MANY, &["Cookie: user=other"]), BTreeMap::from([("v1", MANY)]), "{file}");
        }
        Effect::Abort => {
            assert!(ratings(mesh, "user=jason").iter().all(|(status, _)| status == "500"), "{file}");
            assert!(ratings(mesh, "user=other").iter().all(|(status, _)| status == "200"), "{file}");
        }
        Effect::Delay => {
            let delayed = ratings(mesh, "user=jason");
            assert!(delayed.iter().all(|(status, took)| status == "200" && *took >= 7.0), "{file}: {delayed:?}");
            let others = ratings(mesh, "user=other");
            assert!(others.iter().all(|(status, took)| status == "200" && *took < 7.0), "{file}: {others:?}");
        }
    }
}

/// Sends [`MANY`] requests to ratings side by side; gives status and seconds of each.
fn ratings(mesh: &Mesh, cookie: &str) -> Vec<(String, f64)> {
    let script = format!(
        "for at in 1 2 3 4; do curl -s -Z --parallel-max 250 -o /dev/null -w '%{{http_code}} %{{time_total}}\\n' \
         -H 'Cookie: {cookie}' \"http://ratings:9080/ratings/$at?n=[1-{}]\" & done; wait",
        MANY / 4
    );
    let printed = mesh.exec("deploy/reviews-v2", &["sh", "-c", &script]).ok().stdout;
    let answers: Vec<_> = printed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(status, took)| (status.to_owned(), took.parse().expect("seconds")))
        .collect();
    assert_eq!(answers.len(), MANY, "{printed}");
    answers
}
