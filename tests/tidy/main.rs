//! The house rules that a machine can hold: one file per rule, each tested on a snippet of itself.
//!
//! A rule is a function from a [`tree::Tree`] to problems, so that its own test gives it a few
//! lines that break it. What a rule says about the repository is asserted beside it.

mod arrows;
mod clippy_bans;
mod code;
mod domain_purity;
mod file_kinds;
mod forbidden_code;
mod line_length;
mod lint_reasons;
mod markdown;
mod member_lints;
mod metric_names;
mod module_docs;
mod redis_imports;
mod script_headers;
mod status_codes;
mod tree;
mod workplace_words;
