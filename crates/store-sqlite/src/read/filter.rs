//! Builds the conditions of a list. Values are always bound, never written into the text.

use rusqlite::types::Value;
use signalpost_core::{
    Timestamp,
    id::{Id, Kind},
};
use signalpost_store::read::Page;

use crate::columns::{first_at, key};

/// Conditions, joined by AND, and their values in order.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    conditions: Vec<String>,
    values: Vec<Value>,
}

impl Filter {
    pub(crate) fn raw(&mut self, condition: impl Into<String>) {
        self.conditions.push(condition.into());
    }

    pub(crate) fn blob(&mut self, condition: &str, value: [u8; 16]) {
        self.raw(condition);
        self.values.push(Value::Blob(value.to_vec()));
    }

    pub(crate) fn text(&mut self, condition: &str, value: &str) {
        self.raw(condition);
        self.values.push(Value::Text(value.to_owned()));
    }

    pub(crate) fn number(&mut self, condition: &str, value: i64) {
        self.raw(condition);
        self.values.push(Value::Integer(value));
    }

    /// A range of times, on a column that holds times.
    pub(crate) fn times(&mut self, column: &str, since: Option<Timestamp>, until: Option<Timestamp>) {
        if let Some(since) = since {
            self.number(&format!("{column} >= ?"), since.as_micros());
        }
        if let Some(until) = until {
            self.number(&format!("{column} < ?"), until.as_micros());
        }
    }

    /// A range of times of creation, on a column that holds ids.
    pub(crate) fn created<K: Kind>(&mut self, column: &str, since: Option<Timestamp>, until: Option<Timestamp>) {
        if let Some(since) = since {
            self.blob(&format!("{column} >= ?"), key(first_at::<K>(since)));
        }
        if let Some(until) = until {
            self.blob(&format!("{column} < ?"), key(first_at::<K>(until)));
        }
    }

    /// The end of a statement that gives one page, and its values.
    pub(crate) fn page<K: Kind>(mut self, column: &str, page: &Page<Id<K>>, limit: usize) -> (String, Vec<Value>) {
        if let Some(after) = page.after {
            let compare = if page.descending { "<" } else { ">" };
            self.blob(&format!("{column} {compare} ?"), key(after));
        }
        let order = if page.descending { format!("{column} DESC") } else { column.to_owned() };
        self.end(&order, limit)
    }

    /// The end of a statement in that order.
    pub(crate) fn end(mut self, order: &str, limit: usize) -> (String, Vec<Value>) {
        self.values.push(Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
        (format!("WHERE {} ORDER BY {order} LIMIT ?", self.conditions.join(" AND ")), self.values)
    }
}
