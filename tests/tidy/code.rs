//! Rust source without what is not code.

/// Replaces comments, and the insides of strings unless they are kept, by spaces; lines stay where
/// they are.
pub(crate) fn code_of(source: &str, strings: Strings) -> String {
    let source: Vec<char> = source.chars().collect();
    let mut code = String::with_capacity(source.len());
    let mut at = 0;
    while at < source.len() {
        let (end, is_kept) = match token(&source, at) {
            Token::Comment(end) => (end, false),
            Token::Text(end) => (end, strings == Strings::Keep),
            Token::Code => (at + 1, true),
        };
        for &letter in &source[at..end] {
            code.push(if is_kept || letter == '\n' {
                letter
            } else {
                ' '
            });
        }
        at = end;
    }
    code
}

/// What becomes of string literals.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strings {
    Keep,
    Blank,
}

/// What starts at a place, with the place behind it.
enum Token {
    Comment(usize),
    Text(usize),
    Code,
}

fn token(source: &[char], at: usize) -> Token {
    let starts = |text: &str| {
        source[at..]
            .iter()
            .copied()
            .zip(text.chars())
            .filter(|(a, b)| a == b)
            .count()
            == text.len()
    };
    let is_word_before = at > 0 && (source[at - 1].is_alphanumeric() || source[at - 1] == '_');
    if starts("//") {
        return Token::Comment(find(source, at, "\n").unwrap_or(source.len()));
    }
    if starts("/*") {
        return Token::Comment(find(source, at + 2, "*/").map_or(source.len(), |end| end + 2));
    }
    if starts("r\"") && !is_word_before {
        return Token::Text(find(source, at + 2, "\"").map_or(source.len(), |end| end + 1));
    }
    if starts("r#") && !is_word_before {
        let hashes = source[at + 1..]
            .iter()
            .take_while(|letter| **letter == '#')
            .count();
        if source.get(at + 1 + hashes) == Some(&'"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let end = find(source, at + 2 + hashes, &close);
            return Token::Text(end.map_or(source.len(), |end| end + close.len()));
        }
    }
    if starts("\"") {
        return Token::Text(end_of_string(source, at + 1));
    }
    // A character such as '"' must not open a string; a lifetime is code.
    if starts("'") && source.get(at + 1) == Some(&'\\') {
        return Token::Text(find(source, at + 3, "'").map_or(source.len(), |end| end + 1));
    }
    if starts("'") && source.get(at + 2) == Some(&'\'') {
        return Token::Text(at + 3);
    }
    Token::Code
}

fn find(source: &[char], from: usize, text: &str) -> Option<usize> {
    let text: Vec<char> = text.chars().collect();
    let windows = source.get(from..)?.windows(text.len());
    windows
        .into_iter()
        .position(|window| window == text)
        .map(|place| from + place)
}

fn end_of_string(source: &[char], mut at: usize) -> usize {
    while let Some(letter) = source.get(at) {
        match letter {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    source.len()
}

/// Whether `word` stands in `line` with no letter, digit or underscore on either side.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    let is_part = |letter: Option<char>| letter.is_some_and(|l| l.is_alphanumeric() || l == '_');
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        let is_open = |edge: Option<char>| {
            word.chars().next().is_some_and(|l| !is_part(Some(l))) || !is_part(edge)
        };
        let is_closed = word.chars().last().is_some_and(|l| !is_part(Some(l)));
        is_open(before.chars().last()) && (is_closed || !is_part(after.chars().next()))
    })
}

#[test]
fn comments_and_strings_are_blanked_and_lines_stay() {
    let source =
        "let a = \"x // y\"; // z\nlet b = 'c'; /* d\n */ let e = r#\"f\"g\"#;\nfn h<'i>() {}";
    let code = code_of(source, Strings::Blank);
    assert_eq!(code.lines().count(), source.lines().count());
    for gone in ["x", "y", "z", "c'", "d", "f\""] {
        assert!(!code.contains(gone), "{gone} in {code}");
    }
    for kept in ["let a =", "let b =", "let e =", "fn h<'i>() {}"] {
        assert!(code.contains(kept), "{kept} not in {code}");
    }
    assert!(code_of(source, Strings::Keep).contains("\"x // y\""));
    assert!(code_of("let q = '\"'; redis::x", Strings::Blank).contains("redis::x"));
}

#[test]
fn a_word_is_whole() {
    assert!(has_word("use redis::Client;", "redis"));
    assert!(!has_word("use my_redis::Client;", "redis"));
    assert!(!has_word("redis_url", "redis"));
    assert!(has_word("dbg!(x)", "dbg!"));
}
