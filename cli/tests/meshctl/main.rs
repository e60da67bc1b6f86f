//! The real binary, as a user meets it: what it prints, where, and how it ends.

mod api;
mod completion;
mod edit;
mod errors;
mod objects;
mod offline;
mod run;
mod wait;
