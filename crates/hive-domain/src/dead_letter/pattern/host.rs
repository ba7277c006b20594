//! The service that a failure's text names.

/// Ends of names that are files or code and no hosts.
const NO_HOSTS: &str = "py js ts go rs rb java php cs json yaml yml xml csv txt md html log toml \
    error exception exc lock sh so dll exe jar class cc cpp h kt scala lua sql proto conf cfg ini \
    timeout code status message errors exceptions decoder";

/// The host of the service that a text names, if it names one: of a link, of `host='…'`, of `dial
/// tcp …`, or a bare name with a port.
#[must_use]
pub fn upstream(text: &str) -> Option<&str> {
    let text = text.get(..text.floor_char_boundary(super::super::text::END_BYTES))?;
    if let Some(host) = after(text, "://").and_then(authority) {
        return Some(host);
    }
    for name in [
        "host='",
        "host=\"",
        "host=",
        "hostname=",
        "getaddrinfo ENOTFOUND ",
        "getaddrinfo EAI_AGAIN ",
        "lookup ",
        "resolve host: ",
        "resolve host ",
        "resolve '",
        "dial tcp ",
        "connect to host ",
        "to server at \"",
        "server at \"",
        "server: ",
        "ENOTFOUND ",
    ] {
        if let Some(host) = after(text, name).and_then(authority) {
            return Some(host);
        }
    }
    let is_inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    text.split(|c: char| !is_inside(c)).find_map(|word| {
        let word = word.trim_end_matches([':', '.']);
        let (name, port) = word.split_once(':')?;
        let is_port = (2..=5).contains(&port.len()) && port.chars().all(|c| c.is_ascii_digit());
        (is_port && name.contains('.'))
            .then(|| authority(name))
            .flatten()
    })
}

fn after<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    text.split_once(mark).map(|(_, rest)| rest)
}

/// The host that `text` begins with, without user and port.
fn authority(text: &str) -> Option<&str> {
    let end = text.find(|c: char| {
        !c.is_ascii_alphanumeric() && !matches!(c, '.' | '-' | '_' | '@' | ':' | '[' | ']')
    });
    let all = text.get(..end.unwrap_or(text.len()))?;
    let host = all.rsplit('@').next().unwrap_or(all);
    let host = host
        .split(':')
        .next()
        .unwrap_or(host)
        .trim_matches(['.', '-', '_']);
    let last = host.rsplit('.').next().unwrap_or(host).to_ascii_lowercase();
    let is_host = host.contains('.') && !NO_HOSTS.split_whitespace().any(|end| end == last)
        || host == "localhost";
    let is_letter = host.chars().any(|c| c.is_ascii_alphanumeric());
    (is_host && is_letter && host.len() <= 253).then_some(host)
}
