//! Reading Redis' replies: small typed steps, each refusing what it does not expect.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "redis' value type grows with its releases; what is not asked for is a wrong reply"
)]

use redis::Value;

use crate::error::StoreError;

/// A reply being read; `what` names it in errors.
#[derive(Debug)]
pub struct Reply {
    what: &'static str,
    value: Value,
}

impl Reply {
    /// Reads the reply of `what`.
    #[must_use]
    pub fn new(what: &'static str, value: Value) -> Self {
        Self { what, value }
    }

    fn wrong(&self) -> StoreError {
        StoreError::Corrupt {
            what: format!("reply of `{}`", self.what),
        }
    }

    /// A list.
    ///
    /// # Errors
    /// `Corrupt` when it is none.
    pub fn list(self) -> Result<Vec<Self>, StoreError> {
        let what = self.what;
        match self.value {
            Value::Array(values) | Value::Set(values) => Ok(values
                .into_iter()
                .map(|value| Self { what, value })
                .collect()),
            Value::Map(pairs) => Ok(pairs
                .into_iter()
                .flat_map(|(key, value)| [key, value])
                .map(|value| Self { what, value })
                .collect()),
            Value::Nil => Ok(Vec::new()),
            other => Err(Self { what, value: other }.wrong()),
        }
    }

    /// A list of exactly `N`.
    ///
    /// # Errors
    /// `Corrupt` when it is none, or of another length.
    pub fn array<const N: usize>(self) -> Result<[Self; N], StoreError> {
        let what = self.what;
        self.list()?
            .try_into()
            .map_err(|_error| StoreError::Corrupt {
                what: format!("reply of `{what}`: not {N} elements"),
            })
    }

    /// An entry of a stream with one field, `[id, [field, value]]`, as id and value. Taken apart in
    /// one step: this is the one reply of which there is one for each message.
    ///
    /// # Errors
    /// `Corrupt` when it is none.
    pub fn entry(self) -> Result<(String, Vec<u8>), StoreError> {
        let what = self.what;
        let wrong = || StoreError::Corrupt {
            what: format!("reply of `{what}`: not an entry"),
        };
        if let Value::Array(parts) = self.value
            && let Ok([Value::BulkString(id), Value::Array(fields)]) = <[Value; 2]>::try_from(parts)
            && let Ok([_, Value::BulkString(body)]) = <[Value; 2]>::try_from(fields)
        {
            return Ok((String::from_utf8(id).map_err(|_error| wrong())?, body));
        }
        Err(wrong())
    }

    /// Bytes.
    ///
    /// # Errors
    /// `Corrupt` when it is no string.
    pub fn bytes(self) -> Result<Vec<u8>, StoreError> {
        match self.value {
            Value::BulkString(bytes) => Ok(bytes),
            Value::SimpleString(text) => Ok(text.into_bytes()),
            Value::Okay => Ok(b"OK".to_vec()),
            Value::Int(number) => Ok(number.to_string().into_bytes()),
            other => Err(Self {
                what: self.what,
                value: other,
            }
            .wrong()),
        }
    }

    /// Text.
    ///
    /// # Errors
    /// `Corrupt` when it is no string or not UTF-8.
    pub fn text(self) -> Result<String, StoreError> {
        let what = self.what;
        String::from_utf8(self.bytes()?).map_err(|_error| StoreError::Corrupt {
            what: format!("reply of `{what}`: not UTF-8"),
        })
    }

    /// Text, or nothing.
    ///
    /// # Errors
    /// `Corrupt` when it is something else.
    pub fn maybe_text(self) -> Result<Option<String>, StoreError> {
        if matches!(self.value, Value::Nil) {
            Ok(None)
        } else {
            self.text().map(Some)
        }
    }

    /// Bytes, or nothing.
    ///
    /// # Errors
    /// `Corrupt` when it is something else.
    pub fn maybe_bytes(self) -> Result<Option<Vec<u8>>, StoreError> {
        if matches!(self.value, Value::Nil) {
            Ok(None)
        } else {
            self.bytes().map(Some)
        }
    }

    /// A whole number, as integer or text; nothing counts as 0.
    ///
    /// # Errors
    /// `Corrupt` when it is none.
    pub fn number(self) -> Result<u64, StoreError> {
        let wrong = self.wrong();
        match self.value {
            Value::Int(number) => u64::try_from(number).map_err(|_error| wrong),
            Value::Nil => Ok(0),
            value => {
                let text = Self {
                    what: self.what,
                    value,
                }
                .text()?;
                // A zset score comes as a decimal.
                let whole = text.split('.').next().unwrap_or_default();
                whole.parse().map_err(|_error| wrong)
            },
        }
    }
}

/// Splits a script's reply into its status word and the rest.
///
/// # Errors
/// `Corrupt` when there is no status word.
pub fn status(what: &'static str, value: Value) -> Result<(String, Vec<Reply>), StoreError> {
    let mut parts = Reply::new(what, value).list()?.into_iter();
    let word = parts
        .next()
        .ok_or_else(|| StoreError::reply(what))?
        .text()?;
    Ok((word, parts.collect()))
}

/// The first of the parts behind a status word, as text.
///
/// # Errors
/// `Corrupt` when it is missing.
pub fn detail(what: &'static str, parts: Vec<Reply>) -> Result<String, StoreError> {
    parts
        .into_iter()
        .next()
        .ok_or_else(|| StoreError::reply(what))?
        .text()
}

/// A flat list of names and values as pairs.
///
/// # Errors
/// `Corrupt` where a text is missing.
pub fn pairs(reply: Reply) -> Result<Vec<(String, String)>, StoreError> {
    let mut texts = reply.list()?.into_iter();
    let mut found = Vec::new();
    while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
        found.push((name.text()?, value.text()?));
    }
    Ok(found)
}
