//! Changing a rules file: an entry added, an entry taken out, everything else left as its author wrote it.

use super::{AccessErrors, AccessRules};
use crate::key::PublicKey;
use crate::token::TokenHash;
use std::time::SystemTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use toml_edit::{Array, ArrayOfTables, Datetime, DocumentMut, Item, RawString, Table, value};

/// An entry to be added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    /// Its name, which must be new.
    pub name: String,
    /// Keys that it is for.
    pub keys: Vec<PublicKey>,
    /// The token that it is for.
    pub token: Option<TokenHash>,
    /// What may be read.
    pub read: Vec<String>,
    /// What may be written.
    pub write: Vec<String>,
    /// Where to may be relayed.
    pub relay: Vec<String>,
    /// As what may be registered.
    pub register: Vec<String>,
    /// When it ends.
    pub expires: Option<SystemTime>,
    /// Connections at once.
    pub connections: Option<u32>,
    /// Bytes a second, as in `20MiB/s`.
    pub rate: Option<String>,
}

/// Why a rules file cannot be changed like this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// It was broken before.
    #[error("the rules are not changed, because the file is wrong as it is:\n{0}")]
    Before(AccessErrors),
    /// It would be broken; the places are those of the changed file, so only the texts are shown.
    #[error("the rules are not changed: {}", messages(.0))]
    After(AccessErrors),
    /// Nobody of that name.
    #[error("there is no entry named {name}; there are: {}", if others.is_empty() { "none".to_owned() } else { others.join(", ") })]
    NoSuchName {
        /// The name.
        name: String,
        /// Those that are there.
        others: Vec<String>,
    },
}

fn messages(errors: &AccessErrors) -> String {
    let texts: Vec<&str> = errors.0.iter().map(|error| error.message.as_str()).collect();
    texts.join("; ")
}

/// The rules file `text` with one more entry at its end.
///
/// # Errors
/// When the file is broken, or would be: a name that is taken, or something in the entry that is no rule.
pub fn grant(text: &str, grant: &Grant) -> Result<String, EditError> {
    let mut document = editable(text)?;
    let entry = table(grant, document.as_table().is_empty());
    let whos = document.entry("who").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    if let Item::ArrayOfTables(tables) = whos {
        tables.push(entry);
    }
    let changed = document.to_string();
    AccessRules::parse(&changed).map_err(EditError::After)?;
    Ok(changed)
}

/// The rules file `text` without the entry of this name.
///
/// # Errors
/// When the file is broken, or has no such entry.
pub fn revoke(text: &str, name: &str) -> Result<String, EditError> {
    let mut document = editable(text)?;
    let no_such_name = |others| EditError::NoSuchName { name: name.to_owned(), others };
    let Some(Item::ArrayOfTables(tables)) = document.get_mut("who") else {
        return Err(no_such_name(Vec::new()));
    };
    let name_of = |table: &Table| table.get("name").and_then(Item::as_str).unwrap_or_default().to_owned();
    let Some(index) = tables.iter().position(|table| name_of(table) == name) else {
        return Err(no_such_name(tables.iter().map(name_of).collect()));
    };
    let gone = tables.remove(index);
    let kept = head_of(&gone);
    // What stood at the file's head, before a blank line, is about the file and not about the entry that went.
    if index == 0 && !kept.is_empty() {
        match tables.get_mut(0) {
            Some(next) => {
                let own = text_of(next.decor().prefix());
                next.decor_mut().set_prefix(format!("{kept}{}", own.trim_start_matches('\n')));
            }
            None => document.set_trailing(format!("{kept}{}", text_of(Some(document.trailing())))),
        }
    }
    if matches!(document.get("who"), Some(Item::ArrayOfTables(tables)) if tables.is_empty()) {
        document.remove("who");
    }
    let changed = document.to_string();
    AccessRules::parse(&changed).map_err(EditError::After)?;
    Ok(changed)
}

fn editable(text: &str) -> Result<DocumentMut, EditError> {
    AccessRules::parse(text).map_err(EditError::Before)?;
    // What was just read as a document is one; without it there would be nothing to change.
    Ok(text.parse().unwrap_or_default())
}

/// What stands before a table up to its last blank line.
fn head_of(table: &Table) -> String {
    let prefix = text_of(table.decor().prefix());
    prefix.rfind("\n\n").map_or_else(String::new, |blank| prefix.chars().take(blank + 2).collect())
}

fn text_of(raw: Option<&RawString>) -> String {
    raw.and_then(RawString::as_str).unwrap_or_default().to_owned()
}

fn table(grant: &Grant, is_first: bool) -> Table {
    let mut table = Table::new();
    if !is_first {
        table.decor_mut().set_prefix("\n");
    }
    table.insert("name", value(&grant.name));
    match grant.keys.as_slice() {
        [] => {}
        [key] => drop(table.insert("key", value(key.to_string()))),
        keys => drop(table.insert("key", list(keys.iter().map(ToString::to_string)))),
    }
    if let Some(token) = &grant.token {
        table.insert("token", value(token.to_string()));
    }
    let lists = [
        ("read", &grant.read),
        ("write", &grant.write),
        ("relay", &grant.relay),
        ("register", &grant.register),
    ];
    for (key, texts) in lists {
        if !texts.is_empty() {
            table.insert(key, list(texts.iter().cloned()));
        }
    }
    if let Some(instant) = grant.expires.and_then(datetime) {
        table.insert("expires", value(instant));
    }
    if let Some(connections) = grant.connections {
        table.insert("connections", value(i64::from(connections)));
    }
    if let Some(rate) = &grant.rate {
        table.insert("rate", value(rate));
    }
    table
}

fn list(texts: impl Iterator<Item = String>) -> Item {
    value(texts.collect::<Array>())
}

/// Whole seconds are enough, and shorter.
fn datetime(instant: SystemTime) -> Option<Datetime> {
    let seconds = instant.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let instant = OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()?;
    instant.format(&Rfc3339).ok()?.parse().ok()
}
