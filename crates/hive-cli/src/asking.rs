//! Asks the person at the terminal before something is done that cannot be undone.

use std::io::{self, IsTerminal as _};

use crate::{
    exit::{Exit, Failure},
    output::note,
};

/// Asks, and goes on after a `yes` alone.
///
/// # Errors
/// When nobody is there to be asked, the answer is another one, or stdin cannot be read.
pub(crate) fn confirm(question: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        let rule = "nobody is there to be asked: add --yes";
        return Err(Failure::new(Exit::Usage, rule));
    }
    note(&format!("{question} type `yes`:"));
    let mut answer = String::new();
    match io::stdin().read_line(&mut answer) {
        Ok(_) if answer.trim() == "yes" => Ok(()),
        Ok(_) => Err(Failure::new(Exit::Failed, "not accepted; nothing changed")),
        Err(error) => Err(Failure::new(Exit::Failed, error.to_string())),
    }
}
