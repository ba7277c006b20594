//! The words of an enum: what JSON, TOML and screens call its variants.

/// Gives an enum of plain variants `ALL`, `as_str`, `Display` and `FromStr`; the words are those
/// of its serde form.
macro_rules! words {
    ($name:ident { $($variant:ident => $word:literal),+ $(,)? }) => {
        impl $name {
            /// All of them, in the order in which messages name them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word for it in JSON, TOML and on screens.
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
            type Err = $crate::group::UnknownWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let found = Self::ALL.iter().copied().find(|one| one.as_str() == text);
                found.ok_or_else(|| Self::Err::new(text, &[$($word),+]))
            }
        }
    };
}

pub(crate) use words;
