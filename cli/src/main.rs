//! The `meshctl` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    meshctl::main(std::env::args_os().collect())
}
