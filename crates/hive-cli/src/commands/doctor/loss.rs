//! `hive doctor --accept-loss`: ends the stop after Redis lost the data that the daemons knew.
//!
//! It asks every gateway what it remembers and has the one that remembers most write it back: a
//! gateway that started after the loss remembers nothing.

use hive_client::{CallError, Client, wire};
use serde::Serialize;

use crate::{
    asking::confirm,
    connection::{Common, refused},
    exit::Exit,
    output::note,
};

/// What an operator does about a loss.
pub(super) const ADVICE: &str =
    "bring the data back, or go on without it: hive doctor --accept-loss";

/// What was accepted, as it is printed.
#[derive(Debug, Serialize)]
struct Accepted {
    gateway: String,
    loss: String,
    accepted: bool,
    streams: Vec<String>,
    groups: Vec<String>,
}

/// Asks a gateway whether the data is what it knew; changes nothing.
pub(super) async fn look(client: &Client) -> Result<wire::AcceptLossResponse, CallError> {
    let request = wire::AcceptLossRequest { look_only: true };
    client.accept_loss(request).await
}

/// Accepts the loss, after a question unless `is_sure`.
///
/// # Errors
/// When no gateway answers, nobody says yes, or Redis is away.
pub(super) async fn accept(common: &Common, is_sure: bool) -> anyhow::Result<Exit> {
    let (mut best, mut failure) = (None, None);
    let mut answered = 0;
    for url in common.urls() {
        let client = common.client_of(vec![url.clone()])?;
        match look(&client).await {
            Ok(answer) => {
                answered += 1;
                let remembered = answer.streams.len() + answer.groups.len();
                let is_better = best
                    .as_ref()
                    .is_none_or(|(_, _, _, most)| remembered > *most);
                if !answer.loss.is_empty() && is_better {
                    best = Some((url, client, answer, remembered));
                }
            },
            Err(error) => failure = Some(error),
        }
    }
    let Some((gateway, client, seen, _)) = best else {
        if let Some(error) = failure.filter(|_| answered == 0) {
            return Err(refused(error).into());
        }
        let nothing = Accepted {
            gateway: String::new(),
            loss: String::new(),
            accepted: false,
            streams: Vec::new(),
            groups: Vec::new(),
        };
        common
            .out()
            .done("nothing is lost: redis holds what is known", &nothing)?;
        return Ok(Exit::Done);
    };
    note(&told(&gateway, &seen));
    if !is_sure {
        confirm("go on without the lost messages?")?;
    }
    let request = wire::AcceptLossRequest { look_only: false };
    let done = client.accept_loss(request).await.map_err(refused)?;
    let text = format!(
        "accepted; {} streams and {} groups are written back, and all daemons go on within two \
         seconds",
        done.streams.len(),
        done.groups.len()
    );
    let accepted = Accepted {
        gateway,
        loss: done.loss,
        accepted: done.accepted,
        streams: done.streams,
        groups: done.groups,
    };
    common.out().done(&text, &accepted)?;
    Ok(Exit::Done)
}

/// What is about to happen.
fn told(gateway: &str, seen: &wire::AcceptLossResponse) -> String {
    let (streams, groups) = (seen.streams.len(), seen.groups.len());
    let mut text = format!(
        "redis no longer holds the data that the daemons knew: {}\n\
         messages that it held are lost; {gateway} remembers {streams} streams and {groups} groups",
        seen.loss
    );
    for group in &seen.groups {
        text.push_str("\n  group ");
        text.push_str(group);
    }
    if streams + groups == 0 {
        text.push_str(
            "\nit started after the loss: name other gateways with --url, or create streams and \
             groups anew afterwards",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_asked_is_told_what_is_lost_and_what_comes_back() {
        let seen = wire::AcceptLossResponse {
            loss: "the nonce in it is gone".into(),
            streams: vec!["default/s".into()],
            groups: vec!["default/a".into(), "default/b".into()],
            accepted: false,
        };
        let text = told("http://here:1", &seen);
        for part in ["is gone", "1 streams and 2 groups", "group default/b"] {
            assert!(text.contains(part), "`{part}` in `{text}`");
        }
        let nothing = wire::AcceptLossResponse::default();
        assert!(told("http://here:1", &nothing).contains("--url"));
    }
}
