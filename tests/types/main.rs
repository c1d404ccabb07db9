//! Domain types as services have them: enums, newtypes, embedded structs and dates in cached structs.
#![allow(clippy::unwrap_used, missing_docs)]

mod domain;
