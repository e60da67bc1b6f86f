//! Runs named tests one after the other around something expensive that they share, and speaks as libtest does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// One test: a sentence, and what shows it.
pub struct Test<T> {
    /// The sentence, in snake case.
    pub name: &'static str,
    /// Panics when it does not hold.
    pub run: fn(&T),
}

/// Lists functions as [`Test`]s under their own names.
#[macro_export]
macro_rules! tests {
    ($($path:path),* $(,)?) => {
        [$($crate::runner::Test { name: stringify!($path), run: $path }),*]
    };
}

/// Runs the tests that the command line selects (a part of their name), with what `setup` makes; `setup` is not called
/// when none is selected. What it made is dropped before the result is printed.
pub fn main<T>(setup: impl FnOnce() -> T, tests: &[Test<T>]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    if arguments.iter().any(|a| a == "--list") {
        tests.iter().for_each(|t| println!("{}: test", t.name));
        return ExitCode::SUCCESS;
    }
    let selected: Vec<&Test<T>> =
        tests.iter().filter(|t| filters.is_empty() || filters.iter().any(|f| t.name.contains(f.as_str()))).collect();
    println!("\nrunning {} tests", selected.len());
    let mut failed = Vec::new();
    if !selected.is_empty() {
        let Ok(shared) = catch_unwind(AssertUnwindSafe(setup)) else {
            println!(
                "\ntest result: FAILED. 0 passed; {} failed; 0 ignored; 0 measured; 0 filtered out",
                selected.len()
            );
            return ExitCode::from(101);
        };
        for test in &selected {
            let passed = catch_unwind(AssertUnwindSafe(|| (test.run)(&shared))).is_ok();
            println!("test {} ... {}", test.name, if passed { "ok" } else { "FAILED" });
            if !passed {
                failed.push(test.name);
            }
        }
    }
    let word = if failed.is_empty() { "ok" } else { "FAILED" };
    if !failed.is_empty() {
        println!("\nfailures:\n    {}", failed.join("\n    "));
    }
    println!(
        "\ntest result: {word}. {} passed; {} failed; 0 ignored; 0 measured; {} filtered out\n",
        selected.len() - failed.len(),
        failed.len(),
        tests.len() - selected.len()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}
