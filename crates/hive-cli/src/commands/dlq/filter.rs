//! Which dead letters a command is about, and who asks.

use clap::{Args, ValueEnum};
use hive_client::wire;

/// Which dead letters: those that fit every flag.
#[derive(Args, Debug, Default, Clone)]
pub(crate) struct FilterArgs {
    /// Only of this group.
    #[arg(long, short)]
    group: Option<String>,
    /// Only of this category, e.g. `timeout`.
    #[arg(long, short)]
    category: Option<String>,
    /// Only in this state; may be given more than once, or with commas between.
    #[arg(long, short, value_enum, value_delimiter = ',')]
    status: Vec<Status>,
    /// Only failures that look like this one: the fingerprint that `hive dlq get` shows.
    #[arg(long)]
    fingerprint: Option<String>,
    /// Only of this stream.
    #[arg(long)]
    stream: Option<String>,
    /// Only messages of this type.
    #[arg(long = "type", value_name = "TYPE")]
    message_type: Option<String>,
    /// Only of this workflow.
    #[arg(long)]
    workflow: Option<String>,
    /// Only whose last attempt failed with this type of error.
    #[arg(long, value_name = "TYPE")]
    error_type: Option<String>,
    /// Only dead at this time (RFC 3339) or later.
    #[arg(long, value_name = "TIME")]
    from: Option<jiff::Timestamp>,
    /// Only dead before this time (RFC 3339).
    #[arg(long, value_name = "TIME")]
    to: Option<jiff::Timestamp>,
}

/// Where a dead letter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Status {
    /// Taken in, and its failure is not understood.
    Quarantined,
    /// Classified; waits for a person.
    Analyzed,
    /// May be sent back.
    Replayable,
    /// A replay is under way.
    Replaying,
    /// Sent back.
    Replayed,
    /// Will not be sent back.
    #[value(name = "permanent_failure", alias = "permanent-failure")]
    PermanentFailure,
    /// Out of the way.
    Archived,
}

impl Status {
    pub(super) const fn wire(self) -> wire::DeadLetterStatus {
        match self {
            Self::Quarantined => wire::DeadLetterStatus::Quarantined,
            Self::Analyzed => wire::DeadLetterStatus::Analyzed,
            Self::Replayable => wire::DeadLetterStatus::Replayable,
            Self::Replaying => wire::DeadLetterStatus::Replaying,
            Self::Replayed => wire::DeadLetterStatus::Replayed,
            Self::PermanentFailure => wire::DeadLetterStatus::PermanentFailure,
            Self::Archived => wire::DeadLetterStatus::Archived,
        }
    }
}

impl FilterArgs {
    /// The filter on the wire. Names are judged by the server, in one place.
    pub(super) fn wire(&self) -> wire::DeadLetterFilter {
        let moment = |at: jiff::Timestamp| prost_types::Timestamp {
            seconds: at.as_second(),
            nanos: at.subsec_nanosecond(),
        };
        let text = |given: &Option<String>| given.clone().unwrap_or_default();
        wire::DeadLetterFilter {
            category: text(&self.category),
            group: text(&self.group),
            stream: text(&self.stream),
            status: self.status.iter().map(|one| one.wire().into()).collect(),
            fingerprint: text(&self.fingerprint),
            message_type: text(&self.message_type),
            workflow_id: text(&self.workflow),
            error_type: text(&self.error_type),
            from_time: self.from.map(moment),
            to_time: self.to.map(moment),
        }
    }

    /// Whether no flag is given: then it is about all of them.
    pub(super) fn is_empty(&self) -> bool {
        self.wire() == wire::DeadLetterFilter::default()
    }
}

/// How careful a command is.
#[derive(Args, Debug, Clone, Copy)]
pub(crate) struct CareArgs {
    /// Say how many it would be, and change nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Do not ask.
    #[arg(long, short)]
    pub(super) yes: bool,
}

/// Who asks, for the history.
#[derive(Args, Debug, Clone)]
pub(crate) struct ByArgs {
    /// Who asks, for the history [default: the user].
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

impl ByArgs {
    /// The name, or that of the user in the characters of a name.
    pub(super) fn name(&self) -> String {
        self.by.clone().unwrap_or_else(|| {
            let user = std::env::var("USER").unwrap_or_default();
            named(&user)
        })
    }
}

fn named(user: &str) -> String {
    let is_kept = |one: &char| one.is_ascii_alphanumeric() || "_.-".contains(*one);
    let kept: String = user.chars().filter(is_kept).take(64).collect();
    kept.trim_start_matches(['_', '.', '-']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn a_user_is_named_in_the_characters_of_a_name() {
        assert_eq!(named("anna"), "anna");
        assert_eq!(named("_svc/é x"), "svcx");
        assert_eq!(named(""), "");
    }
}
