//! The words of an enum: what JSON, TOML and screens call its variants.

use crate::violation::quoted;

/// A word that is none of the known ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value} must be one of {known}")]
pub struct UnknownWord {
    value: String,
    known: String,
}

impl UnknownWord {
    /// `value` is none of `known`.
    #[must_use]
    pub fn new(value: &str, known: &[&str]) -> Self {
        let known: Vec<String> = known.iter().map(|word| format!("`{word}`")).collect();
        Self {
            value: quoted(value),
            known: known.join(", "),
        }
    }
}

/// Gives an enum of plain variants `ALL`, `as_str`, `Display` and `FromStr`; the words are those
/// of its serde form, where it has one.
macro_rules! words {
    ($name:ident { $($variant:ident => $word:literal),+ $(,)? }) => {
        impl $name {
            /// All of them, in the order in which messages name them.
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$variant),+];

            /// The word for it in JSON, TOML, on command lines and on screens.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::words::UnknownWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let found = Self::ALL.into_iter().find(|one| one.as_str() == text);
                found.ok_or_else(|| Self::Err::new(text, &[$($word),+]))
            }
        }
    };
}

pub(crate) use words;
